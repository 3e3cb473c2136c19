"""Checks of the dynamics: the effect of actions, the drift of the energy, and both heads."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from free_hands import FreeHands
from numpy.testing import assert_allclose
from scipy.stats import spearmanr
from tiny_model import DT, TinyModel, draw, simulate, write_buffer

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation import dynamics
from worldmodel.evaluation.dynamics import (
    action_metrics,
    energy_metrics,
    has_several_actions,
    has_several_outcomes,
    head_metrics,
    return_metrics,
)
from worldmodel.evaluation.intervals import Bootstrap
from worldmodel.evaluation.probes import fit_linear_probe
from worldmodel.latents import LatentEpisodes, encode_at

MODEL = TinyModel()
READOUT = FreeHands().readout(4)


class ExactProbe:
    """The latent of the tiny model is linear in angles and velocities."""

    def __init__(self):
        states, _ = simulate(400, 2, seed=99)
        z = MODEL.encode(np.concatenate([draw(states[:, 0, :2]), draw(states[:, 1, :2])], -1))
        self.probe = fit_linear_probe(z.numpy(), READOUT.targets(states[:, 1]))

    def predict(self, latents):
        flat = self.probe.predict(latents.reshape(-1, latents.shape[-1]))
        return flat.reshape(*latents.shape[:-1], 7)


PROBE = ExactProbe()


def measure_actions(model, driven, probe=PROBE):
    return action_metrics(model, driven, READOUT, probe, varied_in_training=True)


def test_an_action_conditioned_model_has_larger_errors_under_other_actions(tmp_path):
    driven = write_buffer(tmp_path, *simulate(40, 30, 1, push=0.5), 20_000)
    metrics = measure_actions(MODEL, driven)
    for errors in (metrics.angle, metrics.latent):
        assert errors.midpoint["20"] > 5 * errors.true["20"]
        assert errors.shuffled["20"] > errors.midpoint["20"]
    assert metrics.varied_in_training
    assert metrics.episodes == 40


def test_a_model_that_ignores_actions_has_the_same_errors_under_all(tmp_path):
    class Unconditioned(TinyModel):
        def predict(self, z, action):
            return super().predict(z, np.zeros_like(action))

    driven = write_buffer(tmp_path, *simulate(40, 30, 1, push=0.5), 20_000)
    angle = measure_actions(Unconditioned(), driven).angle
    assert angle.true == angle.midpoint == angle.shuffled


def test_every_episode_gets_the_actions_of_another_when_shuffled(tmp_path):
    given = []

    class Recording(TinyModel):
        def rollout(self, z, actions):
            given.append(np.asarray(actions))
            return super().rollout(z, actions)

    driven = write_buffer(tmp_path, *simulate(40, 10, 1, push=0.5), 20_000)
    assert measure_actions(Recording(), driven, probe=None).angle is None
    true, midpoint, shuffled = given
    assert not midpoint.any()
    assert sorted(true[0, :, 0]) == sorted(shuffled[0, :, 0])
    assert (true[0] != shuffled[0]).any(axis=1).all()


def test_discrete_actions_have_no_zero_and_states_may_be_missing(tmp_path):
    class Buttons(TinyModel):
        def rollout(self, z, actions):
            return super().rollout(z, np.stack([actions, actions], -1) * 0.1)

    with ReplayBuffer.create(
        tmp_path / "d", frame_shape=(4, 6, 1), action_space=gym.spaces.Discrete(3), metadata={}
    ) as buffer:
        rng = np.random.default_rng(0)
        for i, states in enumerate(simulate(12, 9, 0)[0]):
            buffer.add_episode(
                draw(states[:, :2]), rng.integers(0, 3, 8), np.zeros(8), False, seed=i
            )
    with ReplayBuffer.open(tmp_path / "d") as driven:
        metrics = measure_actions(Buttons(), driven, probe=None)
        assert has_several_actions(driven)
    assert metrics.angle is None
    assert metrics.latent.midpoint is None
    assert metrics.latent.true["5"] is not None


@pytest.mark.parametrize(
    ("last_reward", "terminated", "expected"),
    [(0, False, False), (1, False, True), (0, True, True)],
)
def test_different_rewards_and_terminations_are_outcomes(
    tmp_path, last_reward, terminated, expected
):
    with ReplayBuffer.create(
        tmp_path / "d", frame_shape=(4, 6, 1), action_space=gym.spaces.Discrete(3), metadata={}
    ) as buffer:
        for steps in (2, 5, 3):
            rewards, last = np.zeros(steps), steps == 3
            rewards[-1] = last_reward * last
            frames = np.zeros((steps + 1, 4, 6, 1), np.uint8)
            buffer.add_episode(frames, np.zeros(steps, int), rewards, terminated and last)
        assert has_several_outcomes(buffer) is expected


@pytest.mark.parametrize("push", [0.0, 0.3])
def test_data_with_several_actions_is_distinguished_from_passive_data(tmp_path, push):
    buffer = write_buffer(tmp_path, *simulate(5, 6, 1, push=push), 0)
    assert has_several_actions(buffer) is bool(push)


def test_the_drift_of_a_known_gain_in_speed_is_measured(tmp_path):
    """ω grows by 1 % per step, so an energy of ω² grows by its known power."""

    class Speeding(TinyModel):
        def rollout(self, z, actions):
            steps = []
            for _ in actions:
                theta, omega = self._state(z)
                z = self._latent(theta + omega * DT, 1.01 * omega)
                steps.append(z)
            return torch.stack(steps)

    passive = write_buffer(tmp_path, *simulate(40, 30, 1), 20_000)

    def energy(states):
        return np.sum(states[:, 2:] ** 2, axis=1)

    metrics = energy_metrics(Speeding(), passive, READOUT, PROBE, energy)
    first = energy(passive.states(np.arange(40), np.ones(40, int), 1)[:, 0])
    assert_allclose(metrics.drift["20"], np.median(first * (1.01**40 - 1.0)), rtol=0.1)
    assert metrics.drift_by_step[20] == metrics.drift["20"]
    low, high = metrics.drift_interval["20"]
    assert low < metrics.drift["20"] < high
    assert metrics.true_std == pytest.approx(first.std())
    assert metrics.readout_rmse < 0.5
    conserved = energy_metrics(MODEL, passive, READOUT, PROBE, energy)
    assert max(map(abs, conserved.drift_by_step)) < 0.5


class CosineModel(TinyModel):
    """Rewards the cosine of the first hand, off by `bias`, and terminates below a height."""

    def __init__(self, bias=0.0, below=-0.5):
        super().__init__()
        self.bias, self.below = bias, below

    def outcome(self, z, action, z_next):
        cosine = torch.as_tensor(np.cos(self._state(z_next)[0][:, 0]))
        return cosine + self.bias, (cosine < self.below).float()


@pytest.fixture
def heldout(tmp_path):
    """Episodes that end when the first hand hangs low, half of them by termination."""
    states, actions = simulate(60, 25, 3, push=0.3)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    with ReplayBuffer.create(
        tmp_path / "b", frame_shape=(4, 6, 1), action_space=action_space, metadata={}
    ) as buffer:
        for i, (state, action) in enumerate(zip(states, actions)):
            cosine = np.cos(state[:, 0])
            low = np.flatnonzero(cosine[2:] < -0.5)
            length = 3 + int(low[0]) if len(low) else 25
            terminated = bool(len(low)) and i % 2 == 0
            frames = draw(state[:length, :2])
            buffer.add_episode(frames, action[: length - 1], cosine[1:length], terminated, seed=i)
    with ReplayBuffer.open(tmp_path / "b") as buffer:
        yield buffer


def measure_heads(model, buffer):
    return head_metrics(model, buffer, encode_at(model, buffer, *model.frames.times(buffer)))


def test_exact_heads_have_full_recall_and_no_error(heldout):
    metrics = measure_heads(CosineModel(), heldout)
    terminations = int(heldout.terminated.sum())
    assert terminations > 5
    assert metrics.transitions == heldout.num_transitions - heldout.num_episodes
    assert metrics.reward.rmse < 1e-3
    assert metrics.reward.r2 > 0.9999
    assert metrics.termination.terminations == terminations
    assert metrics.termination.recall == 1.0
    truncated = heldout.num_episodes - terminations - int((heldout.lengths == 25).sum())
    steps = metrics.transitions - terminations
    assert metrics.termination.false_positive_rate == pytest.approx(
        truncated / steps, abs=1.5 / steps
    )


def test_a_known_bias_of_the_reward_and_missed_terminations_are_measured(heldout):
    metrics = measure_heads(CosineModel(bias=0.25, below=-2.0), heldout)
    assert metrics.reward.rmse == pytest.approx(0.25, abs=1e-3)
    assert metrics.reward.r2 == pytest.approx(1 - (0.25 / metrics.reward.std) ** 2, abs=0.01)
    assert 0.1 < metrics.reward.std < 0.9
    assert metrics.termination.recall == 0.0
    assert metrics.termination.false_positive_rate == 0.0


class Walk:
    """Latents are positions, actions are steps; the reward is a power of the position reached."""

    device = torch.device("cpu")

    def __init__(self, predictor=torch.add, termination=-50.0, power=1):
        self.predictor = predictor
        self.reward_head = lambda z, action, z_next: z_next[:, 0] ** power
        self.termination_head = lambda z, action, z_next: torch.full((len(z),), termination)


@pytest.fixture
def walks(monkeypatch):
    """20 random walks of 12 latents, of which every other one terminates."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.randn(20, 12, 1, generator=generator)
    positions = torch.cat([torch.zeros(20, 1, 1), actions[:, :-1].cumsum(1)], 1)
    rewards = torch.cat([positions[:, 1:, 0], torch.zeros(20, 1)], 1)
    ends = torch.zeros(20, 12)
    ends[::2, -2] = 1
    parts = (positions, actions, rewards, ends, torch.arange(11, -1, -1).expand(20, 12))
    episodes = LatentEpisodes(*(part.flatten(0, 1) for part in parts))
    monkeypatch.setattr(dynamics, "encode_episodes", lambda *_: episodes)
    return SimpleNamespace(num_episodes=20), episodes


def test_an_exact_model_ranks_returns_perfectly(walks):
    """Cut episodes have 9 starts of three steps, terminated ones 11."""
    buffer, episodes = walks
    exact = return_metrics(Walk(), buffer, [1, 3], Bootstrap(100))
    assert exact.episodes == 20
    starts, imagined, real = dynamics._returns(Walk(), episodes, 3)
    assert len(starts) == 10 * 9 + 10 * 11
    whole = episodes.remaining[starts] >= 3
    np.testing.assert_allclose(imagined[whole], real[whole], atol=1e-5)
    first = episodes.rewards[starts[0] : starts[0] + 3].sum().item()
    assert real[0] == pytest.approx(first)
    assert exact.rank_correlation["1"] == pytest.approx(1.0)
    assert exact.interval["1"] == pytest.approx((1.0, 1.0))
    assert exact.rank_correlation["3"] > 0.95


def test_the_correlation_is_that_of_ranks(walks):
    buffer, episodes = walks
    model = Walk(lambda z, action: z, power=3)
    metrics = return_metrics(model, buffer, [3], Bootstrap(100))
    _, imagined, real = dynamics._returns(model, episodes, 3)
    assert metrics.rank_correlation["3"] == pytest.approx(spearmanr(imagined, real).statistic)
    assert metrics.rank_correlation["3"] != pytest.approx(
        np.corrcoef(imagined, real)[0, 1], abs=0.01
    )
    low, high = metrics.interval["3"]
    assert low < metrics.rank_correlation["3"] < high < 1.0
    assert 0.1 < high - low < 0.6


def test_the_return_ends_with_a_predicted_or_a_real_termination(walks):
    _, episodes = walks
    starts, imagined, real = dynamics._returns(Walk(termination=50.0), episodes, 11)
    assert len(starts) == 10 * 1 + 10 * 11  # all of a terminated episode, the first of a cut one
    np.testing.assert_allclose(imagined, episodes.rewards[starts], atol=1e-5)
    last = episodes.remaining[starts] == 1
    np.testing.assert_allclose(real[last], episodes.rewards[starts][last], atol=1e-5)


def test_equal_returns_a_diverged_model_and_short_episodes_have_no_correlation(walks):
    buffer, episodes = walks
    nan = Walk(lambda z, action: z * float("nan"))
    assert return_metrics(nan, buffer, [3]).startswith("all held-out returns are equal")
    episodes.terminated.zero_()
    found = return_metrics(Walk(), buffer, [3, 12], Bootstrap(100))
    assert found.rank_correlation["12"] is None
    assert found.interval["12"] == (None, None)
    episodes.rewards.zero_()
    assert return_metrics(Walk(), buffer, [3]).startswith("all held-out returns are equal")
