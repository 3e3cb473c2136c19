"""A world-model toolkit for Gymnasium environments.

Importing this package registers the environments and loads neither torch nor numba nor pygame:
public names are resolved on first use.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from gymnasium.envs.registration import register

__version__ = "0.1.0"

_root = Path(__file__).parent.parent
if (_root / "envs" / "physics.py").is_file() and not (Path(__file__).parent / "envs").exists():
    __path__.append(str(_root))  # a source checkout, where worldmodel.envs lies beside this package

_PUBLIC = {
    "ReplayBuffer": "worldmodel.data",
    "WorldModel": "worldmodel.models",
    "Config": "worldmodel.config",
    "LatentEnv": "worldmodel.imagination",
    "LatentObservation": "worldmodel.imagination",
    "LatentVectorEnv": "worldmodel.imagination",
    "PlanningPolicy": "worldmodel.imagination",
    "SB3VecEnv": "worldmodel.imagination",
    "VectorLatentObservation": "worldmodel.imagination",
    "load": "worldmodel.run",
    "make_env": "worldmodel.reality",
}

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'worldmodel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


register(
    id="DoublePendulum-v0",
    entry_point="worldmodel.envs.double_pendulum:DoublePendulumEnv",
    vector_entry_point="worldmodel.envs.vector:DoublePendulumVectorEnv",
    max_episode_steps=200,
)
register(
    id="DoublePendulumPixels-v0",
    entry_point="worldmodel.envs.double_pendulum:DoublePendulumPixelsEnv",
    vector_entry_point="worldmodel.envs.vector:DoublePendulumPixelsVectorEnv",
    max_episode_steps=200,
)
register(
    id="worldmodel/Latent-v0",
    entry_point="worldmodel.imagination.env:make_latent_env",
    vector_entry_point="worldmodel.imagination.env:make_latent_vector_env",
)
