"""The heads are scored on what a dreamed step brings."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_model import TinyModel, draw, simulate

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.heads import head_report
from worldmodel.evaluation.observations import all_times, encode_at


class Judge(TinyModel):
    """Rewards the cosine of the first hand, off by `bias`, and ends where it hangs low."""

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
    actions_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    with ReplayBuffer.create(
        tmp_path / "b", frame_shape=(4, 6, 1), action_space=actions_space, metadata={}
    ) as buffer:
        for i, (state, action) in enumerate(zip(states, actions)):
            cosine = np.cos(state[:, 0])
            low = np.flatnonzero(cosine[2:] < -0.5)
            length = 3 + int(low[0]) if len(low) else 25
            ends = bool(len(low)) and i % 2 == 0
            frames = draw(state[:length, :2])
            buffer.add_episode(frames, action[: length - 1], cosine[1:length], ends, seed=i)
    with ReplayBuffer.open(tmp_path / "b") as buffer:
        yield buffer


def report(model, buffer):
    episodes, times = all_times(buffer, 2)
    return head_report(model, buffer, encode_at(model, buffer, episodes, times), episodes, times)


def test_a_model_that_knows_is_right_about_every_step(heldout):
    told = report(Judge(), heldout)
    endings = int(heldout.terminated.sum())
    assert endings > 5
    assert told["transitions"] == heldout.num_transitions - heldout.num_episodes
    assert told["reward"]["rmse"] < 1e-3
    assert told["reward"]["r2"] > 0.9999
    assert told["termination"]["endings"] == endings
    assert told["termination"]["found"] == 1.0
    cut = heldout.num_episodes - endings - int((heldout.lengths == 25).sum())
    steps = told["transitions"] - endings
    assert told["termination"]["false_alarms"] == pytest.approx(cut / steps, abs=1.5 / steps)


def test_errors_are_told_as_they_are(heldout):
    told = report(Judge(bias=0.25, below=-2.0), heldout)
    assert told["reward"]["rmse"] == pytest.approx(0.25, abs=1e-3)
    assert told["reward"]["r2"] < 1.0
    assert told["termination"]["found"] == 0.0
    assert told["termination"]["false_alarms"] == 0.0
