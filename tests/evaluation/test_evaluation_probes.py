"""Probes and their scores, in the units of the targets."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import r2_score

from worldmodel.evaluation import scores
from worldmodel.evaluation.forecast import wrap_angle
from worldmodel.evaluation.intervals import Bootstrap
from worldmodel.evaluation.probes import MLPProbe, fit_linear_probe, fit_mlp_probe
from worldmodel.evaluation_config import Probe
from worldmodel.pendulum import angle_targets
from worldmodel.plugins import StateReadout, find_plugin

RNG = np.random.default_rng(0)
READOUT = find_plugin("DoublePendulum-v0").readout(4)
read = READOUT.targets


def score_probe(predicted, states):
    episodes = np.arange(len(states)) // 10
    return scores.score_probe(READOUT, predicted, states, episodes)


def angles_read(probe, latents):
    return READOUT.angles(probe.predict(latents))


def random_states(count):
    theta = RNG.uniform(-np.pi, np.pi, (count, 2))
    return np.concatenate([theta, RNG.normal(0.0, 4.0, (count, 2))], axis=1)


def mixed(states):
    """A latent that is a linear mixture of the targets."""
    return angle_targets(states) @ np.random.default_rng(5).normal(size=(6, 8))


def test_the_linear_probe_reads_a_linear_mixture_and_not_its_square():
    states, held = random_states(2000), random_states(500)
    linear = score_probe(fit_linear_probe(mixed(states), read(states)).predict(mixed(held)), held)
    squared = fit_linear_probe(mixed(states) ** 2, read(states)).predict(mixed(held) ** 2)
    assert linear.worst_r2 > 0.999
    assert score_probe(squared, held).worst_r2 < 0.2


def folded(states):
    """A latent from which angles cannot be read linearly."""
    return np.concatenate([states[:, :2] / np.pi, states[:, 2:]], axis=1)


def test_the_mlp_probe_reads_what_a_linear_one_cannot():
    states, held = random_states(1500), random_states(1000)
    linear = fit_linear_probe(folded(states), read(states)).predict(folded(held))
    probe = fit_mlp_probe(folded(states), read(states))
    assert score_probe(linear, held).worst_r2 < 0.1
    assert score_probe(probe.predict(folded(held)), held).worst_r2 > 0.95
    assert np.median(np.abs(wrap_angle(angles_read(probe, folded(held)) - held[:, :2]))) < 0.1


def test_the_mlp_probe_is_reproducible_and_leaves_the_global_generator_alone():
    states = random_states(500)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (fit_mlp_probe(mixed(states), read(states), seed=1) for _ in range(2))
    other = fit_mlp_probe(mixed(states), read(states), seed=2)
    assert_array_equal(torch.get_rng_state(), before)
    assert_array_equal(first.predict(mixed(states)), second.predict(mixed(states)))
    assert not np.array_equal(first.predict(mixed(states)), other.predict(mixed(states)))


def test_the_mlp_probe_takes_any_leading_axes():
    states = random_states(600)
    probe, z = fit_mlp_probe(mixed(states), read(states)), mixed(states)
    stacked = angles_read(probe, z.reshape(3, 200, 8))
    assert stacked.shape == (3, 200, 2)
    assert_allclose(stacked.reshape(600, 2), angles_read(probe, z), atol=1e-5)


def test_a_constant_latent_dimension_gives_finite_predictions():
    states = random_states(500)
    dead = np.concatenate([mixed(states), np.full((500, 2), 0.7)], axis=1)
    assert np.isfinite(fit_mlp_probe(dead, read(states)).predict(dead)).all()


def test_scores_are_in_the_units_of_the_targets():
    states = random_states(4000)
    off = read(states)
    off[:, 4] += 0.5
    score = score_probe(off, states)
    variance = angle_targets(states)[:, 4].var()
    assert_allclose(score.rmse["omega1"], 0.5)
    assert_allclose(score.r2["omega1"], 1.0 - 0.25 / variance)
    assert score.worst_r2 == score.r2["omega1"]
    assert_allclose(score.rmse["omega2"], 0.0)
    assert_allclose(score.angle_rmse_rad, 0.0, atol=1e-7)


def test_the_angle_error_is_the_angle_between_prediction_and_truth():
    states = random_states(100)
    turned = states + np.array([0.2, -0.2, 0.0, 0.0])
    assert_allclose(score_probe(read(turned), states).angle_rmse_rad, 0.2, rtol=1e-9)


def test_the_energy_does_not_count_for_the_worst_score():
    states = random_states(200)
    off = read(states)
    off[:, -1] = 0.0
    score = score_probe(off, states)
    assert score.worst_r2 == 1.0
    assert score.r2["energy"] < 0.5
    assert score.worst_r2_interval == (1.0, 1.0)


def test_the_state_readout_reads_number_by_number_and_has_no_angles():
    readout = StateReadout(3)
    states = RNG.normal(size=(60, 3))
    score = scores.score_probe(readout, states + 0.1, states, np.arange(60) // 6)
    assert readout.names == ("state_0", "state_1", "state_2")
    assert_allclose(score.rmse["state_1"], 0.1)
    assert score.angle_rmse_rad is None


def test_r2_is_that_of_scikit_learn_and_its_interval_is_over_resampled_episodes():
    states, episodes = random_states(400), np.arange(400) // 10
    noise = RNG.normal(0.0, 1.0, (400, 7)) * (1.0 + (episodes % 3 == 0))[:, None]
    predicted = read(states) + noise
    score = scores.score_probe(READOUT, predicted, states, episodes)
    assert_allclose(
        list(score.r2.values()), r2_score(read(states), predicted, multioutput="raw_values")
    )
    worst = []
    for drawn in Bootstrap().draw(40):
        rows = (drawn[:, None] * 10 + np.arange(10)).ravel()
        r2 = r2_score(read(states)[rows], predicted[rows], multioutput="raw_values")
        worst.append(r2[:6].min())
    assert_allclose(score.worst_r2_interval, np.percentile(worst, [2.5, 97.5]))


def test_a_constant_target_scores_zero():
    states = np.ones((40, 2))
    score = scores.score_probe(StateReadout(2), states, states, np.arange(40) // 4)
    assert score.worst_r2 == 0.0


def test_a_diverged_latent_reads_as_nan_and_affects_no_other():
    states = random_states(300)
    probe = fit_mlp_probe(mixed(states), angle_targets(states))
    latents = mixed(states[:3])
    clean = probe.predict(latents)
    latents[1, 2] = np.inf
    read_out = probe.predict(latents)
    assert np.isnan(read_out[1]).all()
    assert_array_equal(read_out[[0, 2]], clean[[0, 2]])


def test_a_probe_survives_saving():
    states = random_states(300)
    probe = fit_mlp_probe(mixed(states), angle_targets(states), Probe(width=24, updates=20))
    latents = mixed(states[:3])
    saved = MLPProbe.from_state(probe.state())
    assert saved.net[0].out_features == 24
    assert_array_equal(saved.predict(latents), probe.predict(latents))
    with pytest.raises(KeyError):
        MLPProbe.from_state({"net": {}})


def test_hyperparameters_of_the_mlp_probe_change_it():
    states = random_states(300)
    z, targets = mixed(states), read(states)
    default = fit_mlp_probe(z, targets, Probe(updates=20)).predict(z)
    for change in (
        {"updates": 21},
        {"max_epochs": 5},
        {"batch_size": 256},
        {"learning_rate": 1e-3},
        {"weight_decay": 0.9},
        {"width": 64},
    ):
        changed = fit_mlp_probe(z, targets, Probe(**{"updates": 20} | change)).predict(z)
        assert not np.array_equal(changed, default)
