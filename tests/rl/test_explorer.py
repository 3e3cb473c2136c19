"""Collecting data with an agent on latents."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

import worldmodel
from worldmodel.data import Policy
from worldmodel.rl.explorer import Explorer

ACTIONS = gym.spaces.Box(-2.0, 4.0, (2,), np.float32)


class Latents(gym.Env):
    """Nothing but the spaces."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (8,), np.float32)
    action_space = ACTIONS


@pytest.fixture
def agent(tmp_path):
    agent = PPO("MlpPolicy", Latents(), seed=0, device="cpu")
    agent.policy.log_std.data.fill_(-20.0)  # so that nothing but the explorer's noise varies
    agent.save(tmp_path / "agent.zip")
    return tmp_path / "agent.zip"


@pytest.fixture
def acting(driven_run, agent):
    wm = worldmodel.load(driven_run)
    *sides, channels = wm.spec.frame_shape
    observation = np.zeros((*sides, wm.frames.size * channels), np.uint8)

    def actions(noise, seed, n=300, space=ACTIONS):
        explorer = Explorer(wm, agent, "ppo", noise)
        act = explorer.bind(space, ACTIONS, n)(seed)
        return np.array([act(t, observation) for t in range(n)])

    return actions


def test_noise_is_in_half_ranges_of_the_actions(acting):
    np.testing.assert_allclose(acting(0.0, 0).std(0), 0.0, atol=1e-4)
    drawn = acting(0.1, 0)
    np.testing.assert_allclose(drawn.std(0), 0.3, rtol=0.15)
    assert ACTIONS.contains(drawn[0])
    wide = acting(5.0, 0)
    assert wide.min() == -2.0
    assert wide.max() == 4.0


def test_an_environment_may_take_actions_of_double_precision(acting):
    double = gym.spaces.Box(-2.0, 4.0, (2,), np.float64)
    acted = acting(0.1, 3, space=double)
    assert double.contains(acted[0])
    np.testing.assert_allclose(acted, acting(0.1, 3), atol=1e-5)
    with pytest.raises(ValueError, match=r"trained with actions float32 .* has int32 of shape"):
        acting(0.1, 3, space=gym.spaces.Box(-2, 4, (2,), np.int32))


def test_noise_follows_the_seed(acting):
    np.testing.assert_array_equal(acting(0.1, 3), acting(0.1, 3))
    assert (acting(0.1, 3) != acting(0.1, 4)).any()


def test_the_explorer_is_a_policy_whose_identity_depends_on_agent_and_noise(driven_run, agent):
    wm = worldmodel.load(driven_run)
    explorer = Explorer(wm, agent, "ppo", 0.1)
    assert isinstance(explorer, Policy)
    identity = explorer.identity()
    assert set(identity) == {"name", "sha256", "algo", "noise"}
    assert identity["name"] == "explorer"
    assert identity != Explorer(wm, agent, "ppo", 0.2).identity()
    agent.write_bytes(agent.read_bytes() + b"x")
    assert identity != explorer.identity()
