"""Medians, horizons and their intervals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from worldmodel.evaluation.forecast import AngleErrors, FrameErrors
from worldmodel.evaluation.images import psnr
from worldmodel.evaluation.statistics import interval, resample
from worldmodel.evaluation.summaries import (
    angle_forecast_report,
    angle_report,
    frame_report,
    horizon,
    median_by_step,
)


def test_median_is_over_episodes_and_both_angles():
    angle = np.array([[[0.0, 1.0], [2.0, 3.0], [4.0, 50.0]]])
    assert_allclose(median_by_step(angle), [2.5])


@pytest.mark.parametrize(
    ("median", "steps"),
    [
        ([0.0, 0.1, 0.2, 0.4, 0.1], 2),
        ([0.0, 0.1, 0.2], 2),
        ([0.0, 0.5, 0.1, 0.1], 0),
        ([0.4, 0.1, 0.1], 0),
        ([0.0, 0.3, 0.1], 0),
        ([0.0, 0.1, np.nan, 0.1], 1),
    ],
)
def test_horizon_is_the_last_step_before_the_first_that_is_not_below(median, steps):
    assert horizon(np.array(median), 0.3) == steps


def test_report_gives_the_horizon_in_seconds_and_says_when_it_is_a_bound():
    angle = np.full((8, 3, 2), 0.1)
    assert angle_report(angle, 0.05)["horizon"] == {
        "steps": 7,
        "interval_steps": [7.0, 7.0],
        "lyapunov_times": None,
        "seconds": pytest.approx(0.35),
        "threshold_rad": 0.3,
        "lower_bound": True,
    }
    angle[5] = 1.0
    report = angle_report(angle, 0.05)
    assert report["horizon"]["steps"] == 4
    assert not report["horizon"]["lower_bound"]
    assert report["error"] == {"0": pytest.approx(0.1), "5": pytest.approx(1.0)}


def test_a_horizon_is_told_in_lyapunov_times():
    angle = np.full((8, 3, 2), 0.1)
    horizon = angle_report(angle, 0.05, lyapunov_seconds=0.7)["horizon"]
    assert horizon["lyapunov_times"] == pytest.approx(0.5)


def test_resamples_draw_whole_episodes_with_replacement():
    drawn = resample(50, resamples=400)
    assert drawn.shape == (400, 50)
    assert drawn.min() == 0
    assert drawn.max() == 49
    assert len(np.unique(drawn[0])) < 50
    assert_array_equal(drawn, resample(50, resamples=400))


def test_an_interval_covers_the_median_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        sample = rng.normal(size=60)
        low, high = interval(np.median(sample[resample(60, resamples=300)], axis=1))
        covered += low <= 0.0 <= high
    assert 0.90 < covered / 200 < 0.99


def test_intervals_are_of_episodes_and_not_of_angles():
    """Both angles of an episode go together: doubling the angles narrows nothing."""
    first = np.random.default_rng(0).uniform(0.0, 1.0, (2, 100, 1))
    twice = np.repeat(first, 2, axis=2)
    one, both = (angle_report(a, 0.05)["interval_by_step"] for a in (first, twice))
    assert_allclose(one, both, atol=0.02)
    low, high = both[1]
    assert 0.1 < high - low < 0.4


def test_a_forecast_stands_beside_its_baselines():
    angle = np.full((7, 4, 2), 0.1)
    report = angle_forecast_report(AngleErrors(angle, 2 * angle, 3 * angle), 0.05, None)
    assert report["error"]["5"] == pytest.approx(0.1)
    assert report["persistence"]["5"] == pytest.approx(0.2)
    assert report["constant_velocity_by_step"] == pytest.approx([0.3] * 7)
    without = angle_forecast_report(AngleErrors(angle, angle, None), 0.05, None)
    assert "no velocity" in without["constant_velocity"]["reason"]
    assert "constant_velocity_by_step" not in without


def test_frames_that_are_exact_have_no_finite_psnr():
    mse = np.random.default_rng(0).uniform(1.0, 2.0, 30)
    ones, zero = np.ones(30), np.zeros(30)
    report = frame_report(
        FrameErrors({0: zero, 5: mse}, {0: ones, 5: ones / 2}, {0: zero, 5: 4 * mse}, {0: ones})
    )
    assert report["psnr"]["0"] is None
    assert report["psnr"]["5"] == pytest.approx(psnr(mse))
    assert report["psnr_persistence"]["5"] == pytest.approx(psnr(mse) - 6.02, abs=0.01)
    low, high = report["psnr_interval"]["5"]
    assert low < psnr(mse) < high < low + 2.0
    assert report["ssim"] == {"0": 1.0, "5": 0.5}
