"""Out-of-distribution detection in latent space, and where imagined episodes start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from worldmodel.data import ReplayBuffer
from worldmodel.latents import encode_at

if TYPE_CHECKING:
    from worldmodel.evaluation_config import Evaluation
    from worldmodel.models import WorldModel

_MARGIN = 0.25


class Domain(nn.Module):
    """The region of latent space that the training data covers.

    A latent is out of distribution if its Mahalanobis distance from the training latents is larger
    than `radius`, a quantile of the distances of training latents (Lee et al., "A Simple Unified
    Framework for Detecting Out-of-Distribution Samples", arXiv:1807.03888, with one class), or if
    it is outside the box from `low` to `high`.

    All arguments are buffers, so the domain of a world model is moved with it by ``.to(device)``.

    Args:
        mean: float32 (D,), mean of the training latents.
        whitening: float32 (D, D), matrix for which (z - mean) @ whitening has unit covariance on
            training latents.
        radius: distance beyond which a latent is out of distribution.
        low: float32 (D,), lower bounds of the observation space: the minimum over the training
            latents, less a quarter of their range.
        high: float32 (D,), upper bounds: the maximum, plus a quarter of the range.
    """

    mean: Tensor
    whitening: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self, mean: Tensor, whitening: Tensor, radius: Tensor | float, low: Tensor, high: Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)
        self.register_buffer("radius", torch.as_tensor(radius, dtype=mean.dtype).to(mean.device))
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Domain:
        """Make a domain from the ``state_dict()`` of another."""
        return cls(**state)

    def require_fit(self, starts: Tensor, latent_dim: int) -> None:
        """Check that domain and start latents are those of a model.

        Args:
            starts: float32 (M, D), M >= 1.
            latent_dim: D.

        Raises:
            ValueError: If a shape, a dtype or a value is wrong.
        """
        d = latent_dim
        expected = {"mean": (d,), "whitening": (d, d), "radius": (), "low": (d,), "high": (d,)}
        tensors = {**dict(self.named_buffers()), "starts": starts}
        for name, tensor in tensors.items():
            shape = expected.get(name, (max(1, len(starts)), d))
            if tensor.shape != shape or tensor.dtype != torch.float32:
                raise ValueError(
                    f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected "
                    f"torch.float32 of shape {shape}"
                )
            if not tensor.isfinite().all():
                raise ValueError(f"{name} holds NaN or infinity")

    @property
    def space(self) -> gym.spaces.Box:
        """The box of latents, as the observation space of an environment."""
        low, high = self.low.cpu().numpy(), self.high.cpu().numpy()
        return gym.spaces.Box(low, high, dtype=np.float32)

    def distance(self, z: Tensor) -> Tensor:
        """Compute the Mahalanobis distance of latents float32 (B, D) from the mean, (B,)."""
        distance: Tensor = ((z - self.mean) @ self.whitening).norm(dim=-1)
        return distance

    def outside(self, z: Tensor) -> Tensor:
        """Find the latents (B, D) that are out of distribution, bool (B,). NaN is."""
        inside = (self.distance(z) <= self.radius) & ((z >= self.low) & (z <= self.high)).all(-1)
        return ~inside


def fit_domain(wm: WorldModel, buffer: ReplayBuffer, settings: Evaluation, seed: int = 0) -> Domain:
    """Fit a domain on training observations.

    Half of the episodes shape the ellipsoid and the others set its radius. Assign the result to
    `wm.domain`.

    Args:
        wm: the world model.
        buffer: training episodes.
        settings: hyperparameters: `domain_observations` is the maximum number of observations, and
            `ood_false_positive_rate` the fraction of them that counts as out of distribution.
        seed: random seed of the choice of observations.

    Returns:
        The domain, on the model's device.
    """
    episodes, times = wm.frames.sample_times(buffer, settings.domain_observations, seed)
    z = encode_at(wm, buffer, episodes, times)
    return domain_of(
        torch.as_tensor(z, device=wm.device), episodes % 2 == 0, settings.ood_false_positive_rate
    )


def domain_of(latents: Tensor, shaping: np.ndarray, error_rate: float) -> Domain:
    """Fit a domain on latents.

    Args:
        latents: float32 (N, D).
        shaping: bool (N,), mask of the latents that shape the ellipsoid; the others set its radius.
            Latents of one episode are similar, so they should all be in the same group.
        error_rate: fraction of latents such as `latents` that counts as out of distribution, in
            (0, 1).

    Returns:
        The domain, on the device of the latents.

    Raises:
        ValueError: If `error_rate` is not between 0 and 1.
    """
    if not 0.0 < error_rate < 1.0:
        raise ValueError(f"error_rate is {error_rate}; expected a fraction between 0 and 1")
    from sklearn.covariance import LedoitWolf  # takes a second to import

    z = latents.cpu().numpy().astype(np.float64)
    fitted = LedoitWolf().fit(z[shaping])
    values, vectors = np.linalg.eigh(fitted.covariance_)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-12))
    distances = np.linalg.norm((z[~shaping] - fitted.location_) @ whitening, axis=1)
    low, high = z.min(axis=0), z.max(axis=0)
    margin = _MARGIN * (high - low)

    def to_tensor(value: ArrayLike) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32, device=latents.device)

    return Domain(
        mean=to_tensor(fitted.location_),
        whitening=to_tensor(whitening),
        radius=to_tensor(np.quantile(distances, 1.0 - error_rate)),
        low=to_tensor(low - margin - 1e-3),
        high=to_tensor(high + margin + 1e-3),
    )


def require_domain(wm: WorldModel) -> Domain:
    """Return the domain of a model.

    Raises:
        ValueError: If the model has none.
    """
    if wm.domain is None:
        raise ValueError(
            "this model has no domain for out-of-distribution detection; fit one with "
            "wm.domain = fit_domain(wm, buffer, config.evaluation)"
        )
    return wm.domain


def start_latents(wm: WorldModel, buffer: ReplayBuffer, count: int, seed: int = 0) -> Tensor:
    """Encode random observations of a buffer, at which imagined episodes can start.

    Observations that ended an episode by termination are left out: no step follows them.

    Args:
        wm: the world model.
        buffer: training episodes.
        count: maximum number of observations.
        seed: random seed of the choice of observations.

    Returns:
        float32 (M, D), M <= `count`, on the model's device. Assign it to `wm.starts`.
    """
    episodes, times = wm.frames.sample_times(buffer, count, seed)
    over = buffer.terminated[episodes] & (times == buffer.lengths[episodes] - 1)
    return torch.as_tensor(encode_at(wm, buffer, episodes[~over], times[~over]), device=wm.device)


def reset_latents(
    wm: WorldModel, env: gym.Env[np.ndarray, Any], count: int = 256, seed: int = 0
) -> Tensor:
    """Encode the first observations of an environment's episodes.

    An observation at reset repeats a single frame, so its latent represents a state of rest.

    Args:
        wm: the world model.
        env: an environment with the model's observations, see `Run.make_env`.
        count: number M of resets.
        seed: random seed of the first reset; later resets use consecutive seeds.

    Returns:
        float32 (M, D), on the model's device.
    """
    observations = [env.reset(seed=seed + i)[0] for i in range(count)]
    return wm.encode(np.stack(observations))
