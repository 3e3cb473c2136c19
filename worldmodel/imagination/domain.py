"""Where a model knows its way: the region of the latent that its training data covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.observations import encode_at, sample_times
from worldmodel.models import WorldModel

RATE = 1e-3
"""Share of true observations that count as outside by mistake."""

OBSERVATIONS = 20_000
_MARGIN = 0.25


@dataclass(frozen=True)
class Domain:
    """An ellipsoid around training latents, and the box that observations are declared in.

    The squared Mahalanobis distance of a latent is held against the quantile of training latents
    that leaves out a share of `RATE` (Lee et al., "A Simple Unified Framework for Detecting
    Out-of-Distribution Samples", arXiv:1807.03888, with one class).

    Attributes:
        mean: float32 (D,).
        whitening: float32 (D, D); (z - mean) @ whitening has unit covariance on training latents.
        radius: distance beyond which a latent is outside.
        low: float32 (D,), of the observation space: the least of training, less a quarter of the
            range; dreams inside the ellipsoid are clipped to it by no more than rounding.
        high: float32 (D,), likewise.
    """

    mean: Tensor
    whitening: Tensor
    radius: float
    low: Tensor
    high: Tensor

    def distance(self, z: Tensor) -> Tensor:
        """Mahalanobis distance: float32 (B, D) to (B,)."""
        return ((z - self.mean) @ self.whitening).norm(dim=-1)

    def outside(self, z: Tensor) -> Tensor:
        """Which latents (B, D) are not like those of training: bool (B,). NaN is outside."""
        inside = (self.distance(z) <= self.radius) & ((z >= self.low) & (z <= self.high)).all(-1)
        return ~inside


def fit_domain(
    wm: WorldModel, buffer: ReplayBuffer, *, rate: float = RATE, seed: int = 0
) -> Domain:
    """Fit on at most 20,000 observations: half for the shape, half for the radius.

    Args:
        wm: The world model.
        buffer: Training episodes.
        rate: Share of observations like those of the buffer that are to count as outside.
        seed: Of the choice of observations.

    Raises:
        ValueError: If `rate` is not between 0 and 1.
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"rate is {rate}; expected a share between 0 and 1, as 0.001")
    episodes, times = sample_times(buffer, wm.frame_stack, OBSERVATIONS, seed)
    z = encode_at(wm, buffer, episodes, times)
    return domain_of(torch.as_tensor(z, device=wm.device), episodes % 2 == 0, rate)


def domain_of(latents: Tensor, shaping: np.ndarray, rate: float = RATE) -> Domain:
    """Fit on latents.

    Args:
        latents: (N, D).
        shaping: bool (N,), those that give the shape; the others give the radius. Whole episodes
            are on one side, as steps of one resemble each other.
        rate: See `fit_domain`.
    """
    z = latents.cpu().numpy().astype(np.float64)
    fitted = LedoitWolf().fit(z[shaping])
    values, vectors = np.linalg.eigh(fitted.covariance_)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-12))
    distances = np.linalg.norm((z[~shaping] - fitted.location_) @ whitening, axis=1)
    span = z.max(axis=0) - z.min(axis=0)

    def on_device(value: np.ndarray) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32, device=latents.device)

    return Domain(
        mean=on_device(fitted.location_),
        whitening=on_device(whitening),
        radius=float(np.quantile(distances, 1.0 - rate)),
        low=on_device(z.min(axis=0) - _MARGIN * span - 1e-3),
        high=on_device(z.max(axis=0) + _MARGIN * span + 1e-3),
    )
