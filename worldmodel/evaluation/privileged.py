"""The privileged reference: the same predictor, trained on the true state instead of pixels.

What a forecast from pixels could reach if its encoder were perfect and its latent small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from worldmodel.data import ReplayBuffer
from worldmodel.data.sampling import uniform_starts
from worldmodel.evaluation.forecast import angle_errors
from worldmodel.evaluation.targets import TARGETS, angles_from_targets, targets
from worldmodel.models.predictor import ResidualPredictor
from worldmodel.training.muon import clipped_step, make_optimizers
from worldmodel.training.schedule import learning_rate

HORIZON = 8
"""Steps unrolled in training, or as many as the longest episode has."""

_HIDDEN = 512
_BATCH = 128
_OPTIMIZER = "muon"
_LEARNING_RATE = 5e-3
_FINAL = 0.02
_WARMUP = 100
_WEIGHT_DECAY = 1e-2
_MAX_GRAD_NORM = 5.0

ActionVector = Callable[[np.ndarray], torch.Tensor]


class PrivilegedModel:
    """A `ResidualPredictor` on (sin θ, cos θ, ω / scale).

    Args:
        action_vector: turns recorded actions (..., A), or (...,) if discrete, into float32 vectors
            (..., A'); `WorldModel.action_vector`.
        action_dim: A'.
        omega_scale: in rad/s, what the velocities are divided by.
    """

    def __init__(self, action_vector: ActionVector, action_dim: int, omega_scale: float) -> None:
        self.action_vector = action_vector
        self.scale = torch.tensor([1.0, 1.0, 1.0, 1.0, omega_scale, omega_scale])
        self.predictor = ResidualPredictor(len(TARGETS), action_dim, _HIDDEN)

    def features(self, states: np.ndarray) -> torch.Tensor:
        """States float64 (..., 4) to float32 (..., 6)."""
        return torch.as_tensor(targets(states), dtype=torch.float32) / self.scale

    def unroll(self, states: np.ndarray, actions: np.ndarray) -> torch.Tensor:
        """Open loop from states (B, 4) by actions (B, T, ...): features (T, B, 6)."""
        vectors = self.action_vector(actions).cpu().transpose(0, 1)
        return self.predictor.unroll(self.features(states), vectors)

    @torch.no_grad()
    def errors(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Angle errors of forecasts from the true state.

        Args:
            states: float64 (B, K+1, 4), in rad and rad/s.
            actions: (B, K, A), or (B, K) if discrete, as recorded.

        Returns:
            float64 (K+1, B, 2), in rad, zero at k = 0; π where a forecast has diverged to NaN.
        """
        true = states[..., :2].swapaxes(0, 1)
        forecast = self.unroll(states[:, 0], actions).numpy().astype(np.float64)
        angles = np.concatenate([true[:1], angles_from_targets(forecast)])
        return angle_errors(angles, true)


def train_privileged(
    buffer: ReplayBuffer,
    *,
    action_vector: ActionVector,
    updates: int,
    seed: int = 0,
    horizon: int = HORIZON,
) -> PrivilegedModel:
    """Train on the states of the training episodes.

    Mean squared error of the features at every one of the unrolled steps, with the
    optimiser, schedule and batch of the default run. The global random state is untouched.

    Args:
        buffer: Training episodes, with states.
        action_vector: See `PrivilegedModel`.
        updates: Of the weights, at least 1.
        seed: Of the first weights and the windows.
        horizon: Steps unrolled, at most.
    """
    length = min(horizon + 1, int(buffer.lengths.max()))
    rng = np.random.default_rng(seed)
    model = _untrained(buffer, action_vector, seed, length)
    parameters = list(model.predictor.parameters())
    optimizers = make_optimizers(parameters, _OPTIMIZER, _WEIGHT_DECAY)
    for step in range(updates):
        states, actions = sample_windows(buffer, rng, length)
        predicted = model.unroll(states[:, 0], actions)  # (length - 1, B, 6)
        true = model.features(states[:, 1:]).transpose(0, 1)
        loss = nn.functional.mse_loss(predicted, true)
        model.predictor.zero_grad(set_to_none=True)
        loss.backward()
        rate = learning_rate(step, updates, _LEARNING_RATE, _WARMUP, _FINAL)
        clipped_step(optimizers, parameters, rate, _MAX_GRAD_NORM)
    return model


def _untrained(
    buffer: ReplayBuffer, action_vector: ActionVector, seed: int, length: int
) -> PrivilegedModel:
    states, actions = sample_windows(buffer, np.random.default_rng(seed), length)
    omega_scale = float(np.std(states[..., 2:]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PrivilegedModel(action_vector, action_vector(actions).shape[-1], omega_scale)


def sample_windows(
    buffer: ReplayBuffer, rng: np.random.Generator, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows: states float64 (B, L, 4), and actions (B, L-1, ...) between."""
    episodes, starts = uniform_starts(buffer.lengths, length, _BATCH, rng)
    states = buffer.states(episodes, starts, length)
    return states, buffer.actions(episodes, starts, length)
