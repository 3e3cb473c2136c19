"""Tests of the evaluation of agents: seeds, episodes, summaries and videos."""

import gymnasium as gym
import numpy as np
import pytest
import tiny_env  # noqa: F401 (registers Tiny-v0)
from gymnasium.vector import AutoresetMode

from worldmodel.agent_config import AgentConfig
from worldmodel.rl import AgentEnvs, evaluate_policy, record_video, result_summary, train_agent
from worldmodel.rl import evaluation as evaluation_module
from worldmodel.rl.evaluation import heldout_seeds, validation_seeds
from worldmodel.run import Run
from worldmodel.viz import canvas


def test_held_out_seeds_are_apart_from_those_that_choose():
    config = AgentConfig()
    assert heldout_seeds(config)[0] == 20_000
    assert validation_seeds(config)[-1] < 20_000
    assert len(heldout_seeds(config)) == len(validation_seeds(config)) == 20


class Still:
    def predict(self, observation, *, deterministic):
        return np.zeros((len(observation), 2), np.float32), None


def test_an_episode_counts_until_its_own_end():
    makers = [lambda: gym.make("Tiny-v0", length=(2, 6), terminates=True, observation="vector")] * 8
    envs = gym.vector.SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    result = evaluate_policy(Still(), envs, range(8))
    lengths = result["steps"]
    assert len(set(lengths)) > 1
    assert result["returns"] == [n * (n + 1) / 2 for n in lengths]
    assert result["reward_per_step"] == pytest.approx(sum(result["returns"]) / sum(lengths))
    for seed, length in enumerate(lengths):
        env = gym.make("Tiny-v0", length=(2, 6), terminates=True, observation="vector")
        env.reset(seed=seed)
        assert env.unwrapped._last == length


def test_an_episode_without_end_is_cut():
    makers = [lambda: gym.make("Tiny-v0", length=(50, 60), observation="vector")] * 2
    envs = gym.vector.SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    assert evaluate_policy(Still(), envs, range(2), max_steps=7)["steps"] == [7, 7]


def test_the_terminal_shows_a_summary(run_path, monkeypatch):
    monkeypatch.setattr("worldmodel.rl.tuned._PPO_ROLLOUT", 256)
    config = AgentConfig(
        on="state", steps=256, num_envs=4, eval_points=2, eval_episodes=4, max_eval_steps=60
    )
    summary = result_summary(train_agent(Run(run_path), config))
    assert "over 4 episodes" in summary["return"]
    assert summary["trained on"] == "state"
    assert len(summary) < 12


def test_the_text_of_an_agents_video_fits_its_frame(run_path, tmp_path, monkeypatch):
    texts, compose = [], evaluation_module.compose

    def spied(frames, labels, caption, note):
        texts.append((*labels, caption, note))
        return compose(frames, labels, caption, note)

    monkeypatch.setattr(evaluation_module, "compose", spied)
    envs = AgentEnvs(Run(run_path), "latent")
    record_video(envs, Still(), 20_000, tmp_path / "agent.mp4", "ddpg")
    label, caption, note = texts[-1]
    width = canvas.panel_size(*envs.run.model.spec.frame_shape[:2])[1]
    small = canvas.font(canvas._CAPTION_SIZE)
    assert canvas.font(canvas._LABEL_SIZE).getlength(label) < width
    assert small.getlength(caption) + small.getlength(note) < width
