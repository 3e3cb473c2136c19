"""Collecting data with an agent of latents."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

import worldmodel
from worldmodel.rl.explorer import Explorer

ACTIONS = gym.spaces.Box(-2.0, 4.0, (2,), np.float32)


class Latents(gym.Env):
    """Nothing but the spaces."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (8,), np.float32)
    action_space = ACTIONS


@pytest.fixture
def acting(driven_run, tmp_path):
    wm = worldmodel.load(driven_run)
    agent = PPO("MlpPolicy", Latents(), seed=0, device="cpu")
    agent.policy.log_std.data.fill_(-20.0)  # so that all that varies is the explorer's noise
    agent.save(tmp_path / "agent.zip")
    *sides, channels = wm.spec.frame_shape
    seen = np.zeros((*sides, wm.frame_stack * channels), np.uint8)

    def actions(noise, seed, n=300):
        explorer = Explorer(wm, tmp_path / "agent.zip", "ppo", noise)
        act = explorer.bind(ACTIONS, ACTIONS, n)(seed)
        return np.array([act(t, seen) for t in range(n)])

    return actions


def test_noise_is_in_half_ranges_of_the_actions(acting):
    np.testing.assert_allclose(acting(0.0, 0).std(0), 0.0, atol=1e-4)
    drawn = acting(0.1, 0)
    np.testing.assert_allclose(drawn.std(0), 0.3, rtol=0.15)
    assert ACTIONS.contains(drawn[0])
    wide = acting(5.0, 0)
    assert wide.min() == -2.0
    assert wide.max() == 4.0


def test_noise_follows_the_seed(acting):
    np.testing.assert_array_equal(acting(0.1, 3), acting(0.1, 3))
    assert (acting(0.1, 3) != acting(0.1, 4)).any()
