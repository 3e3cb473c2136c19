"""Where windows start: pure functions from episode lengths and a generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Indices = Sequence[int] | np.ndarray


def uniform_starts(
    lengths: np.ndarray, length: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows uniformly from all valid ones, the last of each episode included.

    Args:
        lengths: (E,) int64, frames per episode.
        length: frames per window.
        count: windows to draw, with replacement.
        rng: the source of randomness.

    Returns:
        Positions in ``lengths`` (count,) int64, and first frames (count,) int64.

    Raises:
        ValueError: if no episode is as long as a window.
    """
    ends = np.cumsum(np.maximum(lengths - (length - 1), 0))
    if not len(ends) or ends[-1] == 0:
        raise ValueError(
            f"no window of {length} frames fits: the longest of {len(lengths)} episodes has "
            f"{lengths.max(initial=0)} frames; ask for shorter windows or collect longer episodes"
        )
    drawn = rng.integers(0, ends[-1], size=count)
    which = np.searchsorted(ends, drawn, side="right")
    before = np.where(which > 0, ends[which - 1], 0)
    return which, drawn - before


def one_start_each(lengths: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one window from each episode, uniformly over that episode's valid starts.

    Args:
        lengths: (B,) int64, frames per episode, each at least ``length``.
        length: frames per window.
        rng: the source of randomness.

    Returns:
        First frames, (B,) int64.

    Raises:
        ValueError: if an episode is shorter than a window.
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
    """Raise ValueError unless a window of ``length`` frames can exist."""
    if length < 1:
        raise ValueError(f"length is {length}; a window has at least 1 frame")


def as_indices(name: str, values: Indices) -> np.ndarray:
    """``values`` as an int64 array (B,), or ValueError."""
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} is {array.dtype} of shape {array.shape}; expected integers of shape (B,)"
        )
    return array.astype(np.int64, copy=False)
