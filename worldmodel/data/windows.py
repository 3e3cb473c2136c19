"""Windows of consecutive frames: their arrays, and drawing where they start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from worldmodel.data.header import Header
from worldmodel.data.index import EpisodeTable
from worldmodel.data.shards import ShardedLog
from worldmodel.data.storage import EpisodeLog

_ALIGNMENT = 64


class Windows(NamedTuple):
    """B windows of L consecutive frames each, batch first.

    Attributes:
        frames: ``(B, L, *frame_shape)``, uint8 images or float32 vectors.
        actions: ``(B, L-1, A)`` float32, or ``(B, L-1)`` int64 for Discrete;
            ``actions[:, t]`` leads from ``frames[:, t]`` to ``frames[:, t + 1]``.
        rewards: ``(B, L-1)`` float32.
        terminated: ``(B, L-1)`` bool, true where that step ended the episode by termination.
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Allocate an array that starts on a cache line.

    NumPy starts large arrays 16 bytes into a page, and a memory map starts on a page. Copies of
    whole frames from one to the other suffer from 4K aliasing, where loads wait for unrelated
    stores, and run at 40 % of their speed.
    """
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def check_out(out: Windows, like: dict[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    """Check that `out` can receive windows of the given shapes and dtypes.

    Args:
        out: arrays to be filled.
        like: shape and dtype of each field.

    Raises:
        ValueError: If a shape, a dtype or the memory layout differs.
    """
    for name, (shape, dtype) in like.items():
        array = getattr(out, name)
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"out.{name} is {array.dtype} {array.shape}; expected C-contiguous {dtype} "
                f"{shape}: make it with `empty_windows(batch_size, length)`"
            )


Indices = Sequence[int] | np.ndarray


def count_windows(lengths: np.ndarray, length: int) -> np.ndarray:
    """Count the windows in the first episodes: int64 (E,), cumulative, for lengths int64 (E,).

    Raises:
        ValueError: If no episode is as long as a window.
    """
    ends = np.cumsum(np.maximum(lengths - (length - 1), 0))
    if not len(ends) or ends[-1] == 0:
        raise ValueError(
            f"no window of {length} frames fits: the longest of {len(lengths)} episodes has "
            f"{lengths.max(initial=0)} frames; ask for shorter windows or collect longer episodes"
        )
    return ends


def uniform_starts(
    ends: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows uniformly from all valid ones, the last of each episode included.

    Args:
        ends: from `count_windows`.
        count: windows to draw, with replacement.
        rng: random generator.

    Returns:
        Episodes and first frames, both int64 (count,).
    """
    drawn = rng.integers(0, ends[-1], size=count)
    which = np.searchsorted(ends, drawn, side="right")
    before = np.where(which > 0, ends[which - 1], 0)
    return which, drawn - before


def one_start_each(lengths: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one window from each episode, uniformly over that episode's valid starts.

    Args:
        lengths: int64 (B,), frames per episode, each at least `length`.
        length: frames per window.
        rng: random generator.

    Returns:
        First frames, int64 (B,).

    Raises:
        ValueError: If an episode is shorter than a window.
    """
    short = np.flatnonzero(lengths < length)
    if len(short):
        raise ValueError(
            f"{len(short)} of {len(lengths)} episodes are shorter than a window of {length} "
            f"frames, the first (at position {short[0]}) has {lengths[short[0]]}; choose episodes "
            "with `episodes_of_at_least(length)`"
        )
    return rng.integers(0, lengths - (length - 1))


def require_length(length: int) -> None:
    """Raise ValueError unless `length` is at least 1."""
    if length < 1:
        raise ValueError(f"length is {length}; a window has at least 1 frame")


def as_indices(name: str, values: Indices) -> np.ndarray:
    """Convert episodes or starts to an int64 array (B,), or raise ValueError."""
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} is {array.dtype} of shape {array.shape}; expected integers of shape (B,)"
        )
    return array.astype(np.int64, copy=False)


def existing_episodes(episodes: Indices, count: int, path: Path) -> np.ndarray:
    """Return episodes of a buffer as int64 (B,), or raise ValueError if one does not exist."""
    chosen = as_indices("episodes", episodes)
    outside = chosen[(chosen < 0) | (chosen >= count)]
    if len(outside):
        raise ValueError(
            f"episode {outside[0]} does not exist; {path} has episodes 0 to {count - 1}"
        )
    return chosen


def starts_within(
    starts: Indices, length: int, lengths: np.ndarray, episodes: np.ndarray
) -> np.ndarray:
    """Return first frames as int64 (B,), or raise ValueError if a window leaves its episode.

    Args:
        starts: first frame of each window.
        length: frames per window.
        lengths: int64 (B,), frames of each window's episode.
        episodes: int64 (B,), for the message.
    """
    first = as_indices("starts", starts)
    if len(episodes) != len(first):
        raise ValueError(f"{len(episodes)} episodes but {len(first)} starts; expected as many")
    outside = (first < 0) | (first + length > lengths)
    if outside.any():
        i = np.argmax(outside)
        raise ValueError(
            f"window {i} takes frames {first[i]} to {first[i] + length - 1} of episode "
            f"{episodes[i]}, which has frames 0 to {lengths[i] - 1}"
        )
    return first


class WindowReader:
    """Reads windows of consecutive frames that never cross the end of an episode.

    The reading half of `ReplayBuffer`, which sets these attributes.

    Attributes:
        path: directory of the buffer.
    """

    path: Path
    _header: Header
    _log: EpisodeLog | ShardedLog
    _view: EpisodeTable | None
    _counted: tuple[tuple[int, int], np.ndarray] | None = None

    @property
    def _episodes(self) -> EpisodeTable:
        return self._log.episodes if self._view is None else self._view

    def windows(
        self, episodes: Indices, starts: Indices, length: int, out: Windows | None = None
    ) -> Windows:
        """Read given windows.

        Args:
            episodes: (B,) episode of each window.
            starts: (B,) first frame of each window within its episode.
            length: frames per window, L.
            out: arrays to fill, from `empty_windows`; None allocates.

        Returns:
            The windows, each array with B and L (or L-1) in front.

        Raises:
            ValueError: If an episode does not exist, a window crosses the end of its episode, or
                `out` does not fit.
        """
        return self._read(*self._validated_windows(episodes, starts, length), length, out)

    def sample(
        self,
        batch_size: int,
        length: int,
        rng: np.random.Generator,
        episodes: Indices | None = None,
        out: Windows | None = None,
    ) -> Windows:
        """Draw windows uniformly from all that fit, with replacement.

        Args:
            batch_size: windows to draw, B.
            length: frames per window, L.
            rng: random generator.
            episodes: (E',) episodes to draw from; None for all.
            out: arrays to fill, from `empty_windows`; None allocates.

        Raises:
            ValueError: If no window of that length fits, or an argument is out of range.
        """
        require_length(length)
        if episodes is None:
            which, starts = uniform_starts(self._window_ends(length), batch_size, rng)
            return self._read(which, starts, length, out)
        chosen = self._validated_episodes(episodes)
        ends = count_windows(self._episodes.lengths[chosen], length)
        which, starts = uniform_starts(ends, batch_size, rng)
        return self._read(chosen[which], starts, length, out)

    def _window_ends(self, length: int) -> np.ndarray:
        """Return `count_windows` of all episodes, kept until there are more or another length."""
        key = length, len(self._episodes)
        if self._counted is None or self._counted[0] != key:
            self._counted = key, count_windows(self._episodes.lengths, length)
        return self._counted[1]

    def episodes_of_at_least(self, length: int) -> np.ndarray:
        """Find episodes long enough for a window of `length` frames, int64 (E',), ascending."""
        return np.flatnonzero(self._episodes.lengths >= length)

    def actions(self, episodes: Indices, starts: Indices, length: int) -> np.ndarray:
        """Read only the actions of given windows, (B, L-1, *action_shape); see `windows`."""
        return self._transitions("actions", episodes, starts, length)

    def rewards(self, episodes: Indices, starts: Indices, length: int) -> np.ndarray:
        """Read only the rewards of given windows, float32 (B, L-1); see `windows`."""
        return self._transitions("rewards", episodes, starts, length)

    def _transitions(
        self, name: str, episodes: Indices, starts: Indices, length: int
    ) -> np.ndarray:
        """Read what is stored once per transition, (B, L-1, ...)."""
        episodes, starts = self._validated_windows(episodes, starts, length)
        out = np.empty(*self._window_layout(len(episodes), length)[name])
        first = self._episodes.first_steps[episodes] + starts
        self._gather(name, first, length - 1, out)
        return out

    def states(self, episodes: Indices, starts: Indices, length: int) -> np.ndarray:
        """Read the true states of given windows. For evaluation only: nothing may train on them.

        Args:
            episodes: (B,) episode of each window.
            starts: (B,) first frame of each window within its episode.
            length: frames per window, L.

        Returns:
            (B, L, state_dim) float64.

        Raises:
            ValueError: If no states are stored, or a window crosses the end of its episode.
        """
        if not self._header.state_dim:
            raise ValueError(
                f"{self.path} stores no states: its environment reported none under state_key"
            )
        episodes, starts = self._validated_windows(episodes, starts, length)
        out = np.empty((len(episodes), length, self._header.state_dim))
        self._gather("states", self._episodes.starts[episodes] + starts, length, out)
        return out

    def empty_windows(self, batch_size: int, length: int) -> Windows:
        """Allocate arrays to pass as `out` again and again."""
        layout = self._window_layout(batch_size, length)
        return Windows(*(aligned_empty(shape, dtype) for shape, dtype in layout.values()))

    def _window_layout(
        self, batch_size: int, length: int
    ) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        require_length(length)
        steps = (batch_size, length - 1)
        return {
            "frames": (
                (batch_size, length, *self._header.frame_shape),
                np.dtype(self._header.frame_dtype),
            ),
            "actions": ((*steps, *self._header.action_shape), self._header.action_dtype),
            "rewards": (steps, np.dtype(np.float32)),
            "terminated": (steps, np.dtype(bool)),
        }

    def _read(
        self, episodes: np.ndarray, starts: np.ndarray, length: int, out: Windows | None
    ) -> Windows:
        if out is None:
            out = self.empty_windows(len(episodes), length)
        else:
            check_out(out, self._window_layout(len(episodes), length))
        table = self._episodes
        first_step = table.first_steps[episodes] + starts
        self._gather("frames", table.starts[episodes] + starts, length, out.frames)
        self._gather("actions", first_step, length - 1, out.actions)
        self._gather("rewards", first_step, length - 1, out.rewards)
        out.terminated[...] = False
        if length > 1:
            reaches_end = starts + length == table.lengths[episodes]
            out.terminated[:, -1] = reaches_end & table.terminated[episodes]
        return out

    def _gather(self, name: str, first: np.ndarray, length: int, out: np.ndarray) -> None:
        """Copy `length` rows from each first row (B,) into `out` (B, length, ...)."""
        if out.size:
            self._log.gather(name, first, length, out)

    def _validated_episodes(self, episodes: Indices) -> np.ndarray:
        return existing_episodes(episodes, len(self._episodes), self.path)

    def _validated_windows(
        self, episodes: Indices, starts: Indices, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        require_length(length)
        chosen = self._validated_episodes(episodes)
        return chosen, starts_within(starts, length, self._episodes.lengths[chosen], chosen)
