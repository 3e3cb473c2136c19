"""Own episodes as datasets: read once, stored as a replay buffer, split by episode.

Episodes whose seeds lie in the ranges of `worldmodel.data.datasets.SEEDS` keep that split. Of other
data a tenth is validation and a tenth is held out, at most as many episodes as
`data.validation_size` and `data.heldout_size`, drawn at random with a fixed seed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.config import Config
from worldmodel.data.adapters import adapt_config
from worldmodel.data.datasets import SEEDS, TRAINING_OVERFLOW, Datasets
from worldmodel.data.header import HEADER_FILE, dataset_lock
from worldmodel.data.importers import BufferReader, open_source
from worldmodel.data.reader import INFERRED, NO_REWARDS, Reader, ReadOptions
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode
from worldmodel.data.store import (
    infer_action_space,
    labelled_episodes,
    store_episodes,
    stored_frames,
    write_episodes,
)
from worldmodel.errors import naming_episode
from worldmodel.registry import reference

MIN_SPLIT_EPISODES = 10
_FRACTION = 10
_SPLIT_SEED = 0


OwnSource = str | Path | ReplayBuffer | Callable[[], Iterable[Mapping[str, Any]]]


def as_sources(
    data: OwnSource | Sequence[OwnSource] | Sequence[Mapping[str, Any]], folder: Path
) -> list[str]:
    """Convert the `data` argument of `worldmodel.train` to values of `data.sources`.

    Args:
        data: one source or several, or episodes in memory.
        folder: where episodes in memory are stored, under a name that holds their digest.

    Raises:
        ValueError: If there are no episodes, or they do not fit each other.
        TypeError: If it is none of these.
    """
    if isinstance(data, str | Path):
        return [str(data)]
    if isinstance(data, ReplayBuffer):
        return [str(path.absolute()) for path in data.parts]
    if callable(data):
        return [reference(data)]
    if not isinstance(data, Sequence):
        raise TypeError(
            f"data is a {type(data).__name__}; expected a path, a ReplayBuffer, a function that "
            "yields episodes, a list of these, or a list of episodes"
        )
    if not data:
        raise ValueError("data is empty; expected sources or episodes")
    if all(isinstance(item, Mapping | Episode) for item in data):
        return [str(_keep(data, folder).absolute())]  # type: ignore[arg-type]
    return [source for item in data for source in as_sources(item, folder)]  # type: ignore[arg-type]


def _keep(episodes: Sequence[Mapping[str, Any] | Episode], folder: Path) -> Path:
    """Store in-memory episodes in a buffer, unless they are stored already."""
    digest = hashlib.sha256()
    for _, episode in labelled_episodes(episodes):
        for value in episode:
            digest.update(b"-" if value is None else np.asarray(value).tobytes())
    path = folder / f"episodes_{digest.hexdigest()[:10]}"
    with dataset_lock(path):
        if not (path / HEADER_FILE).exists():
            with completing(path) as unfinished:
                store_episodes(unfinished, episodes).close()
    return path


@contextmanager
def completing(path: Path) -> Iterator[Path]:
    """Yield a directory to write into, renamed to `path` on success and removed on an error."""
    unfinished = path.with_name(f"{path.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.rename(path)


@dataclass(frozen=True)
class OwnData:
    """The sources of a configuration, opened but not yet read."""

    config: Config
    readers: tuple[Reader, ...]

    @classmethod
    def of(cls, config: Config) -> OwnData:
        """Open the sources.

        Raises:
            ValueError: If one cannot be read, or their actions differ.
        """
        options = ReadOptions(config.observation, config.env.observation_key, config.data.state_key)
        return cls(config, tuple(open_source(source, options) for source in config.data.sources))

    @cached_property
    def action_space(self) -> gym.Space[Any]:
        """The space of the actions: the environment's, else what the sources say or hold.

        Raises:
            ValueError: If the sources differ from each other or from the environment.
        """
        spaces = {
            source: reader.action_space
            for source, reader in zip(self.config.data.sources, self.readers)
            if reader.action_space is not None
        }
        if self.config.env.id is not None:
            spaces[self.config.env.id] = adapt_config(self.config).action_space
        if not spaces:
            return infer_action_space(
                (f"{source}, episode {number}", actions)
                for source, reader in zip(self.config.data.sources, self.readers)
                for number, actions in enumerate(reader.actions())
            )
        (first, space), *others = spaces.items()
        for name, other in others:
            if other != space:
                raise ValueError(
                    f"{name} has actions {other}, but {first} has {space}; train on data with the "
                    "same actions, or without --env"
                )
        return space

    @property
    def count(self) -> int | None:
        """Number of episodes; None if a source does not know it."""
        counts = [reader.count for reader in self.readers]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def episodes(self) -> Iterator[tuple[str, Episode]]:
        """Yield all episodes with source and number of each, and frames as they are stored."""
        for source, reader in zip(self.config.data.sources, self.readers):
            for number, episode in enumerate(reader):
                label = f"{source}, episode {number}"
                with naming_episode(label):
                    frames = self._frames(episode)
                yield label, episode._replace(frames=frames)

    def folder(self) -> Path:
        """Return the path of the cached buffer; it holds a digest of sources and frame size."""
        config = self.config
        content = [
            [reader.identity() for reader in self.readers],
            [config.observation, config.image_size],
            [config.env.observation_key, config.data.state_key],
        ]
        if config.env.id is not None:
            content.append([repr(self.action_space)])
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
        return config.data.dir / f"{source_name(config.data.sources)}_{digest}"

    def in_place(self) -> Path | None:
        """Return the replay buffer that can be used as it is; None if episodes must be stored."""
        reader = self.readers[0]
        if len(self.readers) > 1 or not isinstance(reader, BufferReader):
            return None
        size = self.config.image_size
        fits = len(reader.frame_shape) == 1 or reader.frame_shape[:2] == (size, size)
        return reader.path if fits and reader.stored_space == self.action_space else None

    def _frames(self, episode: Episode) -> np.ndarray:
        pixels = self.config.observation == "pixels"
        return stored_frames(episode.frames, self.config.image_size if pixels else None)


def source_name(sources: Sequence[str]) -> str:
    """Return a short directory name for sources."""
    name = sources[0].rstrip("/").rpartition("/")[2]
    name = name.removesuffix(".h5").removesuffix(".hdf5")
    return name.replace(":", "-") + (f"_and_{len(sources) - 1}" if len(sources) > 1 else "")


def known_env(sources: Sequence[str], options: ReadOptions) -> Mapping[str, Any]:
    """Find the environment and policy that collected sources, as far as recorded.

    Only ids that are registered here count, so that data never names code to import.
    """
    found: Mapping[str, Any] = {}
    for source in sources:
        env = open_source(source, options).env
        if env.get("id") not in gym.registry or (found and env != found):
            return {}
        found = env
    return found


@contextmanager
def open_own_data(config: Config, callbacks: Sequence[Callback] = ()) -> Iterator[Datasets]:
    """Open own data, split by episode; it is stored in `data.dir` on first use.

    Yields:
        The datasets, open for reading.

    Raises:
        ValueError: If a source cannot be read, or there are too few episodes.
        ReplayBufferError: If stored data is damaged, or the disk is full.
    """
    data, watching = OwnData.of(config), CallbackList(callbacks)
    in_place = data.in_place()
    path = in_place or data.folder()
    if config.env.id is not None:
        _require_same_frames(data)
    if in_place is None:
        with dataset_lock(path, [watching]):
            if not (path / HEADER_FILE).exists():
                watching.on_message(f"Storing {', '.join(config.data.sources)} in {path}")
                _store(path, data, watching)
    with ReplayBuffer.open(path) as buffer:
        yield split(buffer, config)


def _store(path: Path, data: OwnData, callbacks: CallbackList) -> None:
    """Write all episodes into a buffer, which gets its name when it is complete."""
    metadata = {}
    if all(reader.action_space is None for reader in data.readers) and data.config.env.id is None:
        metadata[INFERRED] = True
    if not any(reader.has_rewards for reader in data.readers):
        metadata[NO_REWARDS] = True
    with (
        completing(path) as unfinished,
        callbacks.task("importing episodes", data.count) as advance,
    ):
        space, compression = data.action_space, data.config.data.compression
        write_episodes(unfinished, data.episodes(), space, metadata, advance, compression).close()


def describe_data(config: Config, datasets: Datasets) -> Iterator[str]:
    """Yield what a user should know about own data, in sentences."""
    known = {str(reader.env["id"]) for reader in OwnData.of(config).readers if "id" in reader.env}
    if config.env.id is None and known:
        names = ", ".join(sorted(known))
        if unknown := sorted(known - gym.registry.keys()):
            reason, example = f"{', '.join(unknown)} is not registered here", "module:ID"
        else:
            reason, example = "the sources differ in the environment or its arguments", "ID"
        yield (
            f"The data comes from {names}, but {reason}: train with --env {example} to choose the "
            "environment, otherwise the run has none"
        )
    train = datasets.train
    if INFERRED in train.metadata:
        yield f"The action space, inferred from the data: {train.action_space}"
    if NO_REWARDS in train.metadata:
        yield "The data holds no rewards: 0 is used for all of them"
    if config.data.size > len(train):
        yield (
            f"data.size is {config.data.size}, but the data has {len(train)} training episodes: "
            "all of them are used"
        )


def _require_same_frames(data: OwnData) -> None:
    """Check that observations of the environment have the shape of the recorded ones."""
    wanted = adapt_config(data.config).source.shape
    for label, episode in data.episodes():
        if episode.frames.shape[1:] != wanted:
            raise ValueError(
                f"{label}: frames have shape {episode.frames.shape[1:]}, but those of the "
                f"environment {data.config.env.id} have {wanted}; train without --env, or with the "
                "environment that the data comes from"
            )
        return


def split(buffer: ReplayBuffer, config: Config) -> Datasets:
    """Split a buffer by episode.

    Held-out episodes longer than `evaluation.steps` are cut into parts of that length.

    Raises:
        ValueError: If there are too few episodes.
    """
    long_enough = buffer.episodes_of_at_least(config.frame_stack + 1)
    if len(long_enough) < MIN_SPLIT_EPISODES:
        raise ValueError(
            f"{buffer.path} has {len(long_enough)} episodes of at least {config.frame_stack + 1} "
            f"frames; expected {MIN_SPLIT_EPISODES} or more, to train, validate and evaluate on"
        )
    train, validation, heldout = _choose(buffer.seeds[long_enough], config)
    train, validation, heldout = (long_enough[part] for part in (train, validation, heldout))
    size = config.data.size or len(train)
    return Datasets(
        buffer.select(train[:size]),
        buffer.select(validation),
        heldout=_cut(buffer, heldout, config.evaluation.steps + 1, config.data.heldout_size),
    )


def _choose(seeds: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions of training, validation and held-out episodes."""
    first, held = SEEDS["validation"].start, SEEDS["heldout"].start
    validation = np.flatnonzero((seeds >= first) & (seeds < held))
    heldout = np.flatnonzero((seeds >= held) & (seeds < TRAINING_OVERFLOW))
    if len(validation) and len(heldout) and len(validation) + len(heldout) < len(seeds):
        train = np.setdiff1d(np.arange(len(seeds)), np.concatenate([validation, heldout]))
        return train, validation, heldout
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(seeds))
    tenth = max(len(seeds) // _FRACTION, 1)
    v, h = min(tenth, config.data.validation_size), min(tenth, config.data.heldout_size)
    parts = order[v + h :], order[:v], order[v : v + h]
    return np.sort(parts[0]), np.sort(parts[1]), np.sort(parts[2])


def _cut(buffer: ReplayBuffer, episodes: np.ndarray, frames: int, parts: int) -> ReplayBuffer:
    """View the episodes in parts of at most `frames` frames, at most `parts` of them."""
    rows = [
        (episode, start, min(frames, length - start))
        for episode, length in zip(episodes.tolist(), buffer.lengths[episodes].tolist())
        for start in range(0, length, frames)
        if start == 0 or length - start >= frames
    ]
    step = max(len(rows) / parts, 1.0)
    chosen = np.array([rows[int(i * step)] for i in range(min(parts, len(rows)))])
    return buffer.select(chosen[:, 0], chosen[:, 1], chosen[:, 2])
