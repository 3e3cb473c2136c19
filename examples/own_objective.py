"""Your own objective: cosine similarity to the targets, with a VICReg variance term.

worldmodel train --objective examples.own_objective:my_objective
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.hyperparameters import ObjectiveConfig
from worldmodel.objectives import Forecast, covariance_penalty, variance_hinge


def my_objective(
    forecast: Forecast, settings: ObjectiveConfig, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss and its terms for logging; predictions and targets are (K, B, D)."""
    similarity = F.cosine_similarity(forecast.predictions, forecast.targets, dim=-1)
    prediction = 1 - similarity.mean()
    variance = variance_hinge(forecast.predictions)
    covariance = covariance_penalty(forecast.predictions)
    loss = prediction + variance + settings.covariance_weight * covariance
    return loss, {"prediction": prediction.detach(), "variance": variance.detach()}
