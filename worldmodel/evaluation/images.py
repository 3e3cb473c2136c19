"""How close one uint8 frame is to another: PSNR and SSIM."""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

_PEAK = 255.0
_WINDOW = 7


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


def psnr(mse: np.ndarray) -> np.ndarray:
    """PSNR in dB of sets of frames, 10 log10(255² / MSE), the MSE pooled over each set.

    Pooling keeps one frame that happens to be exact from making the figure infinite.

    Args:
        mse: float (..., B), from `frame_mse`.

    Returns:
        float64 (...), decibels; infinity if all frames of a set are exact.
    """
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(_PEAK**2 / np.mean(mse, axis=-1))


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of each pair of frames (Wang et al., 2004, IEEE TIP 13, equation 13).

    Uniform windows of 7x7, or the largest odd size that fits, averaged over channels.

    Args:
        a: uint8 (B, H, W, C), H and W at least 3.
        b: uint8 (B, H, W, C).

    Returns:
        float64 (B,), at most 1, which means equal.
    """
    side = min(_WINDOW, *a.shape[1:3])
    window = side - 1 + side % 2
    return np.array(
        [
            structural_similarity(x, y, win_size=window, channel_axis=-1, data_range=_PEAK)
            for x, y in zip(a, b, strict=True)
        ]
    )
