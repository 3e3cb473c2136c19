"""The real environment of a run, seen as its model sees it."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from worldmodel.config import Config
from worldmodel.data.environments import accepts, make_batch, make_single
from worldmodel.data.observe import FrameSource
from worldmodel.data.recipe import Recipe, resolve
from worldmodel.datasets import environment
from worldmodel.run import Run


class ModelObservation(gym.Wrapper[np.ndarray, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Observations become what the encoder takes: the newest S frames, oldest first.

    uint8 (H, W, S*C) for images, float32 (S*d,) for vectors. At reset the first frame is repeated.

    Args:
        env: An environment that does not stack frames itself.
        source: Takes the newest frame.
        frame_stack: S.
    """

    def __init__(self, env: gym.Env[Any, Any], source: FrameSource, frame_stack: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, source=source, frame_stack=frame_stack)
        super().__init__(env)
        self._source = source
        self._frames: deque[np.ndarray] = deque(maxlen=frame_stack)
        shape = (*source.shape[:-1], frame_stack * source.shape[-1])
        low, high = (-np.inf, np.inf) if source.kind == "vector" else (0, 255)
        self.observation_space = spaces.Box(low, high, shape, dtype=source.dtype.type)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([self._frame(observation)] * (self._frames.maxlen or 1))
        return self._stacked(), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(self._frame(observation))
        return self._stacked(), float(reward), terminated, truncated, info

    def _frame(self, observation: Any) -> np.ndarray:
        batch = np.asarray(observation)[None]
        return np.asarray(self._source(lambda: [self.env.render()], batch, np.zeros(1, int))[0])

    def _stacked(self) -> np.ndarray:
        return np.concatenate(self._frames, axis=-1)


def make_env(
    run: str | Path, render_mode: str | None = None, **env_kwargs: Any
) -> gym.Env[np.ndarray, Any]:
    """Make the environment that a run's model has learned, with observations for its encoder.

    Args:
        run: A run directory.
        render_mode: As in `gym.make`; where the model learned from renderings, always "rgb_array".
        env_kwargs: Laid over the arguments of the run, as ``start="uniform"``. Those that only its
            data was collected with are left out.

    Raises:
        RunError: This is no run directory.
        ValueError: The environment does not take the arguments.
    """
    config = Run(run).config()
    recipe = _recipe(config, env_kwargs)
    kwargs = dict(recipe.env_kwargs)
    if recipe.source.kind == "render":
        render_mode = "rgb_array"
    if render_mode is not None:
        kwargs["render_mode"] = render_mode
    env = make_single(recipe.spec, kwargs)
    return ModelObservation(env, recipe.source, config.frame_stack)


def make_envs(
    run: str | Path, num_envs: int, render_mode: str | None = None, **env_kwargs: Any
) -> gym.vector.VectorEnv:
    """`make_env`, N at once, reset only when told to.

    Environments with a batched form of their own that stacks frames are computed in one call.

    Raises:
        RunError: This is no run directory.
        ValueError: The environment does not take the arguments.
    """
    config = Run(run).config()
    recipe = _recipe(config, env_kwargs)
    if not recipe.native or not accepts(recipe.spec, "frame_stack"):
        makers = [lambda: make_env(run, render_mode, **env_kwargs)] * num_envs
        return gym.vector.SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    kwargs = {**recipe.env_kwargs, "frame_stack": config.frame_stack}
    if render_mode is not None:
        kwargs["render_mode"] = render_mode
    return make_batch(recipe.spec, kwargs, native=True, num_envs=num_envs)


def _recipe(config: Config, env_kwargs: dict[str, Any]) -> Recipe:
    world = environment(config) | {"env_kwargs": {**config.env.kwargs, **env_kwargs}}
    return resolve(**world, policy="random", steps=1)
