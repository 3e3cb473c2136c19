"""`SB3VecEnv` behaves like the vector environments of Stable-Baselines3."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from numpy.testing import assert_array_equal
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

import worldmodel
from worldmodel.imagination import SB3VecEnv

ID = "DoublePendulum-v0"


def pendulums(num_envs=3, steps=4):
    return gym.make_vec(
        ID,
        num_envs=num_envs,
        max_episode_steps=steps,
        autoreset_mode=AutoresetMode.DISABLED,
        observation="state",
    )


def test_equals_the_vector_environments_of_stable_baselines():
    ours = SB3VecEnv(pendulums())
    makers = [lambda: gym.make(ID, max_episode_steps=4, observation="state")] * 3
    theirs = DummyVecEnv(makers)
    ours.seed(5)
    theirs.seed(5)
    assert_array_equal(ours.reset(), theirs.reset())
    actions = np.random.default_rng(0).uniform(-1, 1, (9, 3, 2)).astype(np.float32)
    for act in actions:
        (obs, rewards, dones, infos), expected = ours.step(act), theirs.step(act)
        assert_array_equal(obs, expected[0])
        assert_array_equal(rewards, expected[1])
        assert_array_equal(dones, expected[2])
        for info, their_info in zip(infos, expected[3], strict=True):
            assert_array_equal(info["state"], their_info["state"])
            assert info.get("TimeLimit.truncated", False) == their_info["TimeLimit.truncated"]
            assert ("terminal_observation" in info) == ("terminal_observation" in their_info)
            if "terminal_observation" in their_info:
                assert_array_equal(info["terminal_observation"], their_info["terminal_observation"])


def test_agents_train_on_imagined_episodes(driven_run):
    imagined = gym.make_vec(
        "worldmodel/Latent-v0",
        run=driven_run,
        num_envs=8,
        max_episode_steps=5,
        autoreset_mode=AutoresetMode.DISABLED,
    )
    envs = VecMonitor(worldmodel.SB3VecEnv(imagined))
    agent = PPO("MlpPolicy", envs, n_steps=16, batch_size=64, device="cpu", seed=0)
    agent.learn(256)
    assert len(agent.ep_info_buffer) > 20
    assert max(episode["l"] for episode in agent.ep_info_buffer) == 5
    assert envs.env_is_wrapped(gym.Wrapper) == [False] * 8
    assert envs.get_attr("num_envs") == [8] * 8
    envs.close()


def test_autoreset_is_rejected_with_a_hint():
    with pytest.raises(ValueError, match=r"autoreset_mode=AutoresetMode\.DISABLED"):
        SB3VecEnv(gym.make_vec(ID, num_envs=2))
