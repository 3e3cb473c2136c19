"""Episodes made elsewhere, checked and stored in a replay buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.frames import resize
from worldmodel.data.header import Header, episode_rows
from worldmodel.data.importers import as_episodes, has_rewards
from worldmodel.data.reader import INFERRED, NO_REWARDS
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode
from worldmodel.errors import naming_episode
from worldmodel.hyperparameters import Compression


def store_episodes(
    path: str | Path,
    episodes: Iterable[Episode | Mapping[str, Any]],
    action_space: gym.Space[Any] | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> ReplayBuffer:
    """Store episodes in a new buffer; see `ReplayBuffer.from_episodes`."""
    metadata: dict[str, Any] = {}
    contents = iter(episodes)
    first = next(contents, None)
    if first is None:
        raise ValueError("there are no episodes to store")
    if not has_rewards(first):
        metadata[NO_REWARDS] = True
    labelled = labelled_episodes(chain([first], contents))
    if action_space is None:
        metadata[INFERRED] = True
        listed = list(labelled)
        action_space = infer_action_space((f"data, {label}", e.actions) for label, e in listed)
        labelled = iter(listed)
    return write_episodes(path, labelled, action_space, metadata, progress)


def labelled_episodes(
    episodes: Iterable[Episode | Mapping[str, Any]],
) -> Iterator[tuple[str, Episode]]:
    """Yield episodes with frames in storage format; errors name the number of the episode."""
    for number, episode in enumerate(as_episodes(episodes)):
        with naming_episode(f"episode {number}"):
            frames = stored_frames(episode.frames, None)
        yield f"episode {number}", episode._replace(frames=frames)


def write_episodes(
    path: str | Path,
    episodes: Iterable[tuple[str, Episode]],
    action_space: gym.Space[Any],
    metadata: dict[str, Any],
    progress: Callable[[int], None] | None = None,
    compression: Compression = "none",
) -> ReplayBuffer:
    """Write labelled episodes into a new buffer, and open it for reading."""
    buffer: ReplayBuffer | None = None
    for number, (label, episode) in enumerate(episodes):
        frames = episode.frames
        if buffer is None:
            buffer = ReplayBuffer.create(
                path,
                frame_shape=frames.shape[1:],
                frame_dtype=frames.dtype.name,
                action_space=action_space,
                state_dim=0 if episode.states is None else int(np.prod(episode.states.shape[1:])),
                metadata=metadata,
                compression=compression,
            )
        with naming_episode(label):
            _add(buffer, episode)
        if progress is not None:
            progress(number + 1)
    if buffer is None:
        raise ValueError("there are no episodes to store")
    buffer.close()
    return ReplayBuffer.open(path)


def _add(buffer: ReplayBuffer, episode: Episode) -> None:
    states = episode.states
    buffer.add_episode(
        episode.frames,
        fit_actions(buffer.action_space, episode.actions),
        np.asarray(episode.rewards, np.float32),
        episode.terminated,
        states=None if states is None else states.reshape(len(states), -1),
        seed=episode.seed if episode.seed >= 0 else None,
    )


def fit_actions(space: gym.Space[Any], actions: np.ndarray) -> np.ndarray:
    """Give actions (T, ...) the shape and the dtype of a space, where that changes no value."""
    actions = np.asarray(actions)
    if isinstance(space, gym.spaces.Box) and actions[:1].size == np.prod(space.shape):
        return actions.reshape(len(actions), *space.shape).astype(np.float32)
    if isinstance(space, gym.spaces.Discrete):
        if actions.ndim == 2 and actions.shape[1] == 1:
            actions = actions[:, 0]
        return actions.astype(np.int64) if actions.dtype == bool else actions
    return actions


def fit_episode(header: Header, episode: Episode) -> Episode:
    """Check an episode and give it the shapes and dtypes that a replay buffer stores.

    Returns:
        `frames` uint8 or float32 (T+1, *frame_shape), `actions` float32 or int64
        (T, *action_space.shape), `rewards` float32 (T,), `states` float64 (T+1, state_dim) or None.

    Raises:
        ValueError: If a shape, a dtype or a value does not fit.
    """
    states = episode.states
    rows = episode_rows(
        header,
        episode.frames,
        fit_actions(header.action_space, episode.actions),
        np.asarray(episode.rewards, np.float32),
        None if states is None else np.asarray(states).reshape(len(states), -1),
    )
    steps, shape = len(rows["rewards"]), header.action_space.shape or ()
    return Episode(
        episode.seed,
        rows["frames"],
        rows["actions"].reshape(steps, *shape),
        rows["rewards"],
        episode.terminated,
        rows.get("states"),
    )


def stored_frames(frames: np.ndarray, image_size: int | None) -> np.ndarray:
    """Convert recorded observations to frames (T+1, H, W, C) uint8 or (T+1, d) float32.

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
        convert = {
            "f": ": convert floats in [0, 1] with (frames * 255).astype(numpy.uint8)",
            "i": ": convert integers from 0 to 255 with frames.astype(numpy.uint8)",
        }.get(frames.dtype.kind, "")
        raise ValueError(
            f"frames are {frames.dtype} of shape {frames.shape}; expected uint8 images, 0 to 255, "
            f"of shape (T+1, H, W, C), or vectors (T+1, d){convert}"
        )
    if frames.shape[-1] not in (1, 3) and frames.shape[1] in (1, 3):
        frames = np.moveaxis(frames, 1, -1)
    if frames.shape[-1] == 4:
        frames = frames[..., :3]
    if image_size is None or frames.shape[1:3] == (image_size, image_size):
        return frames
    return np.stack([resize(frame, image_size) for frame in frames])


def infer_action_space(episodes: Iterable[tuple[str, np.ndarray]]) -> gym.Space[Any]:
    """Infer the smallest usual space that holds given actions.

    Integers and bools of shape (T,) give ``Discrete``; others a flat ``Box`` of [-1, 1] where that
    holds them all, else of their extremes. A dimension that never changes gets a range of 1 around
    it.

    Args:
        episodes: name of each episode, for errors, and its actions (T, ...).

    Raises:
        ValueError: If actions are not finite numbers, or their width differs between episodes; the
            message names the episode.
    """
    named = [(label, np.asarray(actions)) for label, actions in episodes]
    for label, part in named:
        with naming_episode(label):
            _require_numbers(part)
    parts = [part for _, part in named]
    if all(part.ndim == 1 and part.dtype.kind in "biu" for part in parts):
        low, high = min(int(p.min()) for p in parts), max(int(p.max()) for p in parts)
        start = min(low, 0)
        return gym.spaces.Discrete(max(high - start + 1, 2), start=start)
    rows = [part.reshape(len(part), -1).astype(np.float64) for part in parts]
    for (label, _), row in zip(named, rows):
        if row.shape[1] != rows[0].shape[1]:
            raise ValueError(
                f"{label}: actions have width {row.shape[1]}, but those of {named[0][0]} have "
                f"width {rows[0].shape[1]}; expected the same width in every episode"
            )
    low_bound = np.min([row.min(0) for row in rows], axis=0)
    high_bound = np.max([row.max(0) for row in rows], axis=0)
    if low_bound.min() >= -1 and high_bound.max() <= 1:
        low_bound, high_bound = -np.ones_like(low_bound), np.ones_like(high_bound)
    still = low_bound == high_bound
    low_bound, high_bound = low_bound - 0.5 * still, high_bound + 0.5 * still
    return gym.spaces.Box(low_bound.astype(np.float32), high_bound.astype(np.float32))


def _require_numbers(actions: np.ndarray) -> None:
    """Raise ValueError if actions (T, ...) of an episode are not finite numbers, T >= 1."""
    if actions.dtype.kind not in "biuf":
        raise ValueError(f"actions are {actions.dtype}; expected numbers")
    if not len(actions):
        raise ValueError("it has no actions; expected one step or more")
    if not np.isfinite(actions).all():
        raise ValueError("actions hold NaN or infinity")
