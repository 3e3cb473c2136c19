"""Probes: small models that read the targets of a readout from latents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation_config import Probe
from worldmodel.latents import encode_at
from worldmodel.models import WorldModel
from worldmodel.plugins import Readout

_BETAS = (0.9, 0.95)


@dataclass(frozen=True)
class Probes:
    """Both probes, fitted on the same latents of training episodes.

    Attributes:
        readout: readout whose targets they predict.
        linear: linear probe, which predicts targets (N, T) from latents (N, D).
        mlp: MLP probe, which predicts the same.
        observations: number of latents they were fitted on.
    """

    readout: Readout
    linear: Pipeline
    mlp: MLPProbe
    observations: int


def fit_probes(
    wm: WorldModel,
    train_buffer: ReplayBuffer,
    readout: Readout,
    settings: Probe | None = None,
    *,
    seed: int = 0,
) -> Probes:
    """Fit the probes on observations of the training episodes.

    Args:
        wm: the world model.
        train_buffer: training episodes, with states.
        readout: readout whose targets are predicted.
        settings: hyperparameters; defaults if not given.
        seed: random seed of the choice of observations and of the MLP probe.
    """
    settings = settings or Probe()
    episodes, times = wm.frames.sample_times(train_buffer, settings.observations, seed)
    latents = encode_at(wm, train_buffer, episodes, times)
    targets = readout.targets(states_at(train_buffer, episodes, times))
    mlp = fit_mlp_probe(latents, targets, settings, seed=seed)
    return Probes(readout, fit_linear_probe(latents, targets), mlp, len(latents))


def states_at(buffer: ReplayBuffer, episodes: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Read the true states at given times of given episodes, float64 (N, d)."""
    return buffer.states(episodes, times, 1)[:, 0]


def fit_linear_probe(inputs: np.ndarray, targets: np.ndarray) -> Pipeline:
    """Fit a ridge regression (alpha 1) on standardized inputs.

    Args:
        inputs: float (N, D), latents.
        targets: float (N, T).

    Returns:
        A fitted scikit-learn pipeline, whose `predict` maps (M, D) to (M, T).
    """
    return make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(inputs, targets)


@dataclass(frozen=True)
class MLPProbe:
    """A fitted MLP, on the CPU.

    Attributes:
        net: network from standardized latents to standardized targets.
        inputs: scaler of the latents.
        outputs: scaler of the targets.
    """

    net: nn.Sequential
    inputs: StandardScaler
    outputs: StandardScaler

    @torch.no_grad()
    def predict(self, latents: np.ndarray) -> np.ndarray:
        """Read targets float64 (..., T) from latents (..., D); NaN where a latent is not finite."""
        flat = latents.reshape(-1, latents.shape[-1])
        flat = np.where(np.isfinite(flat).all(1, keepdims=True), flat, np.nan)
        z = torch.as_tensor(self.inputs.transform(flat), dtype=torch.float32)
        targets: np.ndarray = self.outputs.inverse_transform(self.net(z).double().numpy())
        return targets.reshape(*latents.shape[:-1], -1)

    def state(self) -> dict[str, Any]:
        """Return everything that `from_state` needs, as tensors."""
        scales = {
            name: torch.as_tensor(np.stack([scaler.mean_, scaler.scale_]))
            for name, scaler in (("inputs", self.inputs), ("outputs", self.outputs))
        }
        return {"net": self.net.state_dict(), **scales}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MLPProbe:
        """Restore a probe from its `state`."""
        scalers = [StandardScaler(), StandardScaler()]
        for scaler, name in zip(scalers, ("inputs", "outputs"), strict=True):
            scaler.mean_, scaler.scale_ = state[name].numpy()
        width = len(state["net"]["0.bias"])
        net = _mlp(state["inputs"].shape[1], state["outputs"].shape[1], width)
        net.load_state_dict(state["net"])
        return cls(net.eval(), *scalers)


def fit_mlp_probe(
    inputs: np.ndarray, targets: np.ndarray, settings: Probe | None = None, *, seed: int = 0
) -> MLPProbe:
    """Fit an MLP with two hidden layers to the standardized targets.

    Uses minibatch AdamW with a cosine schedule to zero, for `updates`, or `max_epochs` if that is
    less. The last weights are kept: on 60,000 latents the held-out error still falls with more
    updates, so there is no early stopping. The same arguments give the same probe, and the global
    random state is not changed.

    Args:
        inputs: float (N, D), latents.
        targets: float (N, T).
        settings: hyperparameters; defaults if not given.
        seed: random seed of the initial weights and the order of the minibatches.
    """
    settings = settings or Probe()
    scale_in, scale_out = StandardScaler(), StandardScaler()
    x = torch.as_tensor(scale_in.fit_transform(inputs), dtype=torch.float32)
    y = torch.as_tensor(scale_out.fit_transform(targets), dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _mlp(x.shape[1], y.shape[1], settings.width)
    _train(net, x, y, settings, torch.Generator().manual_seed(seed))
    return MLPProbe(net.eval(), scale_in, scale_out)


def _mlp(inputs: int, outputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.Linear(width, outputs),
    )


def _train(
    net: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    settings: Probe,
    generator: torch.Generator,
) -> None:
    per_epoch = math.ceil(len(x) / settings.batch_size)
    updates = min(settings.updates, settings.max_epochs * per_epoch)
    optimizer = torch.optim.AdamW(
        net.parameters(),
        lr=settings.learning_rate,
        betas=_BETAS,
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for batch in islice(_minibatches(len(x), settings.batch_size, generator), updates):
        loss = nn.functional.mse_loss(net(x[batch]), y[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


def _minibatches(count: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield endless shuffled passes over 0 to count - 1, in minibatches."""
    while True:
        yield from torch.randperm(count, generator=generator).split(size)
