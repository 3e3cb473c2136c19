"""The largest Lyapunov exponent, on systems whose exponent is known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import worldmodel  # noqa: F401
from worldmodel.evaluation import pendulum_task
from worldmodel.evaluation.lyapunov import lyapunov_exponents, lyapunov_report

DT = 0.05
TASK = pendulum_task("DoublePendulum-v0")


def pendulum(states):
    return TASK.advance(states, np.zeros((len(states), 2)))[0]


def test_a_linear_system_has_its_largest_eigenvalue():
    rates = np.array([0.3, -1.0, 0.8, 0.1])
    mix = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    flow = mix @ np.diag(np.exp(rates * DT)) @ mix.T
    exponents = lyapunov_exponents(lambda s: s @ flow.T, np.zeros((5, 4)), DT, seconds=10)
    assert_allclose(exponents, 0.8, atol=0.03)


def test_small_swings_are_regular_and_high_energies_are_chaotic():
    starts = np.array([[0.05, -0.03, 0.0, 0.0], [2.5, 2.8, 1.0, -1.0]])
    regular, chaotic = lyapunov_exponents(pendulum, starts, DT, seconds=60)
    assert abs(regular) < 0.1
    assert chaotic > 0.8


def test_the_size_of_the_offset_does_not_matter():
    starts = np.random.default_rng(0).uniform(-np.pi, np.pi, (40, 4))
    small, large = (
        lyapunov_exponents(pendulum, starts, DT, offset=offset).mean() for offset in (1e-7, 1e-5)
    )
    assert small == pytest.approx(large, abs=0.1)


def test_the_report_has_an_error_bar_and_a_time_only_where_something_grows():
    starts = np.random.default_rng(0).uniform(-np.pi, np.pi, (40, 4))
    report = lyapunov_report(pendulum, starts, DT)
    assert report["time_seconds"] == pytest.approx(1.0 / report["exponent_per_second"])
    assert 0.0 < report["standard_error"] < 0.5 * report["exponent_per_second"]
    assert report["trajectories"] == 40
    shrinking = lyapunov_report(lambda states: 0.9 * states, np.zeros((3, 4)), DT)
    assert shrinking["time_seconds"] is None
