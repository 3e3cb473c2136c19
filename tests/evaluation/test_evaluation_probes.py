"""Probes read what is in a latent, no more, and say so in the right units."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import r2_score

from worldmodel.evaluation import choose_readout, pendulum_task, scores
from worldmodel.evaluation.probe_file import load_probe, save_probe
from worldmodel.evaluation.probes import fit_linear_probe, fit_mlp_probe
from worldmodel.evaluation.statistics import resample
from worldmodel.evaluation.targets import TARGETS, angles_from_targets, targets, wrap
from worldmodel.run import RunError

RNG = np.random.default_rng(0)
TASK = pendulum_task("DoublePendulum-v0")
READOUT = choose_readout(TASK, 4)


def read(states):
    return READOUT.of(states)


def score_probe(predicted, states):
    episodes = np.arange(len(states)) // 10
    return scores.score_probe(READOUT, predicted, states, episodes)


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
    open_score = score_probe(
        fit_linear_probe(mixed(states), read(states)).predict(mixed(held)), held
    )
    squared = fit_linear_probe(mixed(states) ** 2, read(states)).predict(mixed(held) ** 2)
    assert open_score["worst_r2"] > 0.999
    assert score_probe(squared, held)["worst_r2"] < 0.2


def folded(states):
    """A latent from which angles cannot be read linearly."""
    return np.concatenate([states[:, :2] / np.pi, states[:, 2:]], axis=1)


def test_mlp_probe_reads_what_a_linear_one_cannot():
    states, held = random_states(1500), random_states(1000)
    linear = fit_linear_probe(folded(states), read(states)).predict(folded(held))
    probe = fit_mlp_probe(folded(states), read(states))
    assert score_probe(linear, held)["worst_r2"] < 0.1
    assert score_probe(probe.predict(folded(held)), held)["worst_r2"] > 0.95
    assert np.median(np.abs(wrap(probe.angles(folded(held)) - held[:, :2]))) < 0.1


def test_mlp_probe_repeats_itself_and_leaves_the_global_generator_alone():
    states = random_states(500)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (fit_mlp_probe(mixed(states), read(states), seed=1) for _ in range(2))
    other = fit_mlp_probe(mixed(states), read(states), seed=2)
    assert_array_equal(torch.get_rng_state(), before)
    assert_array_equal(first.predict(mixed(states)), second.predict(mixed(states)))
    assert not np.array_equal(first.predict(mixed(states)), other.predict(mixed(states)))


def test_mlp_probe_takes_any_leading_axes():
    states = random_states(600)
    probe, z = fit_mlp_probe(mixed(states), read(states)), mixed(states)
    stacked = probe.angles(z.reshape(3, 200, 8))
    assert stacked.shape == (3, 200, 2)
    assert_allclose(stacked.reshape(600, 2), probe.angles(z), atol=1e-5)


def test_a_latent_dimension_that_never_moves_does_no_harm():
    states = random_states(500)
    dead = np.concatenate([mixed(states), np.full((500, 2), 0.7)], axis=1)
    assert np.isfinite(fit_mlp_probe(dead, read(states)).predict(dead)).all()


def test_scores_are_in_the_units_of_the_targets():
    states = random_states(4000)
    off = read(states)
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
    assert_allclose(score_probe(read(turned), states)["angle_rmse_rad"], 0.2, rtol=1e-9)


def test_a_pendulum_is_read_with_its_energy_which_does_not_decide_the_worst():
    states = random_states(200)
    assert READOUT.names == (*TARGETS, "energy")
    assert_allclose(read(states)[:, -1], TASK.energy(states))
    assert_allclose(read(states.reshape(20, 10, 4))[3, 7], read(states)[37])
    off = read(states)
    off[:, -1] = 0.0
    score = score_probe(off, states)
    assert score["worst_r2"] == 1.0
    assert score["r2"]["energy"] < 0.5


def test_another_state_is_read_number_by_number_and_holds_no_angles():
    readout = choose_readout(None, 3)
    states = RNG.normal(size=(60, 3))
    score = scores.score_probe(readout, states + 0.1, states, np.arange(60) // 6)
    assert readout.names == ("state_0", "state_1", "state_2")
    assert_allclose(score["rmse"]["state_1"], 0.1)
    assert "angle_rmse_rad" not in score


def test_r2_is_that_of_scikit_learn_and_its_interval_that_of_drawn_episodes():
    states, episodes = random_states(400), np.arange(400) // 10
    noise = RNG.normal(0.0, 1.0, (400, 7)) * (1.0 + (episodes % 3 == 0))[:, None]
    predicted = read(states) + noise
    score = scores.score_probe(READOUT, predicted, states, episodes)
    assert_allclose(
        list(score["r2"].values()), r2_score(read(states), predicted, multioutput="raw_values")
    )
    worst = []
    for drawn in resample(40):
        rows = (drawn[:, None] * 10 + np.arange(10)).ravel()
        r2 = r2_score(read(states)[rows], predicted[rows], multioutput="raw_values")
        worst.append(r2[:6].min())
    assert_allclose(score["worst_r2_interval"], np.percentile(worst, [2.5, 97.5]))


def test_a_target_that_never_changes_scores_nothing():
    states = np.ones((40, 2))
    score = scores.score_probe(choose_readout(None, 2), states, states, np.arange(40) // 4)
    assert score["worst_r2"] == 0.0


def test_a_latent_that_ran_away_reads_as_nan_and_spoils_no_other():
    states = random_states(300)
    probe = fit_mlp_probe(mixed(states), targets(states))
    latents = mixed(states[:3])
    clean = probe.predict(latents)
    latents[1, 2] = np.inf
    read_out = probe.predict(latents)
    assert np.isnan(read_out[1]).all()
    assert_array_equal(read_out[[0, 2]], clean[[0, 2]])


def test_a_kept_probe_reads_the_same_and_a_damaged_one_is_told(tmp_path):
    states = random_states(300)
    probe = fit_mlp_probe(mixed(states), targets(states))
    assert load_probe(tmp_path) is None
    (tmp_path / "models").mkdir()
    save_probe(tmp_path, probe)
    latents = mixed(states[:3])
    assert_array_equal(load_probe(tmp_path).predict(latents), probe.predict(latents))
    torch.save({"net": {}}, tmp_path / "models" / "probe.pt")
    with pytest.raises(RunError, match=r"probe\.pt is damaged.*evaluate .* writes it anew"):
        load_probe(tmp_path)
