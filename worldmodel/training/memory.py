"""Keeping the C allocator from returning large blocks to the system after every update."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def reuse_large_allocations() -> None:
    """Make glibc keep freed memory for the next update.

    By default it maps every large tensor anew, and the kernel clears its pages each time: a
    quarter of the time of an update on a CPU. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
