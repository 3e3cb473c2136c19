"""Forecast errors that are known, in step with the truth to the frame."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tiny_model import DT, TinyModel, draw, simulate, write_buffer

from worldmodel.evaluation.forecast import (
    STEPS,
    angle_errors,
    angle_report,
    forecast_errors,
    horizon,
    median_by_step,
    open_loop,
)
from worldmodel.evaluation.probes import angles_from_targets, fit_linear_probe, wrap
from worldmodel.evaluation.psnr import frame_mse, psnr

FRAMES = 42
LAST = FRAMES - 2


class LinearAngles:
    """A probe without error: the latent of the tiny model is linear in the targets."""

    def __init__(self, model):
        states, _ = simulate(400, 2, seed=99)
        z = model.encode(np.concatenate([draw(states[:, 0, :2]), draw(states[:, 1, :2])], -1))
        self.probe = fit_linear_probe(z.numpy(), states[:, 1])

    def angles(self, latents):
        flat = self.probe.predict(latents.reshape(-1, latents.shape[-1]))
        return angles_from_targets(flat).reshape(*latents.shape[:-1], 2)


def heldout(path, seed=0, push=0.0, frames=FRAMES):
    states, actions = simulate(40, frames, seed, push=push)
    return write_buffer(path, states, actions, 20_000), states


def test_a_model_that_runs_ahead_is_off_by_exactly_its_lead(tmp_path):
    buffer, states = heldout(tmp_path)
    model = TinyModel(rate=1.1)
    errors = forecast_errors(model, buffer, LinearAngles(model)).angle
    k = np.arange(LAST + 1)[:, None, None]
    lead = np.abs(wrap(0.1 * states[None, :, 1, 2:] * k * DT))
    assert errors.shape == (LAST + 1, 40, 2)
    assert_allclose(errors, lead, atol=2e-2)


@pytest.mark.parametrize("push", [0.0, 0.5])
def test_a_perfect_model_is_exact_at_every_step_passive_and_driven(tmp_path, push):
    buffer, _ = heldout(tmp_path, push=push)
    model = TinyModel()
    errors = forecast_errors(model, buffer, LinearAngles(model))
    assert errors.angle.max() < 2e-2
    assert min(psnr(mse) for mse in errors.mse.values()) > psnr(errors.mse_persistence[5]) + 3


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_shift_by_one_frame_or_one_action_would_show(tmp_path, shift):
    buffer, _ = heldout(tmp_path, push=0.5)
    model = TinyModel()
    windows = buffer.windows(np.arange(40), np.zeros(40, int), FRAMES)
    angles = LinearAngles(model).angles(open_loop(model, windows.frames, windows.actions).numpy())
    true = buffer.states(np.arange(40), np.ones(40, int), LAST + 1)[..., :2].swapaxes(0, 1)
    late = angle_errors(angles, np.roll(true, shift, axis=0))[2:-2]
    assert np.median(late) > 0.05
    wrong_actions = np.roll(windows.actions, shift, axis=1)
    other = LinearAngles(model).angles(open_loop(model, windows.frames, wrong_actions).numpy())
    assert np.median(angle_errors(other, true)[5]) > 0.02
    assert angle_errors(angles, true).max() < 2e-2


def test_only_the_first_observation_is_looked_at(tmp_path):
    buffer, _ = heldout(tmp_path)
    model = TinyModel()
    windows = buffer.windows(np.arange(40), np.zeros(40, int), FRAMES)
    blind = windows.frames.copy()
    blind[:, 2:] = 0
    assert_array_equal(
        open_loop(model, windows.frames, windows.actions), open_loop(model, blind, windows.actions)
    )


def test_persistence_holds_the_true_angles_and_the_true_frame_of_step_zero(tmp_path):
    buffer, states = heldout(tmp_path)
    model = TinyModel()
    errors = forecast_errors(model, buffer, LinearAngles(model))
    moved = wrap(states[:, 1:, :2] - states[:, 1:2, :2]).swapaxes(0, 1)
    assert_allclose(errors.angle_persistence, np.abs(moved), atol=1e-9)
    frames = draw(states[..., :2])
    assert_allclose(errors.mse_persistence[20], frame_mse(frames[:, 1], frames[:, 21]))
    assert not errors.mse_persistence[0].any()


class GreyDreams(TinyModel):
    """Decodes everything to an oldest frame of 0 and a newest frame of 100."""

    def decode(self, z):
        stack = np.zeros((len(z), 4, 6, 2), np.uint8)
        stack[..., 1] = 100
        return torch.as_tensor(stack)


def test_decoded_newest_frame_is_held_to_the_true_frame_of_the_same_step(tmp_path):
    buffer, states = heldout(tmp_path)
    errors = forecast_errors(GreyDreams(), buffer, None)
    grey = np.full((40, 4, 6, 1), 100, np.uint8)
    for k in (0, 5, 20, LAST):
        true = draw(states[:, 1 + k, :2])
        assert_allclose(errors.mse[k], frame_mse(grey, true))
    assert errors.angle is None
    assert list(errors.mse) == [step for step in STEPS if step <= LAST]


def test_reported_steps_end_with_the_shortest_episode(tmp_path):
    buffer, _ = heldout(tmp_path, frames=13)
    model = TinyModel(decodes=False)
    errors = forecast_errors(model, buffer, LinearAngles(model))
    assert list(angle_report(errors.angle, DT)["error"]) == ["0", "5", "10"]
    assert errors.mse is None


def test_an_episode_without_a_step_is_refused():
    frames, actions = draw(np.zeros((3, 2, 2))), np.zeros((3, 1, 2), np.float32)
    with pytest.raises(ValueError, match="needs at least 3"):
        open_loop(TinyModel(), frames, actions)


def test_a_forecast_that_diverged_counts_as_half_a_turn():
    assert_array_equal(angle_errors(np.array([np.nan, 0.5]), np.zeros(2)), [np.pi, 0.5])


def test_errors_are_the_shorter_way_round():
    assert_allclose(angle_errors(np.array(3.0), np.array(-3.0)), 2.0 * np.pi - 6.0)


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
        "seconds": pytest.approx(0.35),
        "threshold_rad": 0.3,
        "lower_bound": True,
    }
    angle[5] = 1.0
    report = angle_report(angle, 0.05)
    assert report["horizon"]["steps"] == 4
    assert not report["horizon"]["lower_bound"]
    assert report["error"] == {"0": pytest.approx(0.1), "5": pytest.approx(1.0)}


def test_psnr_matches_a_formula_in_unit_range():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 5, 8, 6, 3), dtype=np.uint8)
    mse = np.mean((a / 255.0 - b / 255.0) ** 2)
    assert_allclose(psnr(frame_mse(a, b)), -10.0 * np.log10(mse), rtol=1e-6)
    assert psnr(frame_mse(a, a)) == float("inf")
    one_off = a.copy()
    one_off[0, 0, 0, 0] ^= 255
    assert frame_mse(a, one_off)[1:].sum() == 0.0 < frame_mse(a, one_off)[0]
