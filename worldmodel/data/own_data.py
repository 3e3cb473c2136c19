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
from worldmodel.data.frames import resize
from worldmodel.data.header import HEADER_FILE, dataset_lock
from worldmodel.data.importers import (
    INFERRED,
    BufferReader,
    Reader,
    ReadOptions,
    as_episode,
    open_source,
)
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode
from worldmodel.errors import ReplayBufferError
from worldmodel.registry import reference

MIN_EPISODES = 10
_FRACTION = 10
_SPLIT_SEED = 0


OwnSource = str | Path | ReplayBuffer | Callable[[], Iterable[Mapping[str, Any]]]


def as_sources(
    data: OwnSource | Sequence[OwnSource] | Sequence[Mapping[str, Any]], folder: Path
) -> list[str]:
    """What `worldmodel.train(data=...)` takes, as values of `data.sources`.

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
        return [str(data.path.absolute())]
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
        return [str(_keep([as_episode(item) for item in data], folder).absolute())]  # type: ignore[arg-type]
    return [source for item in data for source in as_sources(item, folder)]  # type: ignore[arg-type]


def _keep(episodes: Sequence[Episode], folder: Path) -> Path:
    """Store episodes of the memory in a buffer, once."""
    digest = hashlib.sha256()
    for episode in episodes:
        for value in episode:
            digest.update(b"-" if value is None else np.asarray(value).tobytes())
    path = folder / f"episodes_{digest.hexdigest()[:10]}"
    with dataset_lock(path):
        if not (path / HEADER_FILE).exists():
            unfinished = path.with_name(f"{path.name}.tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            store_episodes(unfinished, episodes).close()
            unfinished.rename(path)
    return path


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
            return infer_action_space(a for reader in self.readers for a in reader.actions())
        (first, space), *others = spaces.items()
        for name, other in others:
            if other != space:
                raise ValueError(
                    f"{name} has actions {other}, but {first} has {space}; train on data with the "
                    "same actions, or without --env"
                )
        return space

    def episodes(self) -> Iterator[Episode]:
        """All episodes, with frames as they are stored."""
        for reader in self.readers:
            for episode in reader:
                yield episode._replace(frames=self._frames(episode))

    def folder(self) -> Path:
        """Directory of the cached buffer; its name holds a digest of sources and frame size."""
        config = self.config
        content = [
            [reader.identity() for reader in self.readers],
            [config.observation, config.image_size],
            [config.env.observation_key, config.data.state_key],
        ]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
        return config.data.dir / f"{source_name(config.data.sources)}_{digest}"

    def in_place(self) -> Path | None:
        """The replay buffer that can be used as it is; None if episodes have to be stored."""
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
    """A short name for sources, for directories."""
    name = sources[0].rstrip("/").rpartition("/")[2]
    name = name.removesuffix(".h5").removesuffix(".hdf5")
    return name.replace(":", "-") + (f"_and_{len(sources) - 1}" if len(sources) > 1 else "")


def known_env(sources: Sequence[str], options: ReadOptions) -> Mapping[str, Any]:
    """Settings of the environment and policy that collected sources, as far as they tell.

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
    path = data.in_place() or data.folder()
    if data.in_place() is None:
        with dataset_lock(path, [watching]):
            if not (path / HEADER_FILE).exists():
                watching.on_message(f"Storing {', '.join(config.data.sources)} in {path}")
                _store(path, data, watching)
    with ReplayBuffer.open(path) as buffer:
        yield split(buffer, config)


def _store(path: Path, data: OwnData, callbacks: CallbackList) -> None:
    """Write all episodes into a buffer, which gets its name when it is complete."""
    unfinished = path.with_name(f"{path.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    with callbacks.task("own data", 0) as advance:
        store_episodes(unfinished, data.episodes(), data.action_space, progress=advance).close()
    unfinished.rename(path)


def store_episodes(
    path: str | Path,
    episodes: Iterable[Episode | Mapping[str, Any]],
    action_space: gym.Space[Any] | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> ReplayBuffer:
    """Store episodes in a new buffer; see `ReplayBuffer.from_episodes`."""
    metadata = {}
    if action_space is None:
        metadata = {INFERRED: True}
        listed = [as_episode(content) for content in episodes]
        action_space = infer_action_space([e.actions for e in listed]) if listed else None
        episodes = listed
    buffer: ReplayBuffer | None = None
    for number, content in enumerate(episodes):
        episode = as_episode(content)
        frames = stored_frames(episode.frames, None)
        if buffer is None:
            assert action_space is not None
            buffer = ReplayBuffer.create(
                path,
                frame_shape=frames.shape[1:],
                frame_dtype=frames.dtype.name,
                action_space=action_space,
                state_dim=0 if episode.states is None else int(np.prod(episode.states.shape[1:])),
                metadata=metadata,
            )
        _add(buffer, number, episode._replace(frames=frames))
        if progress is not None:
            progress(number + 1)
    if buffer is None:
        raise ValueError("there are no episodes to store")
    buffer.close()
    return ReplayBuffer.open(path)


def _add(buffer: ReplayBuffer, number: int, episode: Episode) -> None:
    space = buffer.action_space
    actions, states = np.asarray(episode.actions), episode.states
    if isinstance(space, gym.spaces.Box):
        actions = actions.reshape(len(actions), *space.shape).astype(np.float32)
    elif actions.ndim == 2 and actions.shape[1] == 1:
        actions = actions[:, 0]
    try:
        buffer.add_episode(
            episode.frames,
            actions,
            np.asarray(episode.rewards, np.float32),
            episode.terminated,
            states=None if states is None else states.reshape(len(states), -1),
            seed=episode.seed if episode.seed >= 0 else None,
        )
    except ReplayBufferError:
        raise
    except ValueError as error:
        raise ValueError(f"episode {number}: {error}") from error


def stored_frames(frames: np.ndarray, image_size: int | None) -> np.ndarray:
    """Frames (T+1, H, W, C) uint8 or (T+1, d) float32 of recorded observations.

    Args:
        frames: uint8 (T+1, H, W), (T+1, H, W, C) or (T+1, C, H, W), or numbers (T+1, d).
        image_size: side of the stored images; None to keep theirs.

    Raises:
        ValueError: If they are neither.
    """
    frames = np.asarray(frames)
    if frames.ndim == 2:
        return frames.astype(np.float32)
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.ndim != 4 or frames.dtype != np.uint8:
        raise ValueError(
            f"frames are {frames.dtype} of shape {frames.shape}; expected uint8 images, 0 to 255, "
            "of shape (T+1, H, W, C), or vectors (T+1, d): convert floats in [0, 1] with "
            "(frames * 255).astype(numpy.uint8)"
        )
    if frames.shape[-1] not in (1, 3) and frames.shape[1] in (1, 3):
        frames = np.moveaxis(frames, 1, -1)
    if frames.shape[-1] == 4:
        frames = frames[..., :3]
    if image_size is None or frames.shape[1:3] == (image_size, image_size):
        return frames
    return np.stack([resize(frame, image_size) for frame in frames])


def infer_action_space(actions: Iterable[np.ndarray]) -> gym.Space[Any]:
    """The smallest usual space that holds given actions.

    Integers of shape (T,) give ``Discrete``; others a flat ``Box`` of [-1, 1] where that holds them
    all, else of their extremes. A dimension that never changes gets a range of 1 around it.
    """
    parts: Sequence[np.ndarray] = [np.asarray(part) for part in actions]
    if all(part.ndim == 1 and part.dtype.kind in "iu" for part in parts):
        low, high = min(int(p.min()) for p in parts), max(int(p.max()) for p in parts)
        start = min(low, 0)
        return gym.spaces.Discrete(max(high - start + 1, 2), start=start)
    rows = [part.reshape(len(part), -1).astype(np.float64) for part in parts]
    low_bound = np.min([row.min(0) for row in rows], axis=0)
    high_bound = np.max([row.max(0) for row in rows], axis=0)
    if low_bound.min() >= -1 and high_bound.max() <= 1:
        low_bound, high_bound = -np.ones_like(low_bound), np.ones_like(high_bound)
    still = low_bound == high_bound
    low_bound, high_bound = low_bound - 0.5 * still, high_bound + 0.5 * still
    return gym.spaces.Box(low_bound.astype(np.float32), high_bound.astype(np.float32))


def split(buffer: ReplayBuffer, config: Config) -> Datasets:
    """Split a buffer by episode.

    Held-out episodes longer than `evaluation.steps` are cut into parts of that length.

    Raises:
        ValueError: If there are too few episodes.
    """
    long_enough = buffer.episodes_of_at_least(config.frame_stack + 1)
    if len(long_enough) < MIN_EPISODES:
        raise ValueError(
            f"{buffer.path} has {len(long_enough)} episodes of at least {config.frame_stack + 1} "
            f"frames; expected {MIN_EPISODES} or more, to train, validate and evaluate on"
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
    """Positions of training, validation and held-out episodes."""
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
    """A view of the episodes in parts of at most `frames` frames, at most `parts` of them."""
    rows = [
        (episode, start, min(frames, length - start))
        for episode, length in zip(episodes.tolist(), buffer.lengths[episodes].tolist())
        for start in range(0, length, frames)
        if start == 0 or length - start >= frames
    ]
    step = max(len(rows) / parts, 1.0)
    chosen = np.array([rows[int(i * step)] for i in range(min(parts, len(rows)))])
    return buffer.select(chosen[:, 0], chosen[:, 1], chosen[:, 2])
