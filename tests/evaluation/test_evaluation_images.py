"""PSNR and SSIM against their definitions."""

import numpy as np
from numpy.testing import assert_allclose

from worldmodel.evaluation.forecast import frame_mse, psnr, ssim


def test_psnr_matches_a_formula_in_unit_range():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 5, 8, 6, 3), dtype=np.uint8)
    mse = np.mean((a / 255.0 - b / 255.0) ** 2)
    assert_allclose(psnr(frame_mse(a, b)), -10.0 * np.log10(mse), rtol=1e-6)
    assert psnr(frame_mse(a, a)) == float("inf")
    one_off = a.copy()
    one_off[0, 0, 0, 0] ^= 255
    assert frame_mse(a, one_off)[1:].sum() == 0.0 < frame_mse(a, one_off)[0]


def test_psnr_pools_the_error_of_each_set():
    mse = np.array([[1.0, 3.0], [4.0, 4.0]])
    assert_allclose(psnr(mse), [psnr(np.array([2.0])), psnr(np.array([4.0]))])


def naive_ssim(a, b):
    """Equation 13 of Wang et al. with uniform 7x7 windows, sample covariances, window by window."""
    values = []
    for i in range(a.shape[0] - 6):
        for j in range(a.shape[1] - 6):
            x, y = (f[i : i + 7, j : j + 7].astype(float).ravel() for f in (a, b))
            c = np.cov(x, y)
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
            values.append(luminance * (2 * c[0, 1] + c2) / (c[0, 0] + c[1, 1] + c2))
    return np.mean(values)


def test_ssim_matches_its_definition_and_is_one_for_equal_frames():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 12, 10, 1), dtype=np.uint8)
    b = np.clip(a + rng.integers(-40, 40, a.shape), 0, 255).astype(np.uint8)
    assert_allclose(ssim(a, a), 1.0)
    expected = [naive_ssim(x[..., 0], y[..., 0]) for x, y in zip(a, b)]
    assert_allclose(ssim(a, b), expected, rtol=1e-6)


def test_ssim_takes_frames_smaller_than_its_window():
    a = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    assert_allclose(ssim(a, a), 1.0)
    assert ssim(a, 255 - a).max() < 0.5
