"""The real environment seen through the frozen encoder."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from worldmodel.imagination.domain import Domain
from worldmodel.models import WorldModel


class LatentObservation(
    gym.ObservationWrapper[np.ndarray, Any, np.ndarray], gym.utils.RecordConstructorArgs
):
    """Observations become latents, float32 (D,), clipped to the bounds of the training latents.

    Args:
        env: An environment with the observations that the model was trained on, frames stacked.
        wm: The world model.
        domain: For the bounds, from `fit_domain` or `load_dream`.

    Raises:
        ValueError: If the environment's observations have another shape.
    """

    def __init__(self, env: gym.Env[np.ndarray, Any], wm: WorldModel, domain: Domain) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, wm=wm, domain=domain)
        gym.ObservationWrapper.__init__(self, env)
        _require_shape(wm, env.observation_space)
        self.wm = wm
        self.observation_space = _space(domain)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Encode one observation."""
        return _encode(self.wm, observation[None], self.observation_space)[0]


class VectorLatentObservation(gym.vector.VectorObservationWrapper):
    """`LatentObservation` of a vector environment: all observations are encoded in one call.

    As every `VectorObservationWrapper` it takes environments that reset in the next step or not at
    all by themselves.

    Args:
        env: See `LatentObservation`.
        wm: The world model.
        domain: For the bounds.

    Raises:
        ValueError: If the environment's observations have another shape.
    """

    def __init__(self, env: gym.vector.VectorEnv, wm: WorldModel, domain: Domain) -> None:
        super().__init__(env)
        _require_shape(wm, env.single_observation_space)
        self.wm = wm
        self.single_observation_space = _space(domain)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def observations(self, observations: np.ndarray) -> np.ndarray:
        """Encode (N, ...) to float32 (N, D)."""
        return _encode(self.wm, observations, self.single_observation_space)


def _space(domain: Domain) -> spaces.Box:
    return spaces.Box(domain.low.cpu().numpy(), domain.high.cpu().numpy(), dtype=np.float32)


def _encode(wm: WorldModel, observations: np.ndarray, space: Any) -> np.ndarray:
    z = wm.encode(torch.as_tensor(observations)).cpu().numpy()
    return np.clip(z, space.low, space.high)


def _require_shape(wm: WorldModel, space: spaces.Space) -> None:
    *sides, last = wm.spec.frame_shape
    expected = (*sides, wm.frame_stack * last)
    if space.shape != expected:
        raise ValueError(
            f"the environment shows observations of shape {space.shape}, and the model was trained "
            f"on {expected}; make the environment with the same image_size and frame_stack"
        )
