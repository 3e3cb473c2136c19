"""Objectives of phase 1: prediction loss and regularizers that prevent collapse.

An objective maps a `Forecast` to a loss. The built-in ones are one function,
`regularized_prediction`, with different weights, and `InverseDynamics`, which adds a network of its
own to it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.accelerator import to_device
from worldmodel.errors import ConfigError
from worldmodel.hyperparameters import ObjectiveConfig
from worldmodel.registry import OBJECTIVES


class Forecast(NamedTuple):
    """What phase 1 predicts for a batch of windows, at K offsets; the first offset is 0.

    Attributes:
        predictions: float32 (K, B, D), the context latent and the unrolled predictions. Gradients
            flow to the encoder and the predictor.
        targets: float32 (K, B, D), latents of the same observations from the EMA target encoder,
            without gradients unless `objective.stop_gradient` is false.
        actions: float32 (H, B, A), action vectors of all predicted steps.
    """

    predictions: Tensor
    targets: Tensor
    actions: Tensor


class Objective(Protocol):
    """A function from a forecast to a loss; chosen by `objective.name`.

    A class is made with ``(settings, latent_dim, action_dim)``. If it is an ``nn.Module``, its
    weights are trained in phase 1, saved in checkpoints, and dropped afterwards.
    """

    def __call__(
        self, forecast: Forecast, settings: ObjectiveConfig, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss.

        Args:
            forecast: predictions and targets.
            settings: section `objective` of the configuration.
            generator: CPU generator for all random numbers; its state is part of the checkpoint.

        Returns:
            The loss, a 0-d tensor, and its unweighted terms by name, detached, for logging. The
            term ``"prediction"`` is shown beside the progress bar.
        """


def make_objective(
    settings: ObjectiveConfig, latent_dim: int, action_dim: int, seed: int = 0
) -> Objective:
    """Make the objective that `settings` names.

    Args:
        settings: section `objective` of the configuration; an argument of a class.
        latent_dim: size D of a latent; an argument of a class.
        action_dim: size A of an action vector; an argument of a class.
        seed: random seed of its weights, if it has any.
    """
    chosen = OBJECTIVES.resolve(settings.name)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made: Objective = (
            chosen(settings, latent_dim, action_dim) if isinstance(chosen, type) else chosen
        )
    return made


def check_objective(settings: ObjectiveConfig, latent_dim: int, action_dim: int) -> None:
    """Run an objective once on random latents, so that mistakes show before data is collected.

    Raises:
        ConfigError: If there is no such objective, it fails, or it does not return a 0-d tensor
            and a dictionary.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (len(settings.offsets), 8, latent_dim)
    forecast = Forecast(
        torch.randn(shape, generator=generator).requires_grad_(),
        torch.randn(shape, generator=generator),
        torch.zeros(settings.horizon, 8, action_dim),
    )
    expected = "expected (loss, terms): a 0-d tensor with gradients and a dictionary of tensors"
    try:
        objective = make_objective(settings, latent_dim, action_dim)
        loss, terms = objective(forecast, settings, generator)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise ConfigError(f"the objective {settings.name!r} fails: {error}; {expected}") from error
    if not (isinstance(loss, Tensor) and loss.ndim == 0 and loss.requires_grad):
        raise ConfigError(f"the objective {settings.name!r} returns the loss {loss!r}; {expected}")
    if not isinstance(terms, dict):
        raise ConfigError(f"the objective {settings.name!r} returns terms {terms!r}; {expected}")


def regularized_prediction(
    forecast: Forecast, settings: ObjectiveConfig, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute MSE to the targets plus weighted regularizers on the predictions.

    A term of weight 0 is not computed.
    """
    predictions = forecast.predictions
    loss = F.mse_loss(predictions, forecast.targets)
    terms = {"prediction": loss.detach()}
    if settings.variance_weight:
        variance = variance_hinge(predictions)
        terms["variance"] = variance.detach()
        loss = loss + settings.variance_weight * variance
    if settings.covariance_weight:
        covariance = covariance_penalty(predictions)
        terms["covariance"] = covariance.detach()
        loss = loss + settings.covariance_weight * covariance
    if settings.sigreg_weight:
        directions = random_directions(
            predictions.shape[-1], settings.directions, generator, predictions.device
        )
        statistic = sigreg(predictions, directions)
        terms["sigreg"] = statistic.detach()
        loss = loss + settings.sigreg_weight * statistic
    return loss, terms


class InverseDynamics(nn.Module):
    """`regularized_prediction`, and a network that reads the action from two latents.

    The error of the network, mean squared over the entries of the action vector, is added with
    `objective.inverse_weight` (PLDM, arXiv:2502.14819, section 3). It sees the context's latent and
    the target one step later, never the prediction, which depends on the action itself.

    Args:
        settings: section `objective` of the configuration.
        latent_dim: size D of a latent.
        action_dim: size A of an action vector.
    """

    def __init__(self, settings: ObjectiveConfig, latent_dim: int, action_dim: int) -> None:
        super().__init__()
        if settings.offsets[1:2] != (1,):
            raise ValueError(f"offsets {settings.offsets} must begin with 0 and 1")
        self.net = nn.Sequential(
            nn.Linear(2 * latent_dim, 256), nn.SiLU(), nn.Linear(256, action_dim)
        )

    def forward(
        self, forecast: Forecast, settings: ObjectiveConfig, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss; see `Objective`."""
        loss, terms = regularized_prediction(forecast, settings, generator)
        pair = torch.cat([forecast.predictions[0], forecast.targets[1]], dim=-1)
        error = F.mse_loss(self.net(pair), forecast.actions[0])
        terms["inverse"] = error.detach()
        return loss + settings.inverse_weight * error, terms


def variance_hinge(z: Tensor, eps: float = 1e-4) -> Tensor:
    """Average ``relu(1 - std)`` over dimensions, VICReg eq. 1 (arXiv:2105.04906).

    Args:
        z: (..., B, D); the standard deviation is taken over B.
        eps: constant that is added to the variance.
    """
    return torch.relu(1 - (z.var(-2) + eps).sqrt()).mean()


def covariance_penalty(z: Tensor) -> Tensor:
    """Sum squared off-diagonal covariances over D, VICReg eq. 3 and 4 (arXiv:2105.04906).

    Args:
        z: (..., B, D); leading axes are averaged.
    """
    b, d = z.shape[-2:]
    centred = z - z.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / (b - 1)
    off_diagonal = covariance.square().sum((-2, -1)) - covariance.diagonal(
        dim1=-2, dim2=-1
    ).square().sum(-1)
    return (off_diagonal / d).mean()


def sigreg(z: Tensor, directions: Tensor, knots: int = 17, limit: float = 5.0) -> Tensor:
    """Compute sketched isotropic Gaussian regularization (LeJEPA, arXiv:2511.08544, section 4).

    The Epps-Pulley statistic between the projections of `z` and a standard normal, averaged over
    directions: the squared distance of the empirical characteristic function to
    ``exp(-t^2 / 2)``, weighted by ``exp(-t^2 / 2)`` and integrated by the trapezoid rule.

    Args:
        z: (..., B, D).
        directions: (D, M), columns of unit length.
        knots: number of points of the quadrature on [0, limit]; the integrand is even.
        limit: end of the quadrature.

    Returns:
        The statistic, times B as in the paper, averaged over directions and leading axes.
    """
    t = torch.linspace(0, limit, knots, device=z.device)
    gaussian = torch.exp(-t.square() / 2)
    weights = torch.full_like(t, 2 * limit / (knots - 1))
    weights[0] = weights[-1] = limit / (knots - 1)
    phase = (z @ directions).unsqueeze(-1) * t  # (..., B, M, knots)
    error = (phase.cos().mean(-3) - gaussian).square() + phase.sin().mean(-3).square()
    return z.shape[-2] * (error * gaussian * weights).sum(-1).mean()


def random_directions(
    dim: int, count: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw (D, M) unit directions, uniform on the sphere."""
    directions = to_device(torch.randn(dim, count, generator=generator), device)
    unit: Tensor = directions / directions.norm(dim=0, keepdim=True)
    return unit
