"""Latents as observations of the real environment, and `SB3VecEnv` for Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from worldmodel.imagination.domain import require_domain
from worldmodel.models import WorldModel


class LatentObservation(
    gym.ObservationWrapper[np.ndarray, Any, np.ndarray], gym.utils.RecordConstructorArgs
):
    """Encodes observations: the wrapped environment observes latents, float32 (D,).

    Latents are clipped to the bounds of `wm.domain`, as in `LatentEnv`.

    Args:
        env: an environment with the model's observations, see `Run.make_env`.
        wm: the world model, with a `domain`.

    Raises:
        ValueError: If the environment's observations have another shape, or the model has no
            domain.
    """

    def __init__(self, env: gym.Env[np.ndarray, Any], wm: WorldModel) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, wm=wm)
        gym.ObservationWrapper.__init__(self, env)
        _check_shape(wm, env.observation_space)
        self.wm = wm
        self.observation_space = self._box = require_domain(wm).space

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Encode one observation, (...) to float32 (D,)."""
        z: np.ndarray = _encode(self.wm, observation[None], self._box)[0]
        return z


class VectorLatentObservation(gym.vector.VectorObservationWrapper):
    """Encodes the observations of a vector environment in one call; see `LatentObservation`.

    Like every `VectorObservationWrapper`, it does not support same-step autoreset.

    Args:
        env: a vector environment with the model's observations, see `Run.make_vec_env`.
        wm: the world model, with a `domain`.

    Raises:
        ValueError: If the environment's observations have another shape, or the model has no
            domain.
    """

    def __init__(self, env: gym.vector.VectorEnv, wm: WorldModel) -> None:
        super().__init__(env)
        _check_shape(wm, env.single_observation_space)
        self.wm = wm
        self.single_observation_space = self._box = require_domain(wm).space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def observations(self, observations: np.ndarray) -> np.ndarray:
        """Encode (N, ...) to float32 (N, D)."""
        return _encode(self.wm, observations, self._box)


def _encode(wm: WorldModel, observations: np.ndarray, space: spaces.Box) -> np.ndarray:
    z: np.ndarray = np.clip(wm.encode(observations).cpu().numpy(), space.low, space.high)
    return z


def _check_shape(wm: WorldModel, space: spaces.Space[Any]) -> None:
    expected = wm.spec.observation_shape
    if space.shape != expected:
        raise ValueError(
            f"the environment has observations of shape {space.shape}, but the model was trained "
            f"on {expected}; make the environment with the same image_size and frame_stack"
        )


class SB3VecEnv(VecEnv):
    """Adapts a Gymnasium vector environment to Stable-Baselines3.

    All N environments step in one call, without a process or a copy of the environment for each.
    Environments whose episode ends are reset immediately; their last observation is in
    ``infos[i]["terminal_observation"]``, and ``infos[i]["TimeLimit.truncated"]`` says whether the
    value of that observation is bootstrapped.

    Args:
        envs: a vector environment with autoreset disabled, so that the last observation is kept.

    Raises:
        ValueError: If autoreset is not disabled.
    """

    def __init__(self, envs: gym.vector.VectorEnv) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.DISABLED:
            raise ValueError(
                f"autoreset_mode is {mode}; make the environment with "
                "autoreset_mode=AutoresetMode.DISABLED"
            )
        self.envs = envs
        self._actions: np.ndarray | None = None
        self.render_mode = envs.render_mode
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset all environments with the seeds and options set by `seed` and `set_options`."""
        seeds: Any = self._seeds if any(seed is not None for seed in self._seeds) else None
        options = next((option for option in self._options if option), None)
        observations: np.ndarray
        observations, info = self.envs.reset(seed=seeds, options=options)
        self.reset_infos = _split(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Store actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments, and reset those that ended."""
        assert self._actions is not None
        observations, rewards, terminated, truncated, info = self.envs.step(self._actions)
        infos = _split(info, self.num_envs)
        ended = terminated | truncated
        if ended.any():
            for i in np.flatnonzero(ended):
                infos[i]["terminal_observation"] = observations[i].copy()
                infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            observations, info = self.envs.reset(options={"reset_mask": ended})
            reset_infos = _split(info, self.num_envs)
            self.reset_infos = [
                new if end else old for new, old, end in zip(reset_infos, self.reset_infos, ended)
            ]
        return observations, rewards.astype(np.float32), ended, infos

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Render one frame of each environment."""
        images: Any = self.envs.render()
        return list(images)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the vector environment, once for each index."""
        value = getattr(self.envs, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment; `indices` has no effect."""
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment once; return its result for each index."""
        result = getattr(self.envs, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """Return False for each index: single environments are never wrapped."""
        return [False for _ in self._get_indices(indices)]


def _split(info: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Split the info of a vector environment into N, without entries that `_key` masks out."""
    infos: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, values in info.items():
        if key.startswith("_") or isinstance(values, dict):
            continue
        mask = info.get(f"_{key}", np.ones(count, np.bool_))
        for i in np.flatnonzero(mask):
            infos[i][key] = values[i]
    return infos
