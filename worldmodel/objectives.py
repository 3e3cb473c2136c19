"""Prediction loss and the regularisers that keep the latent from collapsing.

All work on ``predictions`` and ``targets`` of shape (K, B, D): K forecast offsets (the first is
offset 0, the context's own latent), B windows, D latent dimensions. Gradients flow through the
predictions alone; targets come from the EMA encoder behind a stop-gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def variance_hinge(z: Tensor, eps: float = 1e-4) -> Tensor:
    """Mean of ``relu(1 - std)`` over dimensions, VICReg eq. 1 (arXiv:2105.04906).

    Args:
        z: (..., B, D); the standard deviation is taken over B.
    """
    return torch.relu(1 - (z.var(-2) + eps).sqrt()).mean()


def covariance_penalty(z: Tensor) -> Tensor:
    """Sum of squared off-diagonal covariances over D, VICReg eq. 3 and 4 (arXiv:2105.04906).

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
    """Sketched isotropic Gaussian regularisation (LeJEPA, arXiv:2511.08544, section 4).

    The Epps-Pulley statistic between the projections of `z` and a standard normal, averaged over
    directions: the squared distance of the empirical characteristic function to
    ``exp(-t^2 / 2)``, weighted by ``exp(-t^2 / 2)`` and integrated by the trapezoid rule.

    Args:
        z: (..., B, D).
        directions: (D, M) columns of unit length.
        knots: points of the quadrature on [0, limit]; the integrand is even.

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
    directions = torch.randn(dim, count, generator=generator).to(device)
    return directions / directions.norm(dim=0, keepdim=True)
