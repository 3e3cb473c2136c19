"""Bootstrap intervals over episodes, and the summaries that have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from worldmodel.evaluation.forecast import AngleErrors, FrameErrors, psnr, reported_steps
from worldmodel.evaluation.forecast_metrics import (
    AngleErrorSummary,
    AngleForecast,
    ByStep,
    FrameForecast,
    Horizon,
    Interval,
    IntervalOrNone,
)

if TYPE_CHECKING:
    from worldmodel.evaluation_config import Evaluation

METHOD = "percentile bootstrap over episodes"

THRESHOLD = 0.3
"""Median angle error in rad from which a forecast counts as inaccurate."""


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap over episodes, with a fixed seed.

    Attributes:
        resamples: number R of resamples.
        confidence: confidence level of the intervals.
    """

    resamples: int = 1000
    confidence: float = 0.95

    @classmethod
    def of(cls, settings: Evaluation) -> Bootstrap:
        """Make the bootstrap of a configuration."""
        return cls(settings.resamples, settings.confidence)

    def draw(self, episodes: int) -> np.ndarray:
        """Draw episodes with replacement, int64 (R, E), indices below E = `episodes`."""
        return np.random.default_rng(0).integers(0, episodes, (self.resamples, episodes))

    def interval(self, values: ArrayLike) -> np.ndarray:
        """Compute the interval float64 (2, ...), low and high, of resampled values (R, ...)."""
        tail = 100.0 * (1.0 - self.confidence) / 2.0
        return np.percentile(np.asarray(values, np.float64), [tail, 100.0 - tail], axis=0)

    def medians(self, values: np.ndarray) -> np.ndarray:
        """Compute `median_by_step` of every resample of episodes: (K+1, E, ...) to (R, K+1)."""
        drawn = self.draw(values.shape[1])
        rows = [np.median(step[drawn].reshape(len(drawn), -1), axis=1) for step in values]
        return np.stack(rows, axis=1)


def angle_summary(
    errors: np.ndarray, dt: float, lyapunov_seconds: float | None, bootstrap: Bootstrap
) -> AngleErrorSummary:
    """Summarize the angle errors of any forecast.

    Args:
        errors: float (K+1, E, P), angle errors in rad.
        dt: seconds per step.
        lyapunov_seconds: Lyapunov time of the environment; None if unknown.
        bootstrap: bootstrap that computes the intervals.
    """
    median = median_by_step(errors)
    resampled = bootstrap.medians(errors)  # (R, K+1)
    ends = bootstrap.interval(resampled)  # (2, K+1)
    intervals = [as_interval(end) for end in ends.T]
    steps = horizon(median)
    return AngleErrorSummary(
        error=at_reported_steps(median),
        interval={str(k): intervals[k] for k in reported_steps(len(median) - 1)},
        median_by_step=median.tolist(),
        interval_by_step=intervals,
        horizon=Horizon(
            steps=steps,
            interval_steps=as_interval(bootstrap.interval([horizon(row) for row in resampled])),
            seconds=steps * dt,
            lyapunov_times=None if lyapunov_seconds is None else steps * dt / lyapunov_seconds,
            threshold_rad=THRESHOLD,
            lower_bound=bool((median < THRESHOLD).all()),
        ),
    )


def angle_forecast(
    errors: AngleErrors, dt: float, lyapunov_seconds: float | None, bootstrap: Bootstrap
) -> AngleForecast:
    """Summarize the angle errors of a forecast and of its baselines; see `angle_summary`."""
    persistence = median_by_step(errors.persistence)
    constant = None
    if errors.constant_velocity is not None:
        constant = median_by_step(errors.constant_velocity)
    return AngleForecast(
        **vars(angle_summary(errors.forecast, dt, lyapunov_seconds, bootstrap)),
        persistence=at_reported_steps(persistence),
        persistence_by_step=persistence.tolist(),
        constant_velocity=None if constant is None else at_reported_steps(constant),
        constant_velocity_by_step=None if constant is None else constant.tolist(),
    )


def frame_forecast(errors: FrameErrors, bootstrap: Bootstrap) -> FrameForecast:
    """Summarize frame errors over episodes."""

    def interval(mse: np.ndarray) -> IntervalOrNone:
        low, high = bootstrap.interval(mse[bootstrap.draw(len(mse))].mean(axis=1))
        return finite(psnr(high[None])), finite(psnr(low[None]))

    return FrameForecast(
        psnr={str(k): finite(psnr(mse)) for k, mse in errors.mse.items()},
        psnr_interval={str(k): interval(mse) for k, mse in errors.mse.items()},
        psnr_persistence={str(k): finite(psnr(mse)) for k, mse in errors.mse_persistence.items()},
        psnr_mean_frame=finite(psnr(errors.mse_mean_frame)),
        ssim={str(k): float(np.mean(v)) for k, v in errors.ssim.items()},
        ssim_persistence={str(k): float(np.mean(v)) for k, v in errors.ssim_persistence.items()},
    )


def horizon(median: np.ndarray, threshold: float = THRESHOLD) -> int:
    """Find the largest k up to which the median error stays below the threshold.

    Args:
        median: float (K+1,), median errors in rad, from `median_by_step`.
        threshold: threshold in rad.

    Returns:
        A number of steps. 0 also if the error at k = 0 is not below the threshold; K, a lower
        bound, if all are.
    """
    above = np.flatnonzero(~(median < threshold))
    return len(median) - 1 if not len(above) else max(int(above[0]) - 1, 0)


def at_reported_steps(by_step: np.ndarray) -> ByStep:
    """Select the reported steps of values float (K+1,), with k as a string."""
    return {str(k): float(by_step[k]) for k in reported_steps(len(by_step) - 1)}


def median_by_step(values: np.ndarray) -> np.ndarray:
    """Compute the median over all axes but the first: float (K+1, E, ...) to float (K+1,)."""
    median: np.ndarray = np.median(values.reshape(len(values), -1), axis=1)
    return median


def as_interval(ends: np.ndarray) -> Interval:
    """Convert the two ends (2,) to numbers."""
    low, high = ends.tolist()
    return low, high


def finite(value: float | np.ndarray) -> float | None:
    """Convert to a number that JSON can hold: None for infinity and NaN."""
    return float(value) if np.isfinite(value) else None
