"""Open-loop forecasts of held-out episodes, and their errors in angles, pixels and latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from skimage.metrics import structural_similarity

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.forecast_metrics import LatentForecast
from worldmodel.latents import encode_at
from worldmodel.models import WorldModel
from worldmodel.plugins import Readout

if TYPE_CHECKING:
    from worldmodel.evaluation.probes import MLPProbe

REPORTED_STEPS = (0, 5, 10, 20, 30, 40, 60)
"""Steps k at which forecasts are reported."""

_PEAK = 255.0
_MEAN_FRAMES = 512
_WINDOW = 7
_similarity: Callable[..., float] = structural_similarity


def open_loop(wm: WorldModel, frames: np.ndarray, actions: np.ndarray) -> torch.Tensor:
    """Encode the first observation of each window and roll out to its end.

    Args:
        wm: the world model.
        frames: (B, L, H, W, C) or (B, L, d), of which only the first S are used.
        actions: (B, L-1, A), or (B, L-1) if discrete, as recorded.

    Returns:
        Latents at k = 0 (encoded) to K = L - S, float32 (K+1, B, D).

    Raises:
        ValueError: If the windows are too short for one step.
    """
    first, needed = wm.frames.first, wm.frames.window(1)
    if frames.shape[1] < needed:
        raise ValueError(
            f"windows have {frames.shape[1]} frames; a forecast from {wm.frames.size} stacked "
            f"frames needs at least {needed}"
        )
    return _roll_out(wm, wm.encode(wm.frames.observe(frames, first)), actions[:, first:])


def _roll_out(wm: WorldModel, z: torch.Tensor, actions: np.ndarray) -> torch.Tensor:
    """Roll out latents `z` (B, D) under actions (B, K, ...): (K+1, B, D), starting with `z`."""
    by_step = torch.as_tensor(actions, device=wm.device).transpose(0, 1)
    return torch.cat([z[None], wm.rollout(z, by_step)])


@dataclass(frozen=True)
class ForecastEpisodes:
    """Held-out episodes from their first observation on, k = 0 to K.

    K is the last of `REPORTED_STEPS`, or the median number of steps of the episodes if that is
    less: shorter episodes are left out, which are less than half.

    Attributes:
        wm: the world model.
        buffer: held-out episodes.
        episodes: int (E,), episodes that are long enough for K steps.
        last: number of steps K.
    """

    wm: WorldModel
    buffer: ReplayBuffer
    episodes: np.ndarray
    last: int

    @classmethod
    def of(cls, wm: WorldModel, buffer: ReplayBuffer) -> ForecastEpisodes:
        """Choose the episodes and their common length.

        Raises:
            ValueError: If no episode has a step.
        """
        needed = wm.frames.window(1)
        episodes = buffer.episodes_of_at_least(needed)
        if not len(episodes):
            raise ValueError(
                f"the longest of {buffer.num_episodes} episodes has {np.max(buffer.lengths)} "
                f"frames; a forecast from {wm.frames.size} stacked frames needs at least {needed}"
            )
        median = int(np.quantile(buffer.lengths[episodes], 0.5, method="lower"))
        last = min(REPORTED_STEPS[-1], wm.frames.steps(median))
        return cls(wm, buffer, buffer.episodes_of_at_least(wm.frames.window(last)), last)

    def forecast(self, actions: np.ndarray | None = None) -> torch.Tensor:
        """Forecast open loop.

        Args:
            actions: (E, K, A), or (E, K) if discrete; by default the recorded actions.

        Returns:
            float32 (K+1, E, D), on the model's device.
        """
        z = torch.as_tensor(self.encode(0), device=self.wm.device)
        return _roll_out(self.wm, z, self.actions() if actions is None else actions)

    def encode(self, k: int) -> np.ndarray:
        """Encode the true observations of step k, float32 (E, D)."""
        return encode_at(self.wm, self.buffer, self.episodes, self._times(k))

    def actions(self) -> np.ndarray:
        """Read the recorded actions, (E, K, A), or (E, K) if discrete."""
        first, starts = self.wm.frames.first, self._times(0)
        length = first + self.last + 1
        return self.buffer.actions(self.episodes, starts - first, length)[:, first:]

    def states(self, first: int = 0) -> np.ndarray:
        """Read the true states from step `first` (negative: before the forecast) to K.

        Returns:
            float64 (E, K + 1 - first, d).
        """
        return self.buffer.states(self.episodes, self._times(first), self.last + 1 - first)

    def frames(self, k: int) -> np.ndarray:
        """Read the true frames of step k, uint8 (E, H, W, C)."""
        return self.buffer.windows(self.episodes, self._times(k), 1).frames[:, 0]

    def _times(self, k: int) -> np.ndarray:
        return np.full_like(self.episodes, self.wm.frames.first + k)


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Wrap angles of any shape to [-π, π), in rad."""
    wrapped: np.ndarray = (angle + np.pi) % (2.0 * np.pi) - np.pi
    return wrapped


def angle_errors(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Compute `|wrap(predicted - true)|` in rad of any shape, π where the prediction is NaN."""
    errors: np.ndarray = np.nan_to_num(np.abs(wrap_angle(predicted - true)), nan=np.pi)
    return errors


@dataclass(frozen=True)
class AngleErrors:
    """Errors of P angles in E episodes at k = 0 to K, each float64 (K+1, E, P), in rad.

    Attributes:
        forecast: errors |wrap(θ̂ - θ)| of the forecast; π where it diverged to NaN.
        persistence: errors of the true angles at k = 0.
        constant_velocity: errors of the angles extrapolated from the two newest frames of the
            observation; None if an observation is one frame.
    """

    forecast: np.ndarray
    persistence: np.ndarray
    constant_velocity: np.ndarray | None


def angle_errors_by_step(
    episodes: ForecastEpisodes, latents: torch.Tensor, probe: MLPProbe, readout: Readout
) -> AngleErrors:
    """Compare the angles that a probe reads from forecasts (K+1, E, D) with the true ones."""
    true = readout.true_angles(episodes.states()).swapaxes(0, 1)  # (K+1, E, P)
    extrapolated = None
    if episodes.wm.frames.size > 1:
        before = readout.true_angles(episodes.states(-1)[:, 0])
        steps = np.arange(len(true))[:, None, None]
        extrapolated = angle_errors(true[0] + steps * wrap_angle(true[0] - before), true)
    return AngleErrors(
        forecast=angle_errors(readout.angles(probe.predict(latents.cpu().numpy())), true),
        persistence=angle_errors(true[:1], true),
        constant_velocity=extrapolated,
    )


@dataclass(frozen=True)
class FrameErrors:
    """Errors of E newest decoded frames against the true ones of step k, each k -> float64 (E,).

    Attributes:
        mse: squared error in squared gray levels.
        ssim: structural similarity.
        mse_persistence: squared error of the true frame of k = 0.
        ssim_persistence: structural similarity of the true frame of k = 0.
        mse_mean_frame: squared error of the mean training frame at k = 0, float64 (E,).
    """

    mse: dict[int, np.ndarray]
    ssim: dict[int, np.ndarray]
    mse_persistence: dict[int, np.ndarray]
    ssim_persistence: dict[int, np.ndarray]
    mse_mean_frame: np.ndarray


def frame_errors(
    episodes: ForecastEpisodes, latents: torch.Tensor, train: ReplayBuffer
) -> FrameErrors:
    """Compare decoded forecasts (K+1, E, D) with the true frames, at the reported steps."""
    wm, start = episodes.wm, episodes.frames(0)
    errors = FrameErrors({}, {}, {}, {}, frame_mse(mean_frame(wm, train)[None], start))
    for k in reported_steps(episodes.last):
        true = episodes.frames(k)
        decoded = wm.frames.newest(wm.decode(latents[k].nan_to_num()))
        errors.mse[k], errors.ssim[k] = frame_mse(decoded, true), ssim(decoded, true)
        errors.mse_persistence[k] = frame_mse(start, true)
        errors.ssim_persistence[k] = ssim(start, true)
    return errors


def mean_frame(wm: WorldModel, buffer: ReplayBuffer) -> np.ndarray:
    """Average at most 512 frames of a buffer, float64 (H, W, C)."""
    episodes, times = wm.frames.sample_times(buffer, _MEAN_FRAMES, seed=0)
    frames = buffer.windows(episodes, times, 1).frames[:, 0]
    mean: np.ndarray = frames.mean(axis=0)
    return mean


def latent_forecast(episodes: ForecastEpisodes, latents: torch.Tensor) -> LatentForecast:
    """Compare forecasts float32 (K+1, E, D) with the latents of the true observations.

    Errors are squared distances over the total variance of those latents.
    """
    forecast = latents.cpu().numpy()
    steps = reported_steps(episodes.last)
    true = {k: episodes.encode(k) for k in steps}
    variance = float(np.concatenate(list(true.values())).astype(np.float64).var(axis=0).sum())

    def error(difference: np.ndarray) -> float | None:
        squared = float(np.mean(np.sum(difference.astype(np.float64) ** 2, axis=-1)))
        ratio = squared / variance if variance > 0.0 else math.inf
        return ratio if math.isfinite(ratio) else None

    return LatentForecast(
        error={str(k): error(forecast[k] - true[k]) for k in steps},
        persistence={str(k): error(forecast[0] - true[k]) for k in steps},
    )


def reported_steps(last: int) -> list[int]:
    """Return the steps of `REPORTED_STEPS` up to `last`; more of the first ten if there are few."""
    if last < 10:
        return [k for k in (0, 1, 2, 3, 5) if k < last] + [last]
    return [k for k in REPORTED_STEPS if k <= last]


def frame_mse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the mean squared error of each frame, in squared gray levels.

    Args:
        a: uint8 (B, H, W, C).
        b: uint8 (B, H, W, C).

    Returns:
        float64 (B,).
    """
    difference = a.astype(np.float32) - b.astype(np.float32)
    return np.asarray(np.mean(difference**2, axis=(1, 2, 3), dtype=np.float64))


def psnr(mse: np.ndarray) -> np.ndarray:
    """Compute PSNR in dB of sets of frames, 10 log10(255² / MSE), the MSE pooled over each set.

    Pooling keeps one exact frame from making the result infinite.

    Args:
        mse: float (..., B), squared errors from `frame_mse`.

    Returns:
        float64 (...), in dB; infinity if all frames of a set are exact.
    """
    with np.errstate(divide="ignore"):
        decibels: np.ndarray = 10.0 * np.log10(_PEAK**2 / np.mean(mse, axis=-1))
    return decibels


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute structural similarity of pairs of frames (Wang et al., 2004, IEEE TIP 13, eq. 13).

    Uniform windows of 7x7, or the largest odd size that fits, averaged over channels.

    Args:
        a: uint8 (B, H, W, C), H and W at least 3.
        b: uint8 (B, H, W, C).

    Returns:
        float64 (B,), at most 1; equal frames have 1.
    """
    side = min(_WINDOW, *a.shape[1:3])
    window = side - 1 + side % 2
    return np.array(
        [
            _similarity(x, y, win_size=window, channel_axis=-1, data_range=_PEAK)
            for x, y in zip(a, b, strict=True)
        ]
    )
