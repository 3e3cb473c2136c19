"""What is installed and on which machine, for bug reports: `worldmodel info` without a path."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import worldmodel
from worldmodel.data.workers import usable_cores
from worldmodel.extras import EXTRAS, install_command, is_installed

LIBRARIES = (
    "torch",
    "gymnasium",
    "numpy",
    "stable_baselines3",
    "numba",
    "pygame",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "matplotlib",
    "imageio",
    "imageio-ffmpeg",
    "tensorboard",
    "pydantic",
    "typer",
)
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "MUJOCO_GL",
    "SDL_VIDEODRIVER",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "HF_HUB_OFFLINE",
)
"""Environment variables that change what commands do, and hold nothing private."""

_NEWEST = 5


def describe_installation(results: str | Path = "results") -> dict[str, Any]:
    """Describe versions, machine, optional libraries and runs, as JSON values.

    Args:
        results: directory whose runs are counted.
    """
    memory = psutil.virtual_memory().total
    return {
        "worldmodel": worldmodel.__version__,
        "location": str(Path(worldmodel.__file__).parent),
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": f"{platform.machine()}, {usable_cores()} cores, {memory / 2**30:.1f} GB",
        **_torch(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "libraries": {name: _version(name) for name in LIBRARIES},
        "extras": {name: _extra(name) for name in EXTRAS},
        "runs": _runs(Path(results)),
    }


def _torch() -> dict[str, Any]:
    """Devices and threads of torch; a torch that cannot be imported is what a report is about."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"devices": f"torch cannot be imported ({type(error).__name__}: {error})"}
    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    for number in range(torch.cuda.device_count()):
        devices[f"cuda:{number}"] = torch.cuda.get_device_name(number)
    if torch.backends.mps.is_available():
        devices["mps"] = "Metal"
    return {"devices": devices}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _extra(name: str) -> dict[str, Any]:
    """Versions of an extra's libraries, None where one is missing, and then how to install it."""
    found = {module: _version(module) if is_installed(module) else None for module in EXTRAS[name]}
    missing = None in found.values()
    return {**found, **({"install": install_command(name)} if missing else {})}


def _runs(results: Path) -> dict[str, Any]:
    """Count the runs of a directory and name the newest ones."""
    configs = sorted(results.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    runs = [path.parent for path in reversed(configs)]
    return {
        "directory": str(results),
        "finished": sum((run / "metrics.json").is_file() for run in runs),
        "unfinished": sum(not (run / "metrics.json").is_file() for run in runs),
        "newest": [run.name for run in runs[:_NEWEST]],
    }
