"""Episodes collected elsewhere: the readers of all formats, and of your own code.

A reader is made by ``Reader(reference, options)`` and yields episodes in a fixed order. To add a
format, write a reader and put it into `READERS`: the first whose `matches` accepts the reference
is used. `worldmodel.data.own_data` splits and caches what readers give.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.hdf5 import HDF5Reader
from worldmodel.data.header import HEADER_FILE
from worldmodel.data.lerobot import LeRobotReader
from worldmodel.data.minari_dataset import MinariReader
from worldmodel.data.policies import source_digest
from worldmodel.data.reader import Reader, ReadOptions
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode
from worldmodel.data.shards import directories, is_buffer
from worldmodel.errors import naming_episode
from worldmodel.registry import is_reference, load_reference


class BufferReader(Reader):
    """A replay buffer on disk, e.g. of `worldmodel collect`."""

    def __init__(self, reference: str, options: ReadOptions) -> None:
        self.path = Path(reference)
        with ReplayBuffer.open(self.path) as buffer:
            self.adopt(buffer.header)
            self.stored_space, self.frame_shape = buffer.action_space, buffer.frame_shape
            self.count = len(buffer)
        pixels = len(self.frame_shape) == 3
        if pixels != (options.observation == "pixels"):
            kind = "pixels" if pixels else "vector"
            raise ValueError(f"{self.path} holds {kind} frames; train with --observation {kind}")

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Check whether the path is a replay buffer."""
        return is_buffer(Path(reference))

    def actions(self) -> Iterator[np.ndarray]:
        """Read the actions alone."""
        with ReplayBuffer.open(self.path) as buffer:
            for i, length in enumerate(buffer.lengths.tolist()):
                yield buffer.actions(np.array([i]), np.array([0]), length)[0]

    def identity(self) -> dict[str, Any]:
        """Return a digest of the header and of the index with its checksums."""
        digest = hashlib.sha256()
        for directory in directories(self.path):
            for name in (HEADER_FILE, "index.bin"):
                digest.update((directory / name).read_bytes())
        return {"buffer": digest.hexdigest()}

    def __iter__(self) -> Iterator[Episode]:
        with ReplayBuffer.open(self.path) as buffer:
            yield from (_stored_episode(buffer, i) for i in range(len(buffer)))

    def episode(self, number: int) -> Episode:
        """Read one episode."""
        self.require_episode(number)
        with ReplayBuffer.open(self.path) as buffer:
            return _stored_episode(buffer, number)


class FunctionReader(Reader):
    """Your own code, ``module:Name``: a function that yields episodes as dicts of arrays.

    Keys are the arguments of `ReplayBuffer.add_episode`; ``rewards`` and ``terminated`` may be
    missing.
    """

    def __init__(self, reference: str, options: ReadOptions) -> None:
        self.reference = reference
        self.function = load_reference(reference, "data source")
        if isinstance(self.function, type) or not callable(self.function):
            raise ValueError(
                f"data {reference!r} is {self.function!r}; expected a function that takes no "
                "arguments and yields episodes (to collect from an environment, use --env)"
            )

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Check whether the reference looks like ``module:Name``."""
        return is_reference(reference) and not Path(reference).exists()

    @property
    def has_rewards(self) -> bool:
        """Whether the first episode has rewards."""
        return has_rewards(next(iter(self.function()), None))

    def identity(self) -> dict[str, Any]:
        """Return the name of the function and a digest of its source."""
        return {"function": [self.reference, source_digest(self.function)]}

    def __iter__(self) -> Iterator[Episode]:
        return as_episodes(self.function())


READERS: tuple[type[Reader], ...] = (
    BufferReader,
    HDF5Reader,
    LeRobotReader,
    MinariReader,
    FunctionReader,
)
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
        f"data {reference!r} {found}; expected the directory of a replay buffer, of a LeRobot "
        "v3 dataset or of a Minari dataset, an HDF5 file (.h5, .hdf5), minari:ID, or module:Name "
        "of a function that yields episodes"
    )


def has_rewards(content: object) -> bool:
    """Check whether an episode has rewards of its own; False for a mapping without them."""
    return not isinstance(content, Mapping) or "rewards" in content


def as_episodes(contents: Iterable[Episode | Mapping[str, Any]]) -> Iterator[Episode]:
    """Convert episodes one by one; errors name the number of the episode.

    Raises:
        ValueError: If one is not an episode, or only some have rewards.
    """
    rewarded = True
    for number, content in enumerate(contents):
        with naming_episode(f"episode {number}"):
            rewarded = has_rewards(content) if number == 0 else rewarded
            if has_rewards(content) != rewarded:
                raise ValueError(
                    f"it has {'no rewards' if rewarded else 'rewards'}, unlike episode 0; give "
                    "rewards for all episodes or for none"
                )
            episode = as_episode(content)
        yield episode


def as_episode(content: Episode | Mapping[str, Any]) -> Episode:
    """Make an episode of a dict with the arguments of `ReplayBuffer.add_episode`.

    Raises:
        ValueError: If a key is missing or unknown.
    """
    if isinstance(content, Episode):
        return content
    known = {"frames", "actions", "rewards", "terminated", "states", "seed"}
    if not isinstance(content, Mapping) or not {"frames", "actions"} <= content.keys() <= known:
        mapping = isinstance(content, Mapping)
        got = f"a dict of {', '.join(sorted(map(str, content)))}" if mapping else repr(content)[:60]
        raise ValueError(
            f"an episode is {got}; expected a dict with frames, actions and, where known, rewards, "
            "terminated, states and seed"
        )
    if np.ndim(content.get("terminated", False)) != 0:
        raise ValueError(
            f"terminated has shape {np.shape(content['terminated'])}; expected one bool, whether "
            "the last step ended the episode by termination"
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


def _stored_episode(buffer: ReplayBuffer, number: int) -> Episode:
    length = int(buffer.lengths[number])
    windows = buffer.windows([number], [0], length)
    return Episode(
        int(buffer.seeds[number]),
        windows.frames[0],
        windows.actions[0],
        windows.rewards[0],
        bool(buffer.terminated[number]),
        buffer.states([number], [0], length)[0] if buffer.state_dim else None,
    )
