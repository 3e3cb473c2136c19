"""Objectives of other joint-embedding world models, with our data, budget, networks and planner.

The weights are those of the training configurations of stable-worldmodel 0.1.1 (``lewm.yaml`` and
``pldm.yaml``). Both methods have no target encoder: gradients flow through the targets, so
`objective.stop_gradient` is false. Both predict from four consecutive embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.hyperparameters import ObjectiveConfig
from worldmodel.objectives import Forecast, random_directions, sigreg, variance_hinge

_CONSECUTIVE = {"horizon": 3, "offsets": (0, 1, 2, 3), "stop_gradient": False}

LEWM_SIGREG, LEWM_DIRECTIONS, LEWM_LIMIT = 0.09, 1024, 3.0
PLDM_STD, PLDM_STD_TIME, PLDM_COVARIANCE, PLDM_ALIGNMENT = 18.0, 0.7, 12.0, 0.2


def lewm(
    forecast: Forecast, settings: ObjectiveConfig, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of LeWM (arXiv:2603.19312): MSE plus SIGReg on the embeddings."""
    z = forecast.targets
    prediction = F.mse_loss(forecast.predictions[1:], z[1:])
    directions = random_directions(z.shape[-1], LEWM_DIRECTIONS, generator, z.device)
    statistic = sigreg(z, directions, limit=LEWM_LIMIT)
    terms = {"prediction": prediction.detach(), "sigreg": statistic.detach()}
    return prediction + LEWM_SIGREG * statistic, terms


def pldm(
    forecast: Forecast, settings: ObjectiveConfig, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of PLDM (arXiv:2502.14819), without inverse dynamics.

    MSE, hinges on the standard deviation over the batch and over time, covariance, and alignment of
    consecutive embeddings. In the configuration of stable-worldmodel the weight of inverse dynamics
    is 0.
    """
    z = forecast.targets  # (T, B, D)
    centred = z - z.mean(1, keepdim=True)
    terms = {
        "prediction": F.mse_loss(forecast.predictions[1:], z[1:]),
        "std": variance_hinge(centred),
        "std_time": variance_hinge(centred.transpose(0, 1)),
        "covariance": _mean_covariance(centred),
        "alignment": F.mse_loss(z[:-1], z[1:]),
    }
    loss = (
        terms["prediction"]
        + PLDM_STD * terms["std"]
        + PLDM_STD_TIME * terms["std_time"]
        + PLDM_COVARIANCE * terms["covariance"]
        + PLDM_ALIGNMENT * terms["alignment"]
    )
    return loss, {name: term.detach() for name, term in terms.items()}


def _mean_covariance(centred: Tensor) -> Tensor:
    """Average the squared off-diagonal covariances over pairs of dimensions; (T, B, D) to 0-d."""
    _, batch, dim = centred.shape
    covariance = centred.mT @ centred / (batch - 1)
    off_diagonal = covariance - torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    return off_diagonal.square().sum((-2, -1)).mean() / (dim * dim - dim)


PEERS: dict[str, dict[str, Any]] = {
    "lewm": {"name": "benchmarks.public.peers:lewm", **_CONSECUTIVE},
    "pldm": {"name": "benchmarks.public.peers:pldm", **_CONSECUTIVE},
}
"""Section `objective` of the configuration, by the name of the method."""
