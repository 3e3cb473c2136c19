"""What every benchmark prints first: the machine, the versions and the command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("worldmodel", "gymnasium", "numpy", "numba", "pillow", "torch")


def describe_machine() -> str:
    """Describe processor, load, versions and command, one per line."""
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()}{load}\n"
        f"python {platform.python_version()}, {versions}\n"
        f"command: python {shlex.join(sys.argv)}, OMP_NUM_THREADS {threads}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
