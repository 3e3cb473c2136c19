"""Forecasts with known errors, aligned with the truth to the frame."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from free_hands import FreeHands
from numpy.testing import assert_allclose, assert_array_equal
from tiny_model import DT, TinyModel, draw, simulate, write_buffer

from worldmodel.data import FrameStack, ReplayBuffer
from worldmodel.evaluation.forecast import (
    REPORTED_STEPS,
    ForecastEpisodes,
    angle_errors,
    angle_errors_by_step,
    frame_errors,
    frame_mse,
    latent_forecast,
    open_loop,
    psnr,
    reported_steps,
    wrap_angle,
)
from worldmodel.evaluation.probes import fit_linear_probe

FRAMES = 42
LAST = FRAMES - 2
READOUT = FreeHands().readout(4)


class ExactProbe:
    """A probe without error: the latent of the tiny model is linear in its targets."""

    def __init__(self, model):
        states, _ = simulate(400, 2, seed=99)
        z = model.encode(np.concatenate([draw(states[:, 0, :2]), draw(states[:, 1, :2])], -1))
        self.probe = fit_linear_probe(z.numpy(), READOUT.targets(states[:, 1]))

    def predict(self, latents):
        flat = self.probe.predict(latents.reshape(-1, latents.shape[-1]))
        return flat.reshape(*latents.shape[:-1], 7)


def heldout(path, seed=0, push=0.0, frames=FRAMES):
    states, actions = simulate(40, frames, seed, push=push)
    return write_buffer(path, states, actions, 20_000), states


def angles_of(model, buffer):
    episodes = ForecastEpisodes.of(model, buffer)
    return angle_errors_by_step(episodes, episodes.forecast(), ExactProbe(model), READOUT)


def frames_of(model, buffer):
    episodes = ForecastEpisodes.of(model, buffer)
    return frame_errors(episodes, episodes.forecast(), buffer)


def test_a_model_that_runs_ahead_has_exactly_its_lead_as_error(tmp_path):
    buffer, states = heldout(tmp_path)
    model = TinyModel(rate=1.1)
    errors = angles_of(model, buffer).forecast
    k = np.arange(LAST + 1)[:, None, None]
    lead = np.abs(wrap_angle(0.1 * states[None, :, 1, 2:] * k * DT))
    assert errors.shape == (LAST + 1, 40, 2)
    assert_allclose(errors, lead, atol=2e-2)


@pytest.mark.parametrize("push", [0.0, 0.5])
def test_a_perfect_model_is_exact_at_every_step_passive_and_driven(tmp_path, push):
    buffer, _ = heldout(tmp_path, push=push)
    model = TinyModel()
    assert angles_of(model, buffer).forecast.max() < 2e-2
    frames = frames_of(model, buffer)
    assert min(psnr(mse) for mse in frames.mse.values()) > psnr(frames.mse_persistence[5]) + 3
    assert min(v.mean() for v in frames.ssim.values()) > frames.ssim_persistence[5].mean() + 0.1
    episodes = ForecastEpisodes.of(model, buffer)
    latent = latent_forecast(episodes, episodes.forecast())
    assert max(latent.error.values()) < 1e-3 < latent.persistence["5"]


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_shift_by_one_frame_or_one_action_would_be_noticed(tmp_path, shift):
    buffer, _ = heldout(tmp_path, push=0.5)
    model = TinyModel()
    windows = buffer.windows(np.arange(40), np.zeros(40, int), FRAMES)

    def forecast(actions):
        latents = open_loop(model, windows.frames, actions).numpy()
        return READOUT.angles(ExactProbe(model).predict(latents))

    angles = forecast(windows.actions)
    true = buffer.states(np.arange(40), np.ones(40, int), LAST + 1)[..., :2].swapaxes(0, 1)
    late = angle_errors(angles, np.roll(true, shift, axis=0))[2:-2]
    assert np.median(late) > 0.05
    other = forecast(np.roll(windows.actions, shift, axis=1))
    assert np.median(angle_errors(other, true)[5]) > 0.02
    assert angle_errors(angles, true).max() < 2e-2


def test_a_forecast_uses_the_first_observation_only(tmp_path):
    buffer, _ = heldout(tmp_path)
    model = TinyModel()
    windows = buffer.windows(np.arange(40), np.zeros(40, int), FRAMES)
    black = windows.frames.copy()
    black[:, 2:] = 0
    assert_array_equal(
        open_loop(model, windows.frames, windows.actions), open_loop(model, black, windows.actions)
    )


def test_persistence_keeps_the_true_angles_and_the_true_frame_of_step_zero(tmp_path):
    buffer, states = heldout(tmp_path)
    model = TinyModel()
    moved = wrap_angle(states[:, 1:, :2] - states[:, 1:2, :2]).swapaxes(0, 1)
    assert_allclose(angles_of(model, buffer).persistence, np.abs(moved), atol=1e-9)
    errors = frames_of(model, buffer)
    frames = draw(states[..., :2])
    assert_allclose(errors.mse_persistence[20], frame_mse(frames[:, 1], frames[:, 21]))
    assert not errors.mse_persistence[0].any()


def test_constant_velocity_is_exact_without_forces(tmp_path):
    free, _ = heldout(tmp_path / "free")
    assert angles_of(TinyModel(), free).constant_velocity.max() < 1e-9
    pushed, states = heldout(tmp_path / "pushed", push=0.5)
    ahead = states[:, 1, :2] + 7 * (states[:, 1, :2] - states[:, 0, :2])
    expected = np.abs(wrap_angle(ahead - states[:, 8, :2]))
    assert_allclose(angles_of(TinyModel(), pushed).constant_velocity[7], expected, atol=1e-9)


def test_an_observation_of_one_frame_has_no_velocity_to_extrapolate(tmp_path):
    class OneFrame(TinyModel):
        frames = FrameStack(1)

        def encode(self, obs):
            return super().encode(np.concatenate([obs, obs], axis=-1))

    buffer, _ = heldout(tmp_path)
    assert angles_of(OneFrame(), buffer).constant_velocity is None


def test_latent_error_of_a_known_lead_is_relative_to_the_variance(tmp_path):
    buffer, _ = heldout(tmp_path)
    model = TinyModel(rate=1.5)
    episodes = ForecastEpisodes.of(model, buffer)
    latents = episodes.forecast()
    every, k = np.arange(40), 10
    windows = buffer.windows(every, np.full(40, k), 2).frames
    true = model.encode(np.concatenate([windows[:, 0], windows[:, 1]], -1)).numpy()
    reported = latent_forecast(episodes, latents).error
    distance = ((latents[k].numpy() - true) ** 2).sum(axis=1).mean()
    assert reported["0"] == 0.0
    assert reported["10"] * 0.5 < distance / true.var(axis=0).sum() < reported["10"] * 2.0


class GrayModel(TinyModel):
    """Decodes everything to an oldest frame of 0 and a newest frame of 100."""

    def decode(self, z):
        stack = np.zeros((len(z), 4, 6, 2), np.uint8)
        stack[..., 1] = 100
        return torch.as_tensor(stack)


def test_the_newest_decoded_frame_is_compared_with_the_true_frame_of_the_same_step(tmp_path):
    buffer, states = heldout(tmp_path)
    errors = frames_of(GrayModel(), buffer)
    gray = np.full((40, 4, 6, 1), 100, np.uint8)
    for k in (0, 5, 20, LAST):
        true = draw(states[:, 1 + k, :2])
        assert_allclose(errors.mse[k], frame_mse(gray, true))
    assert list(errors.mse) == [step for step in REPORTED_STEPS if step <= LAST]


def test_steps_end_with_the_median_episode_and_shorter_ones_are_left_out(tmp_path):
    buffer, _ = heldout(tmp_path, frames=26)
    lengths = np.array([3] * 9 + [13] * 20 + [26] * 11)
    cut = buffer.select(np.arange(40), np.zeros(40, int), lengths)
    model = TinyModel()
    assert angles_of(model, cut).forecast.shape[:2] == (12, 31)
    assert list(frames_of(model, cut).mse) == [0, 5, 10]


def test_forecasts_use_the_actions_that_are_given(tmp_path):
    buffer, states = heldout(tmp_path, push=0.5)
    episodes = ForecastEpisodes.of(TinyModel(), buffer)
    recorded = episodes.actions()
    assert recorded.shape == (40, LAST, 2)
    assert_allclose(states[:, 1:-1, 2:] + recorded, states[:, 2:, 2:], atol=1e-6)
    assert_array_equal(episodes.forecast(), episodes.forecast(recorded))
    other = episodes.forecast(-recorded)
    assert not np.allclose(other[-1], episodes.forecast()[-1], atol=0.1)


def test_windows_without_a_step_are_rejected():
    frames, actions = draw(np.zeros((3, 2, 2))), np.zeros((3, 1, 2), np.float32)
    with pytest.raises(ValueError, match="needs at least 3"):
        open_loop(TinyModel(), frames, actions)


def test_episodes_without_a_step_are_rejected(tmp_path):
    buffer, _ = heldout(tmp_path, frames=2)
    with pytest.raises(ValueError, match="longest of 40 episodes has 2 frames"):
        ForecastEpisodes.of(TinyModel(), buffer)


def test_an_episode_without_a_step_is_left_out(tmp_path):
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
        episodes = ForecastEpisodes.of(TinyModel(), buffer)
        assert episodes.forecast().shape == (19, 10, 8)
        assert_array_equal(episodes.states()[1], states[2, 1:])
        assert_array_equal(episodes.states(-1)[1], states[2])
        assert_array_equal(episodes.frames(3)[1], draw(states[2, 4, :2]))


def test_a_diverged_forecast_counts_as_half_a_turn():
    assert_array_equal(angle_errors(np.array([np.nan, 0.5]), np.zeros(2)), [np.pi, 0.5])


def test_errors_are_taken_the_shorter_way_round():
    assert_allclose(angle_errors(np.array(3.0), np.array(-3.0)), 2.0 * np.pi - 6.0)


@pytest.mark.parametrize(
    ("angle", "wrapped"), [(0.0, 0.0), (3.5, 3.5 - 2 * np.pi), (-7.0, -7.0 + 2 * np.pi)]
)
def test_wrapping_keeps_the_angle_and_bounds_it(angle, wrapped):
    assert_allclose(wrap_angle(np.array(angle)), wrapped)


@pytest.mark.parametrize(
    ("last", "steps"),
    [
        (0, [0]),
        (1, [0, 1]),
        (4, [0, 1, 2, 3, 4]),
        (9, [0, 1, 2, 3, 5, 9]),
        (37, [0, 5, 10, 20, 30]),
    ],
)
def test_short_episodes_are_reported_at_more_of_the_first_steps(last, steps):
    assert reported_steps(last) == steps
