"""Episodes from Minari datasets, and to them.

A Minari dataset is a directory with ``data/metadata.json`` and ``data/main_data.hdf5``. Its id
names a directory of the local storage (``MINARI_DATASETS_PATH``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.header import Header
from worldmodel.data.reader import Reader, ReadOptions, collected_env, fits
from worldmodel.data.rollout import Episode
from worldmodel.data.writer import Contents, Writer
from worldmodel.errors import RunError
from worldmodel.extras import require
from worldmodel.files import read_json

PREFIX = "minari:"
_DATA, _METADATA = "data", "metadata.json"
_HEADER = "worldmodel"
"""Key of ``metadata.json`` with the header of the replay buffer that was converted."""


class MinariReader(Reader):
    """A dataset of Minari: ``minari:ID`` of the local storage, or its directory."""

    PREFIX = PREFIX

    def __init__(self, reference: str, options: ReadOptions) -> None:
        self.id, self.options = reference.removeprefix(PREFIX), options
        self._minari = require("minari", "data")
        self.dataset = self._open(reference)
        self.action_space = self.dataset.action_space
        self.count = int(self.dataset.total_episodes)
        spec = self.dataset.spec.env_spec
        self.env = {} if spec is None else {"id": spec.id, "kwargs": dict(spec.kwargs)}
        stored = self.dataset.storage.metadata.get(_HEADER)
        if stored is not None:
            self.adopt(_header(stored, self.id))
        self._where = f"Minari dataset {self.id}"

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Check whether the reference starts with ``minari:`` or is the directory of a dataset."""
        return reference.startswith(PREFIX) or (Path(reference, _DATA, _METADATA)).is_file()

    def identity(self) -> dict[str, Any]:
        """Return id, size and time of the dataset."""
        sizes = [int(self.dataset.total_episodes), int(self.dataset.total_steps)]
        return {"minari": [self.id, *sizes, self.options.key]}

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(number) for number in range(len(self.dataset)))

    def episode(self, number: int) -> Episode:
        """Read one episode."""
        self.require_episode(number)
        index = self.dataset.episode_indices[number]
        episode = next(iter(self.dataset.iterate_episodes([index])))
        stored = next(iter(self.dataset.storage.get_episode_metadata([index])))
        infos, seed = episode.infos or {}, stored.get("seed")
        states = infos.get(self.options.state_key)
        return Episode(
            -1 if seed is None else int(seed),
            self._observations(episode.observations, infos),
            np.asarray(episode.actions),
            np.asarray(episode.rewards),
            bool(episode.terminations[-1]),
            None if states is None else np.asarray(states),
        )

    def _open(self, reference: str) -> Any:
        """Open the dataset; its metadata has to say the spaces, else Minari would run its code."""
        from minari.storage import get_dataset_path

        if reference.startswith(PREFIX):
            path = get_dataset_path(self.id) / _DATA
        else:
            path = Path(reference, _DATA)
        if not (path / _METADATA).is_file():
            raise ValueError(
                f"there is no local Minari dataset {self.id!r} in {path}; get it with "
                f"`minari download {self.id}`"
            )
        try:
            described = read_json(path / _METADATA, "download it again")
            if missing := {"observation_space", "action_space"} - described.keys():
                raise ValueError(f"its metadata lack {', '.join(sorted(missing))}")
            return self._minari.MinariDataset(path)
        except (RunError, KeyError, AssertionError, TypeError, OSError, ValueError) as error:
            raise ValueError(f"Minari dataset {self.id} cannot be read: {error}") from error

    def _observations(self, entries: Any, infos: Mapping[str, Any]) -> np.ndarray:
        unread = [f"infos/{name}" for name in infos if name != self.options.state_key]
        if isinstance(entries, dict):
            chosen = self.options.choose(entries, self._where)
            unread += [f"observations/{name}" for name in entries if name != chosen]
            entries = entries[chosen]
        elif not fits(entries, self.options.observation):
            kind = "vector" if np.ndim(entries) == 2 else "pixels"
            raise ValueError(
                f"{self._where} has {kind} observations of shape {np.shape(entries)[1:]}; train "
                f"with --observation {kind}"
            )
        self.unread = tuple(unread)
        return np.asarray(entries)


def _header(stored: Any, name: str) -> Header:
    try:
        return Header.from_json(stored)
    except ValueError as error:
        raise ValueError(f"the metadata of Minari dataset {name} are damaged: {error}") from error


class MinariWriter(Writer):
    """A Minari dataset with raw arrays: Minari's default, JPEG, would change the images.

    Seeds are metadata of the episodes, true states ``infos["state"]``.
    """

    def __init__(self, path: Path, contents: Contents) -> None:
        minari = require("minari", "data")
        from minari.data_collector import EpisodeBuffer
        from minari.dataset.minari_storage import MinariStorage

        self._buffer, header = EpisodeBuffer, contents.header
        path.mkdir(parents=True)
        self._storage = MinariStorage.new(
            path / _DATA,
            observation_space=_observation_space(header),
            action_space=header.action_space,
            env_spec=_env_spec(header),
            data_format="hdf5",
            jpeg_encoding=False,
        )
        self._storage.update_metadata(
            {
                "dataset_id": dataset_id(contents.name),
                "minari_version": minari.__version__,
                _HEADER: header.as_json(),
            }
        )

    def add(self, episode: Episode) -> None:
        """Write one episode."""
        steps = len(episode.actions)
        last = np.arange(steps) == steps - 1
        self._storage.update_episodes(
            [
                self._buffer(
                    seed=episode.seed if episode.seed >= 0 else None,
                    observations=episode.frames,
                    actions=episode.actions,
                    rewards=episode.rewards,
                    terminations=last & episode.terminated,
                    truncations=last & (not episode.terminated),
                    infos={} if episode.states is None else {"state": episode.states},
                )
            ]
        )

    def close(self) -> None:
        """Do nothing: every episode is complete in the file."""

    abort = close


def dataset_id(name: str) -> str:
    """Make an id of Minari, ``name-v0``, of any name; ids stay as they are."""
    from minari.dataset.minari_dataset import DATASET_ID_RE

    match = DATASET_ID_RE.fullmatch(name)
    if match and match["version"]:
        return name
    return re.sub(r"[^-\w]+", "-", name).strip("-") + "-v0"


def local_path(reference: str) -> Path:
    """Return the directory of ``minari:ID`` in the local storage.

    Raises:
        ValueError: If it is not an id of Minari, ``name-v0`` or ``namespace/name-v0``.
    """
    require("minari", "data")
    from minari.storage import get_dataset_path

    name = reference.removeprefix(PREFIX)
    if dataset_id(name) != name:
        raise ValueError(f"{reference!r} is not an id of Minari; expected e.g. minari:mine/pole-v0")
    return Path(get_dataset_path(name))


def register_namespace(reference: str) -> None:
    """Make the namespace of ``minari:NAMESPACE/ID`` known to Minari."""
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = reference.removeprefix(PREFIX).rpartition("/")[0]
    if namespace and namespace not in list_local_namespaces():
        create_namespace(namespace)


def _observation_space(header: Header) -> gym.spaces.Box:
    if header.frame_dtype == "uint8":
        return gym.spaces.Box(0, 255, header.frame_shape, np.uint8)
    return gym.spaces.Box(-np.inf, np.inf, header.frame_shape, np.float32)


def _env_spec(header: Header) -> Any:
    """Return the spec of the environment that collected the episodes, if it is registered."""
    env = collected_env(header.metadata)
    if env.get("id") not in gym.registry:
        return None
    spec = deepcopy(gym.registry[env["id"]])
    spec.kwargs.update(env["kwargs"])
    return spec
