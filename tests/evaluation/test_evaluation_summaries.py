"""Medians, horizons and their intervals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from worldmodel.evaluation.forecast import AngleErrors, FrameErrors, psnr
from worldmodel.evaluation.intervals import (
    Bootstrap,
    angle_forecast,
    angle_summary,
    frame_forecast,
    horizon,
    median_by_step,
)
from worldmodel.evaluation_config import Evaluation

BOOTSTRAP = Bootstrap()


def summary(errors, lyapunov_seconds=None):
    return angle_summary(errors, 0.05, lyapunov_seconds, BOOTSTRAP)


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


def test_the_summary_has_the_horizon_in_seconds_and_whether_it_is_a_lower_bound():
    angle = np.full((8, 3, 2), 0.1)
    assert vars(summary(angle).horizon) == {
        "steps": 7,
        "interval_steps": (7.0, 7.0),
        "lyapunov_times": None,
        "seconds": pytest.approx(0.35),
        "threshold_rad": 0.3,
        "lower_bound": True,
    }
    angle[5] = 1.0
    changed = summary(angle)
    assert changed.horizon.steps == 4
    assert not changed.horizon.lower_bound
    expected = {"0": 0.1, "1": 0.1, "2": 0.1, "3": 0.1, "5": 1.0, "7": 0.1}
    assert changed.error == pytest.approx(expected)


def test_a_horizon_is_given_in_lyapunov_times():
    angle = np.full((8, 3, 2), 0.1)
    assert summary(angle, lyapunov_seconds=0.7).horizon.lyapunov_times == pytest.approx(0.5)


def test_resamples_are_of_whole_episodes_with_replacement():
    drawn = Bootstrap(resamples=400).draw(50)
    assert drawn.shape == (400, 50)
    assert drawn.min() == 0
    assert drawn.max() == 49
    assert len(np.unique(drawn[0])) < 50
    assert_array_equal(drawn, Bootstrap(resamples=400).draw(50))


def test_an_interval_covers_the_median_as_often_as_its_confidence():
    rng = np.random.default_rng(1)
    bootstrap = Bootstrap(resamples=300)
    covered = 0
    for _ in range(200):
        sample = rng.normal(size=60)
        low, high = bootstrap.interval(np.median(sample[bootstrap.draw(60)], axis=1))
        covered += low <= 0.0 <= high
    assert 0.90 < covered / 200 < 0.99


def test_the_configuration_sets_resamples_and_confidence():
    bootstrap = Bootstrap.of(Evaluation(resamples=7, confidence=0.5))
    assert bootstrap.draw(3).shape == (7, 3)
    assert_allclose(bootstrap.interval(np.arange(101.0)), [25.0, 75.0])
    assert Bootstrap.of(Evaluation()) == BOOTSTRAP


def test_intervals_are_over_episodes_and_not_over_angles():
    """Both angles of an episode are resampled together, so more angles narrow no interval."""
    first = np.random.default_rng(0).uniform(0.0, 1.0, (2, 100, 1))
    twice = np.repeat(first, 2, axis=2)
    one, both = (summary(errors).interval_by_step for errors in (first, twice))
    assert_allclose(one, both, atol=0.02)
    low, high = both[1]
    assert 0.1 < high - low < 0.4


def test_a_forecast_is_summarized_beside_its_baselines():
    angle = np.full((7, 4, 2), 0.1)
    forecast = angle_forecast(AngleErrors(angle, 2 * angle, 3 * angle), 0.05, None, BOOTSTRAP)
    assert forecast.error["5"] == pytest.approx(0.1)
    assert forecast.persistence["5"] == pytest.approx(0.2)
    assert forecast.constant_velocity["5"] == pytest.approx(0.3)
    assert forecast.constant_velocity_by_step == pytest.approx([0.3] * 7)
    without = angle_forecast(AngleErrors(angle, angle, None), 0.05, None, BOOTSTRAP)
    assert without.constant_velocity is None
    assert without.constant_velocity_by_step is None


def test_exact_frames_have_no_finite_psnr():
    mse = np.random.default_rng(0).uniform(1.0, 2.0, 30)
    ones, zero = np.ones(30), np.zeros(30)
    errors = FrameErrors(
        {0: zero, 5: mse}, {0: ones, 5: ones / 2}, {0: zero, 5: 4 * mse}, {0: ones}, 16 * mse
    )
    frames = frame_forecast(errors, BOOTSTRAP)
    assert frames.psnr["0"] is None
    assert frames.psnr["5"] == pytest.approx(psnr(mse))
    assert frames.psnr_persistence["5"] == pytest.approx(psnr(mse) - 6.02, abs=0.01)
    assert frames.psnr_mean_frame == pytest.approx(psnr(mse) - 12.04, abs=0.01)
    low, high = frames.psnr_interval["5"]
    assert low < psnr(mse) < high < low + 2.0
    assert frames.ssim == {"0": 1.0, "5": 0.5}
