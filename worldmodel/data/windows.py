"""Windows of consecutive frames: their arrays, and drawing where they start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

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


def uniform_starts(
    lengths: np.ndarray, length: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows uniformly from all valid ones, the last of each episode included.

    Args:
        lengths: int64 (E,), frames per episode.
        length: frames per window.
        count: windows to draw, with replacement.
        rng: random generator.

    Returns:
        Positions in `lengths` and first frames, both int64 (count,).

    Raises:
        ValueError: If no episode is as long as a window.
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
