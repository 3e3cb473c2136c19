"""The largest Lyapunov exponent of an environment: how fast its own futures part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worldmodel.evaluation.targets import wrap

TRAJECTORIES = 128
SECONDS = 20.0
_SETTLE_SECONDS = 5.0
_OFFSET = 1e-6

Step = Callable[[np.ndarray], np.ndarray]


def lyapunov_exponents(
    step: Step, starts: np.ndarray, dt: float, *, seconds: float = SECONDS, offset: float = _OFFSET
) -> np.ndarray:
    """Largest exponent of each trajectory, by two trajectories with renormalisation.

    A neighbour starts at a distance `offset` in a random direction and is put back to that
    distance after every step; the exponent is the mean logarithm of the growth (Benettin, Galgani
    and Strelcyn, Phys. Rev. A 14, 2338, 1976). The first 5 s, while the direction turns to the
    fastest growing one, are left out.

    Args:
        step: Advances states (N, 4) [θ1, θ2, ω1, ω2] by `dt`.
        starts: float64 (N, 4), in rad and rad/s.
        dt: Seconds a step.
        seconds: Measured, after the first 5 s.
        offset: Distance of the neighbour.

    Returns:
        float64 (N,), per second.
    """
    direction = np.random.default_rng(0).normal(size=starts.shape)
    states, neighbours = starts, starts + offset * _unit(direction)
    settle, measured = round(_SETTLE_SECONDS / dt), max(round(seconds / dt), 1)
    growth = np.zeros(len(starts))
    for i in range(settle + measured):
        states, neighbours = step(states), step(neighbours)
        difference = neighbours - states
        difference[:, :2] = wrap(difference[:, :2])
        if i >= settle:
            growth += np.log(np.linalg.norm(difference, axis=1) / offset)
        neighbours = states + offset * _unit(difference)
    return growth / (measured * dt)


def lyapunov_report(step: Step, starts: np.ndarray, dt: float) -> dict[str, Any]:
    """Mean exponent over the first 128 of the starts.

    Returns:
        `exponent_per_second`, its `standard_error` over trajectories, `time_seconds` (one over
        the exponent; None if nothing grows), `trajectories`, and `seconds` measured of each.
    """
    exponents = lyapunov_exponents(step, starts[:TRAJECTORIES], dt)
    mean = float(exponents.mean())
    return {
        "exponent_per_second": mean,
        "standard_error": float(exponents.std(ddof=1) / np.sqrt(len(exponents))),
        "time_seconds": 1.0 / mean if mean > 0.0 else None,
        "trajectories": len(exponents),
        "seconds": SECONDS,
    }


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
