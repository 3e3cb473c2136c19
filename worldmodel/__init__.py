"""A world-model toolkit for Gymnasium environments.

Importing this package registers the environments and loads neither torch nor numba nor pygame:
public names are resolved on first use.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from worldmodel.agent_config import AgentConfig as AgentConfig
    from worldmodel.callbacks import Callback as Callback
    from worldmodel.callbacks import TrainingState as TrainingState
    from worldmodel.config import Config as Config
    from worldmodel.config import build_config as build_config
    from worldmodel.data import Policy as Policy
    from worldmodel.data import ReplayBuffer as ReplayBuffer
    from worldmodel.data.collect import collect as collect
    from worldmodel.errors import ConfigError as ConfigError
    from worldmodel.errors import InterruptedRunError as InterruptedRunError
    from worldmodel.errors import ReplayBufferError as ReplayBufferError
    from worldmodel.errors import RunError as RunError
    from worldmodel.evaluation import Metrics as Metrics
    from worldmodel.evaluation import evaluate_runs as evaluate_runs
    from worldmodel.imagination import LatentEnv as LatentEnv
    from worldmodel.imagination import LatentObservation as LatentObservation
    from worldmodel.imagination import LatentVectorEnv as LatentVectorEnv
    from worldmodel.imagination import SB3VecEnv as SB3VecEnv
    from worldmodel.imagination import VectorLatentObservation as VectorLatentObservation
    from worldmodel.models import WorldModel as WorldModel
    from worldmodel.planning import PlanningPolicy as PlanningPolicy
    from worldmodel.plugins import EnvPlugin as EnvPlugin
    from worldmodel.plugins import register_plugin as register_plugin
    from worldmodel.publish import push as push
    from worldmodel.run import Run as Run
    from worldmodel.run import load as load
    from worldmodel.run import make_env as make_env
    from worldmodel.sweeps import SweepResult as SweepResult
    from worldmodel.sweeps import sweep as sweep
    from worldmodel.training import resume as resume
    from worldmodel.training import train as train

__version__ = "1.0.0"

_PUBLIC = {
    "AgentConfig": "worldmodel.agent_config",
    "Callback": "worldmodel.callbacks",
    "Config": "worldmodel.config",
    "ConfigError": "worldmodel.errors",
    "EnvPlugin": "worldmodel.plugins",
    "InterruptedRunError": "worldmodel.errors",
    "LatentEnv": "worldmodel.imagination",
    "LatentObservation": "worldmodel.imagination",
    "LatentVectorEnv": "worldmodel.imagination",
    "Metrics": "worldmodel.evaluation",
    "PlanningPolicy": "worldmodel.planning",
    "Policy": "worldmodel.data",
    "ReplayBuffer": "worldmodel.data",
    "ReplayBufferError": "worldmodel.errors",
    "Run": "worldmodel.run",
    "RunError": "worldmodel.errors",
    "SB3VecEnv": "worldmodel.imagination",
    "SweepResult": "worldmodel.sweeps",
    "TrainingState": "worldmodel.callbacks",
    "VectorLatentObservation": "worldmodel.imagination",
    "WorldModel": "worldmodel.models",
    "build_config": "worldmodel.config",
    "collect": "worldmodel.data",
    "evaluate_runs": "worldmodel.evaluation",
    "load": "worldmodel.run",
    "make_env": "worldmodel.run",
    "push": "worldmodel.publish",
    "register_plugin": "worldmodel.plugins",
    "resume": "worldmodel.training",
    "sweep": "worldmodel.sweeps",
    "train": "worldmodel.training",
}

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'worldmodel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


# `worldmodel/envs` is a link to `envs` in a clone. Git on Windows makes a file of it by default.
if (Path(__file__).parent / "envs").is_file():
    __path__.append(str(Path(__file__).parents[1]))

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
