"""The error of a forecast: angles where a probe reads them, latents elsewhere."""

import numpy as np
import pytest
from free_hands import FreeHands
from numpy.testing import assert_allclose

from worldmodel.evaluation.probes import MLPProbe, fit_mlp_probe
from worldmodel.viz.forecast_error import AngleError, LatentError, forecast_error


@pytest.fixture(scope="module")
def probe():
    """Reads latents of six numbers as they are, for the targets of `FreeHands` but its energy."""
    latents = np.random.default_rng(0).normal(size=(2000, 6))
    return fit_mlp_probe(latents, latents)


def test_angle_errors_are_those_of_the_angles_that_the_probe_reads(probe):
    states = np.array([[0.3, -0.5, 0, 0], [0.3, -0.5, 0, 0]])
    exact = np.array([np.sin(0.3), np.sin(-0.5), np.cos(0.3), np.cos(-0.5), 0, 0])
    ahead = np.array([np.sin(0.5), np.sin(-0.5), np.cos(0.5), np.cos(-0.5), 0, 0])
    latents = np.stack([exact, ahead])
    error = AngleError(probe, FreeHands().readout(4))
    assert_allclose(error.per_angle(latents, states), [[0, 0], [0.2, 0]], atol=0.08)
    assert_allclose(error(latents, latents, states), [0.0, 0.1], atol=0.06)
    assert_allclose(error(latents * np.nan, latents, states), [np.pi, np.pi])
    with pytest.raises(ValueError, match="need true states"):
        error(latents, latents, None)


def test_a_probe_is_restored_from_its_state(probe):
    latents = np.random.default_rng(1).normal(size=(9, 6))
    again = MLPProbe.from_state(probe.state())
    assert_allclose(again.predict(latents), probe.predict(latents), rtol=1e-6)


def test_latent_errors_are_1_for_unrelated_latents():
    latents = np.random.default_rng(0).normal(size=(2000, 6))
    assert_allclose(LatentError(2.0)(np.ones((1, 4)), np.zeros((1, 4)), None), [1.0])
    unrelated = LatentError.of(latents)(latents[:500], latents[500:1000], None)
    assert unrelated.mean() == pytest.approx(1.0, abs=0.05)


def test_angles_are_measured_where_a_probe_and_states_are_there(run):
    states = np.zeros((3, 4))
    error = forecast_error(run, states)
    assert isinstance(error, AngleError)
    assert error.readout.angle_names == ("θ1", "θ2")
    assert isinstance(forecast_error(run, None), LatentError)
    run.probe = None
    assert isinstance(forecast_error(run, states), LatentError)
