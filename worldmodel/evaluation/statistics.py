"""Bootstrap confidence intervals over episodes.

Steps of one episode depend on each other, so episodes are what is drawn again, with all their
steps (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
"""Probability that an interval is to cover the figure."""

RESAMPLES = 1000

METHOD = "percentile bootstrap over held-out episodes"


def resample(episodes: int, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draw sets of episodes with replacement.

    Args:
        episodes: E, at least 1.
        resamples: R, sets to draw.
        seed: Of the draws.

    Returns:
        int64 (R, E), indices of episodes.
    """
    return np.random.default_rng(seed).integers(0, episodes, (resamples, episodes))


def interval(values: ArrayLike) -> np.ndarray:
    """The percentile interval of a figure that was computed on every resample.

    Args:
        values: float (R, ...).

    Returns:
        float64 (2, ...), the lower and the upper end.
    """
    outside = 100.0 * (1.0 - CONFIDENCE) / 2.0
    return np.percentile(np.asarray(values, np.float64), [outside, 100.0 - outside], axis=0)
