"""Probes read what is in a latent, no more, and say so in the right units."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from worldmodel.evaluation.probes import (
    TARGETS,
    angles_from_targets,
    fit_linear_probe,
    fit_mlp_probe,
    score_probe,
    targets,
    wrap,
)

RNG = np.random.default_rng(0)


def random_states(count):
    theta = RNG.uniform(-np.pi, np.pi, (count, 2))
    return np.concatenate([theta, RNG.normal(0.0, 4.0, (count, 2))], axis=1)


def mixed(states):
    """A latent that is a linear mixture of the targets."""
    return targets(states) @ np.random.default_rng(5).normal(size=(6, 8))


def test_targets_stand_in_their_order():
    a, b, c, d = 0.3, -2.0, 1.5, -7.0
    expected = [np.sin(a), np.sin(b), np.cos(a), np.cos(b), c, d]
    assert_allclose(targets(np.array([a, b, c, d])), expected)
    assert len(TARGETS) == 6


def test_angles_come_back_from_targets_of_any_turn():
    states = random_states(50)
    states[:, :2] += 2.0 * np.pi * RNG.integers(-3, 4, (50, 2))
    assert_allclose(angles_from_targets(targets(states)), wrap(states[:, :2]), atol=1e-9)


@pytest.mark.parametrize(
    ("angle", "wrapped"), [(0.0, 0.0), (3.5, 3.5 - 2 * np.pi), (-7.0, -7.0 + 2 * np.pi)]
)
def test_wrap_keeps_the_angle_and_bounds_it(angle, wrapped):
    assert_allclose(wrap(np.array(angle)), wrapped)


def test_linear_probe_reads_a_linear_mixture_and_not_a_folded_one():
    states, held = random_states(2000), random_states(500)
    open_score = score_probe(fit_linear_probe(mixed(states), states).predict(mixed(held)), held)
    squared = fit_linear_probe(mixed(states) ** 2, states).predict(mixed(held) ** 2)
    assert open_score["worst_r2"] > 0.999
    assert score_probe(squared, held)["worst_r2"] < 0.2


def folded(states):
    """A latent from which angles cannot be read linearly."""
    return np.concatenate([states[:, :2] / np.pi, states[:, 2:]], axis=1)


def test_mlp_probe_reads_what_a_linear_one_cannot():
    states, held = random_states(1500), random_states(1000)
    linear = fit_linear_probe(folded(states), states).predict(folded(held))
    probe = fit_mlp_probe(folded(states), states)
    assert score_probe(linear, held)["worst_r2"] < 0.1
    assert score_probe(probe.predict(folded(held)), held)["worst_r2"] > 0.95
    assert np.median(np.abs(wrap(probe.angles(folded(held)) - held[:, :2]))) < 0.1


def test_mlp_probe_repeats_itself_and_leaves_the_global_generator_alone():
    states = random_states(500)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (fit_mlp_probe(mixed(states), states, seed=1) for _ in range(2))
    other = fit_mlp_probe(mixed(states), states, seed=2)
    assert_array_equal(torch.get_rng_state(), before)
    assert_array_equal(first.predict(mixed(states)), second.predict(mixed(states)))
    assert not np.array_equal(first.predict(mixed(states)), other.predict(mixed(states)))


def test_mlp_probe_takes_any_leading_axes():
    states = random_states(600)
    probe, z = fit_mlp_probe(mixed(states), states), mixed(states)
    stacked = probe.angles(z.reshape(3, 200, 8))
    assert stacked.shape == (3, 200, 2)
    assert_allclose(stacked.reshape(600, 2), probe.angles(z), atol=1e-5)


def test_a_latent_dimension_that_never_moves_does_no_harm():
    states = random_states(500)
    dead = np.concatenate([mixed(states), np.full((500, 2), 0.7)], axis=1)
    assert np.isfinite(fit_mlp_probe(dead, states).predict(dead)).all()


def test_scores_are_in_the_units_of_the_targets():
    states = random_states(4000)
    off = targets(states)
    off[:, 4] += 0.5
    score = score_probe(off, states)
    variance = targets(states)[:, 4].var()
    assert_allclose(score["rmse"]["omega1"], 0.5)
    assert_allclose(score["r2"]["omega1"], 1.0 - 0.25 / variance)
    assert score["worst_r2"] == score["r2"]["omega1"]
    assert_allclose(score["rmse"]["omega2"], 0.0)
    assert_allclose(score["angle_rmse_rad"], 0.0, atol=1e-7)


def test_angle_error_is_the_turn_between_reading_and_truth():
    states = random_states(100)
    turned = states + np.array([0.2, -0.2, 0.0, 0.0])
    assert_allclose(score_probe(targets(turned), states)["angle_rmse_rad"], 0.2, rtol=1e-9)
