"""Statistics of the features of a LeRobot dataset: of each episode, and of all of them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Stats: TypeAlias = dict[str, np.ndarray]
"""``min``, ``max``, ``mean``, ``std``, ``count`` and quantiles of one feature."""

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_MOST_IMAGES = 100


def number_stats(values: np.ndarray) -> Stats:
    """Describe numbers (N, ...), without their first axis; scalars get the shape (1,)."""
    rows = np.asarray(values, np.float64)
    rows = rows.reshape(len(rows), -1)
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "count": np.array([len(rows)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def image_stats(frames: np.ndarray) -> Stats:
    """Describe the channels of images uint8 (N, H, W, C), in [0, 1]; values are (C, 1, 1).

    At most 100 images, evenly spaced, are taken.
    """
    step = -(-len(frames) // _MOST_IMAGES)
    chosen = frames[::step]
    levels = np.arange(256)
    counts = np.stack([np.bincount(c.ravel(), minlength=256) for c in np.moveaxis(chosen, -1, 0)])
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ levels
    below = np.cumsum(share, axis=1)
    found = {
        "min": (counts > 0).argmax(1),
        "max": 255 - (counts[:, ::-1] > 0).argmax(1),
        "mean": mean,
        "std": np.sqrt(share @ levels**2 - mean**2),
        **{name: (below >= q).argmax(1) for name, q in QUANTILES.items()},
    }
    scaled = {name: (value / 255.0).reshape(-1, 1, 1) for name, value in found.items()}
    return {**scaled, "count": np.array([len(chosen)])}


def merge_stats(first: Stats, second: Stats) -> Stats:
    """Describe two sets of values by the descriptions of each.

    Quantiles are averages of both, weighted by the numbers of values, as LeRobot computes them.
    """
    n, m = first["count"], second["count"]
    total = n + m
    mean = (n * first["mean"] + m * second["mean"]) / total
    spread = [
        count * (stats["std"] ** 2 + (stats["mean"] - mean) ** 2)
        for count, stats in ((n, first), (m, second))
    ]
    return {
        "min": np.minimum(first["min"], second["min"]),
        "max": np.maximum(first["max"], second["max"]),
        "mean": mean,
        "std": np.sqrt(sum(spread) / total),
        "count": total,
        **{name: (n * first[name] + m * second[name]) / total for name in QUANTILES},
    }
