"""Collapse of the representation: spread and effective rank of latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

_EPS = 1e-12


@dataclass(frozen=True)
class Collapse:
    """Statistics of a batch of latents.

    Attributes:
        std: float64 (D,), standard deviation of each latent dimension over the batch.
        spectrum: float64 (D,), eigenvalues of the covariance, largest first.
        effective_rank: exp of the entropy of the covariance spectrum, between 0 and D.
        rankme: exp of the entropy of the singular values, between 0 and D.
    """

    std: np.ndarray
    spectrum: np.ndarray
    effective_rank: float
    rankme: float


def collapse(latents: torch.Tensor | ArrayLike) -> Collapse:
    """Compute all statistics in one pass over the latents.

    Costs one (D, N) x (N, D) product and two (D, D) eigenvalue problems: cheap enough to log
    while training.

    Args:
        latents: float (N, D), a tensor on any device or an array, N >= 2.

    Returns:
        The statistics, as NumPy arrays and Python numbers.

    Raises:
        ValueError: If `latents` is not a matrix of at least two rows, or is not finite.
    """
    z = _as_matrix(latents)
    mean = z.mean(dim=0)
    second_moment = z.T @ z / len(z)
    covariance = second_moment - torch.outer(mean, mean)
    eigenvalues = _eigenvalues(covariance)
    return Collapse(
        std=covariance.diagonal().clamp(min=0.0).sqrt().cpu().numpy(),
        spectrum=eigenvalues.flip(0).cpu().numpy(),
        effective_rank=_exp_entropy(eigenvalues),
        rankme=_exp_entropy(_eigenvalues(second_moment).sqrt()),
    )


def effective_rank(latents: torch.Tensor | ArrayLike) -> float:
    """Compute the effective rank of the covariance of the latents, between 0 and D.

    The exponential of the Shannon entropy of the eigenvalues of the covariance, normalized to sum
    to one (Roy and Vetterli, "The effective rank", EUSIPCO 2007, section 2, on the covariance).
    Zero for a batch without variance.

    Args:
        latents: float (N, D), N >= 2.
    """
    return collapse(latents).effective_rank


def rankme(latents: torch.Tensor | ArrayLike) -> float:
    """Compute RankMe of the latents (Garrido et al., arXiv:2210.02885, section 3, equation 1).

    The exponential of the Shannon entropy of the singular values of the (N, D) matrix, not
    centered, normalized to sum to one. The singular values are the roots of the eigenvalues of the
    float64 Gram matrix, which costs D x D memory whatever N is.

    Args:
        latents: float (N, D), N >= 2.
    """
    return collapse(latents).rankme


def _as_matrix(latents: torch.Tensor | ArrayLike) -> torch.Tensor:
    z = torch.as_tensor(latents).detach().cpu().to(torch.float64)  # MPS has no float64
    if z.ndim != 2 or len(z) < 2:
        raise ValueError(f"latents have shape {tuple(z.shape)}; expected (N, D) with N >= 2")
    if not bool(torch.isfinite(z).all()):
        raise ValueError(
            "latents contain NaN or infinity; the model that encoded them has diverged"
        )
    return z


def _eigenvalues(symmetric: torch.Tensor) -> torch.Tensor:
    eigenvalues: torch.Tensor = torch.linalg.eigvalsh(symmetric).clamp(min=0.0)
    return eigenvalues


def _exp_entropy(spectrum: torch.Tensor) -> float:
    total = spectrum.sum()
    if total <= _EPS:
        return 0.0
    p = spectrum / total
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))
