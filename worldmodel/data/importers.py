"""Episodes collected elsewhere: readers for replay buffers, HDF5, Minari, and your own code.

A reader is made by ``Reader(reference, options)`` and yields episodes in a fixed order. To add a
format, write a reader here and put it into `READERS`: the first whose `matches` accepts the
reference is used. `worldmodel.data.own_data` splits and caches what readers give.
"""

from __future__ import annotations

import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.header import HEADER_FILE
from worldmodel.data.policies import source_digest
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode
from worldmodel.registry import is_reference, load_reference

PIXEL_KEYS = ("pixels", "image", "images", "rgb", "frames", "observations", "observation")
VECTOR_KEYS = ("observations", "observation", "proprio", "state")

INFERRED = "action_space_inferred"
"""Key of the metadata of a buffer whose action space is only what its actions need."""


@dataclass(frozen=True)
class ReadOptions:
    """What to read of an episode.

    Attributes:
        observation: ``pixels`` or ``vector``.
        key: entry that holds the observations; None for the first of the usual names.
        state_key: entry that holds the true state.
    """

    observation: str = "pixels"
    key: str | None = None
    state_key: str = "state"

    def choose(self, entries: Mapping[str, Any], where: str) -> str:
        """The entry to read observations from.

        Raises:
            ValueError: If there is none.
        """
        names = PIXEL_KEYS if self.observation == "pixels" else VECTOR_KEYS
        for name in [self.key] if self.key else names:
            if name in entries and _fits(entries[name], self.observation):
                return name
        wanted = self.key or f"one of {', '.join(names)}"
        raise ValueError(
            f"{where} has no {self.observation} under {wanted}; it holds "
            f"{', '.join(sorted(map(str, entries)))}: name the entry with --observation-key, or "
            "choose --observation pixels or vector"
        )


class Reader(ABC):
    """Reads the episodes of one source, always in the same order.

    Args:
        reference: what `data.sources` names.
        options: what to read.

    Attributes:
        action_space: space of the actions; None where the source does not tell.
        env: ``id`` and ``kwargs`` of the environment, and ``policy``, as far as they are known.

    Raises:
        ValueError: If the source cannot be read.
    """

    action_space: gym.Space[Any] | None = None
    env: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def __init__(self, reference: str, options: ReadOptions) -> None: ...

    @classmethod
    @abstractmethod
    def matches(cls, reference: str) -> bool:
        """Whether this reader is meant for a reference."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON values that change when the episodes change."""

    @abstractmethod
    def __iter__(self) -> Iterator[Episode]:
        """Read the episodes."""

    def actions(self) -> Iterator[np.ndarray]:
        """Read the actions of every episode."""
        return (episode.actions for episode in self)


class BufferReader(Reader):
    """A replay buffer on disk, e.g. of `worldmodel collect`."""

    def __init__(self, reference: str, options: ReadOptions) -> None:
        self.path = Path(reference)
        with ReplayBuffer.open(self.path) as buffer:
            self.stored_space, self.frame_shape = buffer.action_space, buffer.frame_shape
            self.action_space = None if INFERRED in buffer.metadata else self.stored_space
            self.env = _collected_env(buffer.metadata)
        pixels = len(self.frame_shape) == 3
        if pixels != (options.observation == "pixels"):
            kind = "pixels" if pixels else "vector"
            raise ValueError(f"{self.path} holds {kind} frames; train with --observation {kind}")

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Whether the path is a replay buffer."""
        return (Path(reference) / HEADER_FILE).exists()

    def identity(self) -> dict[str, Any]:
        """A digest of the header and of the index with its checksums."""
        digest = hashlib.sha256()
        for name in (HEADER_FILE, "index.bin"):
            digest.update((self.path / name).read_bytes())
        return {"buffer": digest.hexdigest()}

    def __iter__(self) -> Iterator[Episode]:
        with ReplayBuffer.open(self.path) as buffer:
            for i, length in enumerate(buffer.lengths.tolist()):
                windows = buffer.windows([i], [0], length)
                yield Episode(
                    int(buffer.seeds[i]),
                    windows.frames[0],
                    windows.actions[0],
                    windows.rewards[0],
                    bool(buffer.terminated[i]),
                    buffer.states([i], [0], length)[0] if buffer.state_dim else None,
                )


class HDF5Reader(Reader):
    """An HDF5 file in the layout of stable-worldmodel or of D4RL.

    stable-worldmodel: one row per frame, episodes by ``ep_len`` and ``ep_offset``; the action of a
    row leads to the next row, rewards and ends belong to the row that they led to, and the last
    action of an episode is meaningless. ``ep_seed``, where present, gives the seeds.

    D4RL (arXiv:2004.07219): one row per transition, episodes by ``terminals`` and ``timeouts``;
    without ``next_observations`` the last transition of an episode lacks its outcome and is left
    out.
    """

    def __init__(self, reference: str, options: ReadOptions) -> None:
        self.path, self.options = Path(reference), options
        self._h5 = _require("h5py", "data")
        if not self.path.is_file():
            raise ValueError(f"{self.path} does not exist; expected an HDF5 file")
        try:
            with self._h5.File(self.path) as file:
                self.swm = "ep_len" in file
                self.key = options.choose(file, str(self.path))
                self.names = {
                    name: next((alias for alias in aliases if alias in file), None)
                    for name, aliases in {
                        "actions": ("action", "actions"),
                        "rewards": ("reward", "rewards"),
                        "terminated": ("terminated", "terminals", "terminations"),
                        "truncated": ("timeouts", "truncated", "truncations"),
                        "states": (options.state_key,),
                    }.items()
                }
        except OSError as error:
            raise ValueError(f"{self.path} is not a readable HDF5 file: {error}") from error
        if self.names["actions"] is None:
            raise ValueError(f"{self.path} holds no actions; expected a dataset action or actions")

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Whether the path ends like an HDF5 file."""
        return Path(reference).suffix in (".h5", ".hdf5")

    def actions(self) -> Iterator[np.ndarray]:
        """Read the actions alone."""
        with self._h5.File(self.path) as file:
            for start, stop in self._bounds(file):
                yield np.asarray(file[self.names["actions"]][start : stop - 1])

    def identity(self) -> dict[str, Any]:
        """Path, size and time of the file."""
        status = self.path.stat()
        return {"hdf5": [str(self.path.resolve()), status.st_size, status.st_mtime_ns, self.key]}

    def __iter__(self) -> Iterator[Episode]:
        with self._h5.File(self.path) as file:
            seeds = file["ep_seed"][:] if "ep_seed" in file else None
            for number, (start, stop) in enumerate(self._bounds(file)):
                read = self._rows if self.swm else self._transitions
                seed = -1 if seeds is None else int(seeds[number])
                yield read(file, slice(start, stop), seed)

    def _bounds(self, file: Any) -> list[tuple[int, int]]:
        if self.swm:
            starts = file["ep_offset"][:] if "ep_offset" in file else None
            lengths = file["ep_len"][:]
            starts = np.cumsum(lengths) - lengths if starts is None else starts
            return [(int(a), int(a + n)) for a, n in zip(starts, lengths)]
        rows = len(file[self.key])
        ends = np.zeros(rows, bool)
        for name in ("terminated", "truncated"):
            if self.names[name] is not None:
                ends |= file[self.names[name]][:].astype(bool).reshape(-1)
        stops = [*(np.flatnonzero(ends) + 1).tolist(), *([] if ends[-1:].any() else [rows])]
        return list(zip([0, *stops[:-1]], stops))

    def _column(self, file: Any, name: str, rows: slice) -> np.ndarray | None:
        alias = self.names[name]
        return None if alias is None else np.asarray(file[alias][rows])

    def _rows(self, file: Any, rows: slice, seed: int) -> Episode:
        actions, rewards = self._column(file, "actions", rows), self._column(file, "rewards", rows)
        ended = self._column(file, "terminated", rows)
        assert actions is not None
        return Episode(
            seed,
            np.asarray(file[self.key][rows]),
            actions[:-1],
            np.zeros(len(actions) - 1) if rewards is None else rewards[1:].reshape(-1),
            ended is not None and bool(ended[-1]),
            self._column(file, "states", rows),
        )

    def _transitions(self, file: Any, rows: slice, seed: int) -> Episode:
        frames, actions = np.asarray(file[self.key][rows]), self._column(file, "actions", rows)
        rewards, ended = self._column(file, "rewards", rows), self._column(file, "terminated", rows)
        assert actions is not None
        rewards = np.zeros(len(actions)) if rewards is None else rewards.reshape(-1)
        terminated = ended is not None and bool(ended[-1])
        if "next_observations" in file and self.key == "observations":
            frames = np.concatenate([frames, file["next_observations"][rows.stop - 1][None]])
        else:
            actions, rewards, terminated = actions[:-1], rewards[:-1], False
        return Episode(seed, frames, actions, rewards, terminated, None)


class MinariReader(Reader):
    """A dataset of Minari, ``minari:ID``, from its local storage (``MINARI_DATASETS_PATH``)."""

    PREFIX = "minari:"

    def __init__(self, reference: str, options: ReadOptions) -> None:
        minari = _require("minari", "data")
        self.id, self.options = reference.removeprefix(self.PREFIX), options
        try:
            self.dataset = minari.load_dataset(self.id)
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(
                f"there is no local Minari dataset {self.id!r} ({error}); get it with "
                f"`minari download {self.id}`"
            ) from error
        self.action_space = self.dataset.action_space
        spec = self.dataset.spec.env_spec
        self.env = {} if spec is None else {"id": spec.id, "kwargs": dict(spec.kwargs)}

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Whether the reference starts with ``minari:``."""
        return reference.startswith(cls.PREFIX)

    def identity(self) -> dict[str, Any]:
        """Id and size of the dataset."""
        sizes = [int(self.dataset.total_episodes), int(self.dataset.total_steps)]
        return {"minari": [self.id, *sizes, self.options.key]}

    def __iter__(self) -> Iterator[Episode]:
        for episode in self.dataset.iterate_episodes():
            entries = episode.observations
            if isinstance(entries, dict):
                entries = entries[self.options.choose(entries, f"Minari dataset {self.id}")]
            infos = episode.infos or {}
            states = infos.get(self.options.state_key)
            seed = getattr(episode, "seed", None)
            yield Episode(
                -1 if seed is None else int(seed),
                np.asarray(entries),
                np.asarray(episode.actions),
                np.asarray(episode.rewards),
                bool(episode.terminations[-1]),
                None if states is None else np.asarray(states),
            )


class FunctionReader(Reader):
    """Your own code, ``module:Name``: a function that yields episodes as dicts of arrays.

    Keys are the arguments of `ReplayBuffer.add_episode`; ``rewards`` and ``terminated`` may be
    missing.
    """

    def __init__(self, reference: str, options: ReadOptions) -> None:
        self.reference = reference
        self.function = load_reference(reference, "data source")

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Whether the reference looks like ``module:Name``."""
        return is_reference(reference) and not Path(reference).exists()

    def identity(self) -> dict[str, Any]:
        """The name of the function and a digest of its source."""
        return {"function": [self.reference, source_digest(self.function)]}

    def __iter__(self) -> Iterator[Episode]:
        for content in self.function():
            yield as_episode(content)


READERS: tuple[type[Reader], ...] = (BufferReader, HDF5Reader, MinariReader, FunctionReader)
"""Readers in the order in which they are tried."""


def open_source(reference: str, options: ReadOptions) -> Reader:
    """Open a source of episodes with the first reader that accepts it.

    Raises:
        ValueError: If no reader accepts it, or it cannot be read.
    """
    for reader in READERS:
        if reader.matches(reference):
            return reader(reference, options)
    found = "exists, but is none of these" if Path(reference).exists() else "does not exist"
    raise ValueError(
        f"data {reference!r} {found}; expected the directory of a replay buffer, an HDF5 file "
        "(.h5, .hdf5), minari:ID, or module:Name of a function that yields episodes"
    )


def as_episode(content: Episode | Mapping[str, Any]) -> Episode:
    """Make an episode of a dict with the arguments of `ReplayBuffer.add_episode`.

    Raises:
        ValueError: If a key is missing or unknown.
    """
    if isinstance(content, Episode):
        return content
    known = {"frames", "actions", "rewards", "terminated", "states", "seed"}
    if not isinstance(content, Mapping) or not {"frames", "actions"} <= content.keys() <= known:
        got = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"an episode is {got}; expected a dict with frames, actions and, where known, rewards, "
            "terminated, states and seed"
        )
    actions = np.asarray(content["actions"])
    states, seed = content.get("states"), content.get("seed")
    return Episode(
        -1 if seed is None else int(seed),
        np.asarray(content["frames"]),
        actions,
        np.asarray(content.get("rewards", np.zeros(len(actions)))),
        bool(content.get("terminated", False)),
        None if states is None else np.asarray(states),
    )


def _collected_env(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What `collect` noted of the environment and the policy; nothing if it had wrappers."""
    noted, policy = metadata.get("env"), metadata.get("policy")
    if not isinstance(noted, dict) or not isinstance(noted.get("id"), str):
        return {}
    if "wrappers" in metadata:
        return {}
    return {
        **{key: metadata[key] for key in ("frame_skip", "observation_key") if key in metadata},
        "id": noted["id"],
        "kwargs": metadata.get("env_kwargs", {}),
        "policy": policy.get("name") if isinstance(policy, dict) else None,
    }


def _fits(entry: Any, observation: str) -> bool:
    axes = len(getattr(entry, "shape", ()))
    return axes in (3, 4) if observation == "pixels" else axes == 2


def _require(module: str, extra: str) -> Any:
    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"reading this data needs {module}; install it with: pip install 'worldmodel[{extra}]'"
        )
    return importlib.import_module(module)
