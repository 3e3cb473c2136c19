"""Whether actions steer the forecast, and whether dreams keep their energy."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tiny_model import DT, TinyModel, draw, simulate, write_buffer

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.ablation import action_report, holds_several_actions
from worldmodel.evaluation.energy import energy_report
from worldmodel.evaluation.probes import fit_linear_probe
from worldmodel.evaluation.targets import targets

MODEL = TinyModel()


class ExactProbe:
    """The latent of the tiny model is linear in the targets."""

    def __init__(self):
        states, _ = simulate(400, 2, seed=99)
        z = MODEL.encode(np.concatenate([draw(states[:, 0, :2]), draw(states[:, 1, :2])], -1))
        self.probe = fit_linear_probe(z.numpy(), targets(states[:, 1]))

    def predict(self, latents):
        flat = self.probe.predict(latents.reshape(-1, latents.shape[-1]))
        return flat.reshape(*latents.shape[:-1], 6)

    def angles(self, latents):
        values = self.predict(latents)
        return np.arctan2(values[..., :2], values[..., 2:4])


PROBE = ExactProbe()


def test_a_model_that_listens_to_actions_loses_without_them(tmp_path):
    driven = write_buffer(tmp_path, *simulate(40, 30, 1, push=0.5), 20_000)
    report = action_report(MODEL, driven, PROBE, reason=None, trained_on=True)
    for errors in (report["angle"], report["latent"]):
        assert set(errors) == {"true", "zeroed", "shuffled"}
        assert errors["zeroed"]["20"] > 5 * errors["true"]["20"]
        assert errors["shuffled"]["20"] > errors["zeroed"]["20"]
    assert report["trained_on"]
    assert report["episodes"] == 40


def test_a_model_that_is_deaf_to_actions_is_found_out(tmp_path):
    class Deaf(TinyModel):
        def predict(self, z, action):
            return super().predict(z, np.zeros_like(action))

    driven = write_buffer(tmp_path, *simulate(40, 30, 1, push=0.5), 20_000)
    report = action_report(Deaf(), driven, PROBE, reason=None, trained_on=True)
    assert report["angle"]["true"] == report["angle"]["zeroed"] == report["angle"]["shuffled"]


def test_every_episode_is_shuffled_to_the_actions_of_another(tmp_path):
    given = []

    class Listening(TinyModel):
        def rollout(self, z, actions):
            given.append(np.asarray(actions))
            return super().rollout(z, actions)

    driven = write_buffer(tmp_path, *simulate(40, 10, 1, push=0.5), 20_000)
    action_report(Listening(), driven, None, reason="untold", trained_on=False)
    true, zeroed, shuffled = given
    assert not zeroed.any()
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
        report = action_report(Buttons(), driven, None, reason="no state", trained_on=True)
        assert holds_several_actions(driven)
    assert report["angle"] == {"reason": "no state"}
    assert set(report["latent"]) == {"true", "shuffled"}


@pytest.mark.parametrize("push", [0.0, 0.3])
def test_data_driven_by_several_actions_is_told_from_passive_data(tmp_path, push):
    buffer = write_buffer(tmp_path, *simulate(5, 6, 1, push=push), 0)
    assert holds_several_actions(buffer) is bool(push)


def test_the_drift_of_a_known_gain_in_speed_is_read(tmp_path):
    """ω grows by 1 % a step, so an energy of ω² grows by its known power."""

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

    report = energy_report(Speeding(), passive, PROBE, energy)
    first = energy(passive.states(np.arange(40), np.ones(40, int), 1)[:, 0])
    assert_allclose(report["drift"]["20"], np.median(first * (1.01**40 - 1.0)), rtol=0.1)
    assert report["drift_by_step"][20] == report["drift"]["20"]
    low, high = report["drift_interval"]["20"]
    assert low < report["drift"]["20"] < high
    assert report["true_std"] == pytest.approx(first.std())
    assert report["read_rmse"] < 0.5
    kept = energy_report(MODEL, passive, PROBE, energy)
    assert max(map(abs, kept["drift_by_step"])) < 0.5
