"""Watching phase 1: curves for TensorBoard, and whether the representation collapses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from worldmodel.config import Objective
from worldmodel.evaluation.collapse import collapse
from worldmodel.models import WorldModel
from worldmodel.training.batches import Batch
from worldmodel.training.jepa import forecast

COLLAPSED_RANK = 2.0
"""Effective rank below which a representation counts as collapsed."""
COLLAPSED_STD = 0.05
"""Mean standard deviation of the latents below which it does, too."""


@dataclass(frozen=True)
class Health:
    """State of the representation on validation windows.

    Attributes:
        std: mean standard deviation of the latent dimensions.
        effective_rank: of the latents' covariance, 0 to D.
        prediction_error: MSE of the forecasts against the targets, at all offsets but 0.
        persistence_error: the same for a forecast that repeats the context's latent.
    """

    std: float
    effective_rank: float
    prediction_error: float
    persistence_error: float

    @property
    def collapsed(self) -> bool:
        """Whether nearly all latents lie on a line, or in a point."""
        return self.effective_rank < COLLAPSED_RANK or self.std < COLLAPSED_STD

    def scalars(self) -> dict[str, float]:
        """For the curves."""
        return {
            "validation/std": self.std,
            "validation/effective_rank": self.effective_rank,
            "validation/prediction_error": self.prediction_error,
            "validation/persistence_error": self.persistence_error,
            "validation/relative_error": self.prediction_error / max(self.persistence_error, 1e-12),
        }


@torch.no_grad()
def check_health(model: WorldModel, batch: Batch, objective: Objective) -> Health:
    """Judge the representation on a batch of validation windows."""
    predictions, targets = forecast(model, batch, objective)
    statistics = collapse(predictions[0])
    return Health(
        std=float(statistics.std.mean()),
        effective_rank=statistics.effective_rank,
        prediction_error=float(F.mse_loss(predictions[1:], targets[1:])),
        persistence_error=float(F.mse_loss(predictions[:1].expand_as(targets[1:]), targets[1:])),
    )
