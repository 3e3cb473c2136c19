"""Settings of the process without which training on a CPU is slow."""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def tune_cpu() -> None:
    """Set up the process for training; call it before the first tensor is computed.

    Numbers below the normal range count as zero. Gradients of a head whose loss has vanished, as
    that of terminations in an environment without any, end up there, and a CPU takes ten times as
    long for an update of them.

    The C library keeps freed memory for the next update. By default glibc maps every large tensor
    anew, and the kernel clears its pages each time, a quarter of the time of an update.
    """
    torch.set_flush_denormal(True)
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
