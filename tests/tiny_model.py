"""A tiny environment and a world model of it, whose forecast errors are known exactly.

Two clock hands turn freely. A state is [θ1, θ2, ω1, ω2]; an action is added to ω, then θ advances
by ω dt, so ω is exactly (θ(t) - θ(t-1)) / dt. A frame codes sin and cos of both angles in 16 bits.
The latent is a fixed linear mixture of (sin, cos, ω / 5). The predictor has the true dynamics,
except for a factor on ω that makes its forecasts run ahead by a known angle.
"""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from worldmodel.data import FrameStack, ReplayBuffer

DT = 0.05
LATENT = 8
HEIGHT, WIDTH = 4, 6

_SCALE = np.array([1.0, 1.0, 1.0, 1.0, 5.0, 5.0])
_MIX = np.random.default_rng(7).normal(size=(6, LATENT))
_UNMIX = np.linalg.pinv(_MIX)


def draw(angles: np.ndarray, channels: int = 1) -> np.ndarray:
    """Angles (..., 2) to frames uint8 (..., 4, 6, C): a pair of bytes for each sin and cos."""
    values = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)  # (..., 4)
    words = np.round((values + 1.0) / 2.0 * 65535.0).astype(np.uint16)
    frames = np.full((*angles.shape[:-1], HEIGHT, WIDTH, channels), 17, np.uint8)
    frames[..., :4, 0, 0] = words >> 8
    frames[..., :4, 1, 0] = words & 255
    return frames


def read(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 (..., 4, 6, C) to angles (..., 2): the inverse of `draw`."""
    words = frames[..., :4, 0, 0].astype(np.float64) * 256 + frames[..., :4, 1, 0]
    values = words / 65535.0 * 2.0 - 1.0
    return np.arctan2(values[..., :2], values[..., 2:])


def simulate(
    episodes: int, frames: int, seed: int, *, push: float = 0.0, speed: float = 4.0
) -> tuple[np.ndarray, np.ndarray]:
    """States (E, L, 4) and actions (E, L-1, 2); `push` bounds the actions, `speed` the first ω."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-push, push, (episodes, frames - 1, 2))
    theta = rng.uniform(-np.pi, np.pi, (episodes, 2))
    omega = rng.uniform(-speed, speed, (episodes, 2))
    states = [np.concatenate([theta, omega], axis=-1)]
    for t in range(frames - 1):
        omega = omega + actions[:, t]
        theta = theta + omega * DT
        states.append(np.concatenate([theta, omega], axis=-1))
    return np.stack(states, axis=1), actions.astype(np.float32)


def write_buffer(
    path: Path,
    states: np.ndarray,
    actions: np.ndarray,
    first_seed: int,
    *,
    with_states: bool = True,
    channels: int = 1,
) -> ReplayBuffer:
    """Store simulated episodes and open the buffer for reading."""
    with ReplayBuffer.create(
        path,
        frame_shape=(HEIGHT, WIDTH, channels),
        action_space=gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
        state_dim=states.shape[-1] if with_states else 0,
        metadata={},
    ) as buffer:
        for i, (state, action) in enumerate(zip(states, actions)):
            buffer.add_episode(
                draw(state[:, :2], channels),
                action,
                np.zeros(len(action)),
                False,
                states=state if with_states else None,
                seed=first_seed + i,
            )
    return ReplayBuffer.open(path)


class TinyModel:
    """The interface of a world model, with nothing trained.

    Args:
        rate: factor on ω in the predictor; the forecast at step k is off by (rate - 1) ω k dt.
        channels: of the frames.
        decodes: whether there is a decoder.
    """

    frames = FrameStack(2)
    device = torch.device("cpu")

    def __init__(self, rate: float = 1.0, channels: int = 1, decodes: bool = True) -> None:
        self.rate = rate
        self.channels = channels
        self.decoder = self.decode if decodes else None

    def untrained(self, seed: int) -> TinyModel:
        """A model whose encoder only sees the brightness of the frames."""
        return BlindModel(self.rate, self.channels)

    def encode(self, obs) -> torch.Tensor:
        """uint8 (B, 4, 6, 2C) to float32 (B, 8)."""
        obs = np.asarray(obs)
        theta = read(obs[..., self.channels :])
        omega = _wrap(theta - read(obs[..., : self.channels])) / DT
        return self._latent(theta, omega)

    def predict(self, z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(B, 8), (B, 2) to (B, 8)."""
        theta, omega = self._state(z)
        omega = omega + np.asarray(action, np.float64)
        return self._latent(theta + self.rate * omega * DT, omega)

    def rollout(self, z: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """(B, 8), (T, B, 2) to (T, B, 8)."""
        steps = []
        for action in actions:
            z = self.predict(z, action)
            steps.append(z)
        return torch.stack(steps)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """(B, 8) to uint8 (B, 4, 6, 2C)."""
        theta, omega = self._state(z)
        stack = [draw(theta - omega * DT, self.channels), draw(theta, self.channels)]
        return torch.as_tensor(np.concatenate(stack, axis=-1))

    def outcome(self, z, action, z_next) -> tuple[torch.Tensor, torch.Tensor]:
        """No reward, and no termination."""
        return torch.zeros(len(z)), torch.zeros(len(z))

    def predictor(self, z, vectors) -> torch.Tensor:
        """Like `predict`: the vector of an action is the action."""
        return self.predict(z, vectors)

    def reward_head(self, z, vectors, z_next) -> torch.Tensor:
        """Rewards of zero."""
        return torch.zeros(len(z))

    def termination_head(self, z, vectors, z_next) -> torch.Tensor:
        """Logits of no termination."""
        return torch.full((len(z),), -50.0)

    def action_vector(self, actions) -> torch.Tensor:
        """Actions unchanged, float32."""
        return torch.as_tensor(actions, dtype=torch.float32)

    def _latent(self, theta: np.ndarray, omega: np.ndarray) -> torch.Tensor:
        features = np.concatenate([np.sin(theta), np.cos(theta), omega], axis=-1) / _SCALE
        return torch.as_tensor(features @ _MIX, dtype=torch.float32)

    def _state(self, z: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        features = z.numpy().astype(np.float64) @ _UNMIX * _SCALE
        return np.arctan2(features[:, :2], features[:, 2:4]), features[:, 4:]


class BlindModel(TinyModel):
    """A tiny model whose latent is the mean brightness of an observation."""

    def encode(self, obs) -> torch.Tensor:
        brightness = np.asarray(obs, np.float64).reshape(len(obs), -1).mean(axis=1)
        return torch.as_tensor(np.repeat(brightness[:, None], LATENT, 1), dtype=torch.float32)


def _wrap(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2.0 * np.pi) - np.pi
