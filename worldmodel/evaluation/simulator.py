"""The physics behind an environment's id, for figures that only the true system can give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from worldmodel.config import DEFAULT_ENVS

if TYPE_CHECKING:
    from worldmodel.envs.task import Task


def pendulum_task(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> Task | None:
    """The double pendulum's physical settings, its dynamics and its energy.

    Args:
        env_id: A registered environment.
        env_kwargs: Passed to the environment.

    Returns:
        None if the environment is not a double pendulum of this package.
    """
    if env_id.rpartition(":")[2] not in DEFAULT_ENVS.values():
        return None
    env = gym.make(env_id, **dict(env_kwargs or {}))
    try:
        return env.unwrapped.task  # type: ignore[attr-defined]
    finally:
        env.close()
