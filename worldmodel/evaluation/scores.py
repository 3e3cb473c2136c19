"""Scores of a probe's readings."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodel.evaluation.statistics import interval, resample
from worldmodel.evaluation.targets import Readout, angles_from_targets, wrap


def score_probe(
    readout: Readout, predicted: np.ndarray, states: np.ndarray, episodes: np.ndarray
) -> dict[str, Any]:
    """Score the readings of a probe.

    Args:
        readout: What was read.
        predicted: float (N, T).
        states: float (N, d), the true states.
        episodes: int (N,), which episode each is from.

    Returns:
        `r2` (target -> R², 0 for a target that never changes), `worst_r2` (the least of those that
        the readout is judged by), `worst_r2_interval`, `rmse` (target -> root mean squared error,
        in the target's unit), and for a pendulum `angle_rmse_rad` (of atan2(sin, cos), both
        angles).
    """
    true = readout.of(states)
    sums = _sums_by_episode(predicted, true, episodes)  # (E, 4, T)
    r2 = _r2(sums.sum(axis=0))
    drawn = sums[resample(len(sums))].sum(axis=1)  # (R, 4, T)
    worst = _r2(drawn)[:, : readout.judged].min(axis=-1)
    rmse = np.sqrt(np.mean((predicted - true) ** 2, axis=0))
    score: dict[str, Any] = {
        "r2": _named(readout, r2),
        "worst_r2": float(r2[: readout.judged].min()),
        "worst_r2_interval": interval(worst).tolist(),
        "rmse": _named(readout, rmse),
    }
    if readout.is_pendulum:
        turned = wrap(angles_from_targets(predicted) - states[:, :2])
        score["angle_rmse_rad"] = float(np.sqrt(np.mean(turned**2)))
    return score


def _sums_by_episode(predicted: np.ndarray, true: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    """Count, sum, sum of squares and sum of squared errors of each episode: float64 (E, 4, T)."""
    centred = true - true.mean(axis=0)
    terms = np.stack([np.ones_like(true), centred, centred**2, (predicted - true) ** 2], axis=1)
    _, index = np.unique(episodes, return_inverse=True)
    sums = np.zeros((index.max() + 1, *terms.shape[1:]))
    np.add.at(sums, index, terms)
    return sums


def _r2(sums: np.ndarray) -> np.ndarray:
    """R² from sums (..., 4, T): (..., T)."""
    count, total, squares, errors = np.moveaxis(sums, -2, 0)
    variation = squares - total**2 / count
    changes = variation > 1e-12 * count
    return np.where(changes, 1.0 - errors / np.where(changes, variation, 1.0), 0.0)


def _named(readout: Readout, values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(readout.names, values, strict=True)}
