"""Probes: how much of the true state can be read from a latent.

The six targets are sin and cos of both angles and both angular velocities. A linear probe tells
what lies open in the latent, an MLP probe what is in it at all. Both are fitted on latents of
training episodes and scored on latents of held-out episodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

TARGETS = ("sin_theta1", "sin_theta2", "cos_theta1", "cos_theta2", "omega1", "omega2")

_WIDTH = 256
_UPDATES = 1400
_MAX_EPOCHS = 100
_BATCH = 512
_LEARNING_RATE = 8e-3
_BETAS = (0.9, 0.95)
_WEIGHT_DECAY = 1e-2


def targets(states: np.ndarray) -> np.ndarray:
    """What the probes predict.

    Args:
        states: float (..., 4), [θ1, θ2, ω1, ω2] in rad and rad/s.

    Returns:
        float64 (..., 6), in the order of `TARGETS`; the last two in rad/s.
    """
    states = np.asarray(states, dtype=np.float64)
    theta, omega = states[..., :2], states[..., 2:]
    return np.concatenate([np.sin(theta), np.cos(theta), omega], axis=-1)


def angles_from_targets(values: np.ndarray) -> np.ndarray:
    """Angles from the first four targets by atan2(sin, cos).

    Args:
        values: float (..., 6), in the order of `TARGETS`.

    Returns:
        float (..., 2), [θ1, θ2] in rad, in (-π, π].
    """
    return np.arctan2(values[..., 0:2], values[..., 2:4])


def states_from_targets(values: np.ndarray) -> np.ndarray:
    """States from the six targets.

    Args:
        values: float (..., 6), in the order of `TARGETS`.

    Returns:
        float (..., 4), [θ1, θ2, ω1, ω2] in rad and rad/s.
    """
    return np.concatenate([angles_from_targets(values), values[..., 4:6]], axis=-1)


def wrap(angle: np.ndarray) -> np.ndarray:
    """The same angle in [-π, π), in rad, of any shape."""
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


def fit_linear_probe(latents: np.ndarray, states: np.ndarray) -> Pipeline:
    """Ridge regression (alpha 1) on standardised latents.

    Args:
        latents: float (N, D).
        states: float (N, 4), in rad and rad/s.

    Returns:
        A fitted scikit-learn pipeline; `predict` takes (M, D) and gives (M, 6).
    """
    return make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(latents, targets(states))


@dataclass(frozen=True)
class MLPProbe:
    """A fitted MLP probe, with the scales of its inputs and outputs. Lives on the CPU."""

    net: nn.Module
    inputs: StandardScaler
    outputs: StandardScaler

    @torch.no_grad()
    def predict(self, latents: np.ndarray) -> np.ndarray:
        """Read the targets: float (..., D) to float64 (..., 6), in the order of `TARGETS`."""
        flat = latents.reshape(-1, latents.shape[-1])
        z = torch.as_tensor(self.inputs.transform(flat), dtype=torch.float32)
        values = self.outputs.inverse_transform(self.net(z).double().numpy())
        return values.reshape(*latents.shape[:-1], len(TARGETS))

    def angles(self, latents: np.ndarray) -> np.ndarray:
        """Read the angles: float (..., D) to float64 (..., 2), in rad, in (-π, π]."""
        return angles_from_targets(self.predict(latents))


def fit_mlp_probe(latents: np.ndarray, states: np.ndarray, *, seed: int = 0) -> MLPProbe:
    """Fit an MLP with two hidden layers of 256 to the standardised targets.

    Minibatch AdamW with a cosine schedule to zero, 1,400 updates of 512 or 100 epochs if those are
    fewer. The last weights are kept: on 60,000 latents the held-out error still falls with more
    updates, so there is nothing to stop early for. The same arguments give the same probe, and the
    global random state is untouched.

    Args:
        latents: float (N, D).
        states: float (N, 4), in rad and rad/s.
        seed: Of the first weights and the order of the minibatches.
    """
    inputs, outputs = StandardScaler(), StandardScaler()
    x = torch.as_tensor(inputs.fit_transform(latents), dtype=torch.float32)
    y = torch.as_tensor(outputs.fit_transform(targets(states)), dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _mlp(x.shape[1], y.shape[1])
    _train(net, x, y, torch.Generator().manual_seed(seed))
    return MLPProbe(net.eval(), inputs, outputs)


def score_probe(predicted: np.ndarray, states: np.ndarray) -> dict[str, Any]:
    """Score the readings of a probe.

    Args:
        predicted: float (N, 6), in the order of `TARGETS`.
        states: float (N, 4), the true states, in rad and rad/s.

    Returns:
        `r2` (target -> R²), `worst_r2` (the least of the six), `rmse` (target -> root mean squared
        error, in rad/s for the velocities) and `angle_rmse_rad` (of atan2(sin, cos), both angles).
    """
    true = targets(states)
    r2 = r2_score(true, predicted, multioutput="raw_values")
    rmse = np.sqrt(np.mean((predicted - true) ** 2, axis=0))
    angle_error = wrap(angles_from_targets(predicted) - states[:, :2])
    return {
        "r2": _named(r2),
        "worst_r2": float(np.min(r2)),
        "rmse": _named(rmse),
        "angle_rmse_rad": float(np.sqrt(np.mean(angle_error**2))),
    }


def _named(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(TARGETS, values, strict=True)}


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, _WIDTH),
        nn.GELU(),
        nn.Linear(_WIDTH, _WIDTH),
        nn.GELU(),
        nn.Linear(_WIDTH, outputs),
    )


def _train(net: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> None:
    updates = min(_UPDATES, _MAX_EPOCHS * math.ceil(len(x) / _BATCH))
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=_LEARNING_RATE, betas=_BETAS, weight_decay=_WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for batch in islice(_minibatches(len(x), generator), updates):
        loss = nn.functional.mse_loss(net(x[batch]), y[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


def _minibatches(count: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Endless shuffled passes over 0 to count - 1, in minibatches."""
    while True:
        yield from torch.randperm(count, generator=generator).split(_BATCH)
