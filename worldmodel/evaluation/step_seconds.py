"""How long a step of an environment takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym

_DEFAULT_FPS = 30


def step_seconds(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> float:
    """Simulated seconds a step.

    The argument `dt` if the environment is given one, else the inverse of its frame rate
    (`metadata["render_fps"]`), which counts as 30 where it is not declared, as in Gymnasium's own
    recorder.

    Args:
        env_id: A registered environment.
        env_kwargs: Passed to the environment.
    """
    kwargs = dict(env_kwargs or {})
    if "dt" in kwargs:
        return float(kwargs["dt"])
    env = gym.make(env_id, **kwargs)
    try:
        return 1.0 / env.metadata.get("render_fps", _DEFAULT_FPS)
    finally:
        env.close()
