"""Forecast errors that are known, in step with the truth to the frame."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tiny_model import DT, TinyModel, draw, simulate, write_buffer

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.forecast import (
    STEPS,
    angle_errors,
    angle_errors_by_step,
    forecast_latents,
    frame_errors,
    latent_errors,
    open_loop,
    recorded_actions,
    true_states,
)
from worldmodel.evaluation.images import frame_mse, psnr
from worldmodel.evaluation.probes import fit_linear_probe
from worldmodel.evaluation.targets import angles_from_targets, targets, wrap

FRAMES = 42
LAST = FRAMES - 2


class LinearAngles:
    """A probe without error: the latent of the tiny model is linear in the targets."""

    def __init__(self, model):
        states, _ = simulate(400, 2, seed=99)
        z = model.encode(np.concatenate([draw(states[:, 0, :2]), draw(states[:, 1, :2])], -1))
        self.probe = fit_linear_probe(z.numpy(), targets(states[:, 1]))

    def angles(self, latents):
        flat = self.probe.predict(latents.reshape(-1, latents.shape[-1]))
        return angles_from_targets(flat).reshape(*latents.shape[:-1], 2)


def heldout(path, seed=0, push=0.0, frames=FRAMES):
    states, actions = simulate(40, frames, seed, push=push)
    return write_buffer(path, states, actions, 20_000), states


def angles_of(model, buffer):
    return angle_errors_by_step(model, buffer, forecast_latents(model, buffer), LinearAngles(model))


def test_a_model_that_runs_ahead_is_off_by_exactly_its_lead(tmp_path):
    buffer, states = heldout(tmp_path)
    model = TinyModel(rate=1.1)
    errors = angles_of(model, buffer).forecast
    k = np.arange(LAST + 1)[:, None, None]
    lead = np.abs(wrap(0.1 * states[None, :, 1, 2:] * k * DT))
    assert errors.shape == (LAST + 1, 40, 2)
    assert_allclose(errors, lead, atol=2e-2)


@pytest.mark.parametrize("push", [0.0, 0.5])
def test_a_perfect_model_is_exact_at_every_step_passive_and_driven(tmp_path, push):
    buffer, _ = heldout(tmp_path, push=push)
    model = TinyModel()
    assert angles_of(model, buffer).forecast.max() < 2e-2
    frames = frame_errors(model, buffer, forecast_latents(model, buffer))
    assert min(psnr(mse) for mse in frames.mse.values()) > psnr(frames.mse_persistence[5]) + 3
    assert min(v.mean() for v in frames.ssim.values()) > frames.ssim_persistence[5].mean() + 0.1
    latent = latent_errors(model, buffer, forecast_latents(model, buffer))
    assert max(latent["error"].values()) < 1e-3 < latent["persistence"]["5"]


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
    moved = wrap(states[:, 1:, :2] - states[:, 1:2, :2]).swapaxes(0, 1)
    assert_allclose(angles_of(model, buffer).persistence, np.abs(moved), atol=1e-9)
    errors = frame_errors(model, buffer, forecast_latents(model, buffer))
    frames = draw(states[..., :2])
    assert_allclose(errors.mse_persistence[20], frame_mse(frames[:, 1], frames[:, 21]))
    assert not errors.mse_persistence[0].any()


def test_constant_velocity_is_exact_on_hands_that_nobody_pushes(tmp_path):
    free, _ = heldout(tmp_path / "free")
    assert angles_of(TinyModel(), free).constant_velocity.max() < 1e-9
    pushed, states = heldout(tmp_path / "pushed", push=0.5)
    ahead = states[:, 1, :2] + 7 * (states[:, 1, :2] - states[:, 0, :2])
    expected = np.abs(wrap(ahead - states[:, 8, :2]))
    assert_allclose(angles_of(TinyModel(), pushed).constant_velocity[7], expected, atol=1e-9)


def test_one_frame_shows_no_velocity_to_extrapolate(tmp_path):
    class OneFrame(TinyModel):
        frame_stack = 1

        def encode(self, obs):
            return super().encode(np.concatenate([obs, obs], axis=-1))

    buffer, _ = heldout(tmp_path)
    assert angles_of(OneFrame(), buffer).constant_velocity is None


def test_latent_error_of_a_known_lead_is_a_share_of_the_variance(tmp_path):
    buffer, _ = heldout(tmp_path)
    model = TinyModel(rate=1.5)
    latents = forecast_latents(model, buffer)
    every, k = np.arange(40), 10
    windows = buffer.windows(every, np.full(40, k), 2).frames
    true = model.encode(np.concatenate([windows[:, 0], windows[:, 1]], -1)).numpy()
    reported = latent_errors(model, buffer, latents)["error"]
    distance = ((latents[k].numpy() - true) ** 2).sum(axis=1).mean()
    assert reported["0"] == 0.0
    assert reported["10"] * 0.5 < distance / true.var(axis=0).sum() < reported["10"] * 2.0


class GreyDreams(TinyModel):
    """Decodes everything to an oldest frame of 0 and a newest frame of 100."""

    def decode(self, z):
        stack = np.zeros((len(z), 4, 6, 2), np.uint8)
        stack[..., 1] = 100
        return torch.as_tensor(stack)


def test_decoded_newest_frame_is_held_to_the_true_frame_of_the_same_step(tmp_path):
    buffer, states = heldout(tmp_path)
    errors = frame_errors(GreyDreams(), buffer, forecast_latents(GreyDreams(), buffer))
    grey = np.full((40, 4, 6, 1), 100, np.uint8)
    for k in (0, 5, 20, LAST):
        true = draw(states[:, 1 + k, :2])
        assert_allclose(errors.mse[k], frame_mse(grey, true))
    assert list(errors.mse) == [step for step in STEPS if step <= LAST]


def test_steps_end_with_the_shortest_episode(tmp_path):
    buffer, _ = heldout(tmp_path, frames=13)
    model = TinyModel()
    assert len(angles_of(model, buffer).forecast) == 12
    assert list(frame_errors(model, buffer, forecast_latents(model, buffer)).mse) == [0, 5, 10]


def test_forecasts_go_under_the_actions_that_are_given(tmp_path):
    buffer, states = heldout(tmp_path, push=0.5)
    model = TinyModel()
    recorded = recorded_actions(model, buffer)
    assert recorded.shape == (40, LAST, 2)
    assert_allclose(states[:, 1:-1, 2:] + recorded, states[:, 2:, 2:], atol=1e-6)
    assert_array_equal(forecast_latents(model, buffer), forecast_latents(model, buffer, recorded))
    other = forecast_latents(model, buffer, -recorded)
    assert not np.allclose(other[-1], forecast_latents(model, buffer)[-1], atol=0.1)


def test_an_episode_without_a_step_is_refused():
    frames, actions = draw(np.zeros((3, 2, 2))), np.zeros((3, 1, 2), np.float32)
    with pytest.raises(ValueError, match="needs at least 3"):
        open_loop(TinyModel(), frames, actions)


def test_episodes_without_a_step_are_refused(tmp_path):
    buffer, _ = heldout(tmp_path, frames=2)
    with pytest.raises(ValueError, match="longest of 40 episodes has 2 frames"):
        forecast_latents(TinyModel(), buffer)


def test_an_episode_without_a_step_is_left_out_of_the_others(tmp_path):
    states, actions = simulate(12, 20, 3)
    space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    with ReplayBuffer.create(
        tmp_path / "b", frame_shape=(4, 6, 1), action_space=space, state_dim=4, metadata={}
    ) as buffer:
        for i, length in enumerate([20, 2, 20, 2, *[20] * 8]):
            state, action = states[i, :length], actions[i, : length - 1]
            frames = draw(state[:, :2])
            buffer.add_episode(frames, action, np.zeros(length - 1), False, states=state, seed=i)
    with ReplayBuffer.open(tmp_path / "b") as buffer:
        assert forecast_latents(TinyModel(), buffer).shape == (19, 10, 8)
        assert_array_equal(true_states(TinyModel(), buffer)[1], states[2, 1:])


def test_a_forecast_that_diverged_counts_as_half_a_turn():
    assert_array_equal(angle_errors(np.array([np.nan, 0.5]), np.zeros(2)), [np.pi, 0.5])


def test_errors_are_the_shorter_way_round():
    assert_allclose(angle_errors(np.array(3.0), np.array(-3.0)), 2.0 * np.pi - 6.0)
