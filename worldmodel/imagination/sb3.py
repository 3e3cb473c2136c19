"""Gymnasium vector environments, dreams among them, for Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn


class SB3VecEnv(VecEnv):
    """A batched Gymnasium environment as Stable-Baselines3 takes it.

    All N step in one call, without a process or a copy of the environment for each. Environments
    that end are reset at once; the observation that they ended with is in
    ``infos[i]["terminal_observation"]``, and ``infos[i]["TimeLimit.truncated"]`` says whether the
    value after it counts.

    Args:
        envs: With autoreset disabled, so that the last observation is not lost.

    Raises:
        ValueError: If it resets by itself.
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
        """Reset all environments, with the seeds and options that were set before."""
        seeds: Any = self._seeds if any(seed is not None for seed in self._seeds) else None
        options = next((option for option in self._options if option), None)
        observations, info = self.envs.reset(seed=seeds, options=options)
        self.reset_infos = _split(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Keep actions for `step_wait`."""
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
            told = _split(info, self.num_envs)
            self.reset_infos = [
                new if end else old for new, old, end in zip(told, self.reset_infos, ended)
            ]
        return observations, rewards.astype(np.float32), ended, infos

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One frame of each environment."""
        images: Any = self.envs.render()
        return list(images)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The same attribute of the batch for each index."""
        value = getattr(self.envs, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the batch, whatever the indices."""
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch once; its result for each index."""
        result = getattr(self.envs, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """Whether the batch is wrapped: none of its environments is by itself."""
        return [False for _ in self._get_indices(indices)]


def _split(info: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """A vector environment's info as one for each: entries that `_key` masks out are left out."""
    infos: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, values in info.items():
        if key.startswith("_") or isinstance(values, dict):
            continue
        mask = info.get(f"_{key}", np.ones(count, np.bool_))
        for i in np.flatnonzero(mask):
            infos[i][key] = values[i]
    return infos
