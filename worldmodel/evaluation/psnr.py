"""Peak signal-to-noise ratio of uint8 frames."""

from __future__ import annotations

import numpy as np

_PEAK = 255.0


def frame_mse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared error of each frame, in squared grey levels.

    Args:
        a: uint8 (B, H, W, C).
        b: uint8 (B, H, W, C).

    Returns:
        float64 (B,).
    """
    difference = a.astype(np.float32) - b.astype(np.float32)
    return np.asarray(np.mean(difference**2, axis=(1, 2, 3), dtype=np.float64))


def psnr(mse: np.ndarray) -> float:
    """PSNR in dB of a set of frames, 10 log10(255² / MSE), the MSE pooled over all of them.

    Pooling keeps one frame that happens to be exact from making the figure infinite.

    Args:
        mse: float (B,), from `frame_mse`.

    Returns:
        Decibels; infinity if all frames are exact.
    """
    pooled = float(np.mean(mse))
    return float("inf") if pooled == 0.0 else float(10.0 * np.log10(_PEAK**2 / pooled))
