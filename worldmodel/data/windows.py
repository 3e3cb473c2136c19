"""Windows: what the replay buffer hands to training."""

from __future__ import annotations

import math
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
    """An uninitialised array that starts on a cache line.

    NumPy starts large arrays 16 bytes into a page. Copying whole frames there from a memory map,
    which starts on a page, makes the processor take each load for one of the stores just before
    it: the copy runs at 40 % of its speed.
    """
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def check_out(out: Windows, like: dict[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    """Check that ``out`` can receive windows of the given shapes and dtypes.

    Raises:
        ValueError: if a shape, a dtype or the memory layout differs.
    """
    for name, (shape, dtype) in like.items():
        array = getattr(out, name)
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"out.{name} is {array.dtype} {array.shape}; expected C-contiguous {dtype} "
                f"{shape}: make it with `empty_windows(batch_size, length)`"
            )
