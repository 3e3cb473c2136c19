"""Errors of many episodes as figures with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodel.evaluation.forecast import AngleErrors, FrameErrors, reported_steps
from worldmodel.evaluation.images import psnr
from worldmodel.evaluation.statistics import interval, resample

THRESHOLD = 0.3
"""Median angle error in rad below which a forecast counts as true."""


def angle_report(
    angle: np.ndarray, dt: float, lyapunov_seconds: float | None = None
) -> dict[str, Any]:
    """Summarise angle errors of any forecaster.

    Args:
        angle: float (K+1, E, 2), in rad.
        dt: Seconds a step.
        lyapunov_seconds: Lyapunov time of the environment; None if unknown.

    Returns:
        `error` (k as a string -> median over episodes and both angles, in rad, at `STEPS`),
        `interval` (k -> its ends), `median_by_step` and `interval_by_step` (the same at every k
        from 0 to K) and `horizon`, with `steps`, `interval_steps`, `seconds`, `lyapunov_times`
        (None if unknown), `threshold_rad` and `lower_bound` (true if the forecast is still good
        at the last step).
    """
    median = median_by_step(angle)
    drawn = resampled_medians(angle)  # (R, K+1)
    ends = interval(drawn)  # (2, K+1)
    steps = horizon(median)
    return {
        "error": at_reported_steps(median),
        "interval": {str(k): ends[:, k].tolist() for k in reported_steps(len(median) - 1)},
        "median_by_step": median.tolist(),
        "interval_by_step": ends.T.tolist(),
        "horizon": {
            "steps": steps,
            "interval_steps": interval([horizon(row) for row in drawn]).tolist(),
            "seconds": steps * dt,
            "lyapunov_times": None if lyapunov_seconds is None else steps * dt / lyapunov_seconds,
            "threshold_rad": THRESHOLD,
            "lower_bound": bool((median < THRESHOLD).all()),
        },
    }


def angle_forecast_report(
    errors: AngleErrors, dt: float, lyapunov_seconds: float | None
) -> dict[str, Any]:
    """`angle_report` of a forecast, and the medians of its two baselines.

    Returns:
        As `angle_report`, with `persistence` and `constant_velocity` (k -> median) and
        `persistence_by_step` and `constant_velocity_by_step`. Without a velocity in the
        observation, `constant_velocity` is `{"reason": why}` and there is no
        `constant_velocity_by_step`.
    """
    report = angle_report(errors.forecast, dt, lyapunov_seconds)
    persistence = median_by_step(errors.persistence)
    report["persistence"] = at_reported_steps(persistence)
    report["persistence_by_step"] = persistence.tolist()
    if errors.constant_velocity is None:
        report["constant_velocity"] = {"reason": "one frame shows no velocity"}
        return report
    constant = median_by_step(errors.constant_velocity)
    report["constant_velocity"] = at_reported_steps(constant)
    report["constant_velocity_by_step"] = constant.tolist()
    return report


def frame_report(errors: FrameErrors) -> dict[str, Any]:
    """Summarise frame errors.

    Returns:
        `psnr`, `psnr_interval`, `psnr_persistence`, `ssim`, `ssim_persistence`: k as a string ->
        dB or mean similarity; PSNR is None where it is infinite.
    """
    return {
        "psnr": {str(k): finite(psnr(mse)) for k, mse in errors.mse.items()},
        "psnr_interval": {str(k): _psnr_interval(mse) for k, mse in errors.mse.items()},
        "psnr_persistence": {
            str(k): finite(psnr(mse)) for k, mse in errors.mse_persistence.items()
        },
        "ssim": {str(k): float(np.mean(v)) for k, v in errors.ssim.items()},
        "ssim_persistence": {str(k): float(np.mean(v)) for k, v in errors.ssim_persistence.items()},
    }


def at_reported_steps(by_step: np.ndarray) -> dict[str, float]:
    """Values float (K+1,) at those of `STEPS` that there are, by k as a string."""
    return {str(k): float(by_step[k]) for k in reported_steps(len(by_step) - 1)}


def median_by_step(values: np.ndarray) -> np.ndarray:
    """Median over all but the first axis: float (K+1, E, ...) to float (K+1,)."""
    return np.median(values.reshape(len(values), -1), axis=1)


def resampled_medians(values: np.ndarray) -> np.ndarray:
    """`median_by_step` of every resample of the episodes: float (K+1, E, ...) to (R, K+1)."""
    drawn = resample(values.shape[1])
    return np.stack(
        [np.median(step[drawn].reshape(len(drawn), -1), axis=1) for step in values], axis=1
    )


def horizon(median: np.ndarray, threshold: float = THRESHOLD) -> int:
    """The largest k whose median, and that of every earlier step, is below the threshold.

    Args:
        median: float (K+1,), in rad, from `median_by_step`.
        threshold: In rad.

    Returns:
        Steps. 0 too if already the reading at k = 0 is not below the threshold; K, a lower bound,
        if all are.
    """
    above = np.flatnonzero(~(median < threshold))
    return len(median) - 1 if not len(above) else max(int(above[0]) - 1, 0)


def _psnr_interval(mse: np.ndarray) -> list[float | None]:
    low, high = interval(mse[resample(len(mse))].mean(axis=1))
    return [finite(psnr(end[None])) for end in (high, low)]


def finite(value: float | np.ndarray) -> float | None:
    """A number that JSON has: None for infinity and NaN."""
    return float(value) if np.isfinite(value) else None
