"""Several predictors of one latent, whose disagreement tells where none of them knows.

Deep ensembles (arXiv:1612.01474): the same network from different first weights on the same data,
which agree where data is dense. MOPO (arXiv:2005.13239) lowers rewards by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.data import ReplayBuffer
from worldmodel.files import replacing
from worldmodel.models import WorldModel
from worldmodel.models.predictor import ResidualPredictor
from worldmodel.progress import Advance
from worldmodel.run import RunError
from worldmodel.training.dynamics import PredictorTrainer
from worldmodel.training.latents import encode_episodes

UPDATES = 600
"""Of each predictor."""

EPISODES = 2_000
"""Training episodes that are looked at, at most."""

_LEARNING_RATE = 5e-3
_HORIZON = 4
_MEASURED = 4096


class Ensemble:
    """Predictors of the same latent.

    Args:
        predictors: At least two.
        scale: The median disagreement on training data.
    """

    def __init__(self, predictors: list[ResidualPredictor], scale: float) -> None:
        if len(predictors) < 2:
            raise ValueError(f"an ensemble has {len(predictors)} predictors; expected 2 or more")
        self.predictors, self.scale = predictors, scale

    @torch.no_grad()
    def disagreement(self, z: Tensor, action: Tensor) -> Tensor:
        """How far the predictors are apart, in units of the median on training data.

        The norm of the standard deviation over the predictors of the next latent.

        Args:
            z: float32 (B, D).
            action: float32 (B, A), action vectors.

        Returns:
            float32 (B,).
        """
        following = torch.stack([predictor(z, action) for predictor in self.predictors])
        return following.std(0).norm(dim=-1) / self.scale


def train_ensemble(
    wm: WorldModel, buffer: ReplayBuffer, size: int, seed: int, progress: Advance
) -> Ensemble:
    """Train predictors on the latents of training episodes.

    Args:
        wm: Encodes.
        buffer: Training episodes.
        size: Predictors, at least 2.
        seed: Of everything that is drawn.
        progress: Called after each.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(buffer.num_episodes)[:EPISODES])
    latents = encode_episodes(wm, buffer, chosen)
    horizon = min(_HORIZON, int(latents.remaining.max()))
    predictors = []
    for i in range(size):
        predictor = _untrained(wm, seed + i)
        PredictorTrainer(
            predictor,
            [latents],
            updates=UPDATES,
            learning_rate_peak=_LEARNING_RATE,
            horizon=horizon,
            seed=seed + i,
        ).finish()
        predictors.append(predictor.requires_grad_(False).to(wm.device))
        progress(i + 1)
    ensemble = Ensemble(predictors, 1.0)
    rows = torch.as_tensor(rng.permutation(latents.starts(1).numpy())[:_MEASURED])
    there = ensemble.disagreement(
        latents.z[rows].to(wm.device), latents.actions[rows].to(wm.device)
    )
    return Ensemble(predictors, float(there.median()))


def save_ensemble(path: Path, ensemble: Ensemble) -> None:
    """Write an ensemble."""
    content = {
        "scale": ensemble.scale,
        "predictors": [predictor.state_dict() for predictor in ensemble.predictors],
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_ensemble(path: Path, wm: WorldModel) -> Ensemble:
    """Read what `save_ensemble` wrote, onto the model's device.

    Raises:
        RunError: The file is damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location=wm.device, weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged files
        raise RunError(f"{path} is damaged ({error}); delete it to train it anew") from error
    predictors = []
    for state in content["predictors"]:
        predictor = _new(wm)
        predictor.load_state_dict(state)
        predictors.append(predictor.to(wm.device).requires_grad_(False))
    return Ensemble(predictors, content["scale"])


def _untrained(wm: WorldModel, seed: int) -> ResidualPredictor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _new(wm)


def _new(wm: WorldModel) -> ResidualPredictor:
    return ResidualPredictor(wm.spec.latent_dim, wm.spec.actions.dim, wm.spec.hidden)
