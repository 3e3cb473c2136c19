"""Code of a user, for type checkers: `mypy --strict` accepts it, here and outside of the package.

It is checked and not run; `assert_type` fails where a type is lost, e.g. where it is `Any`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from torch import Tensor, nn

import worldmodel
from worldmodel.data import Windows, convert, load_or_collect
from worldmodel.imagination import Domain
from worldmodel.planning import Search, goal_distance
from worldmodel.plugins import StateReadout
from worldmodel.viz import write_sheet


class PrintRank(worldmodel.Callback):
    """A callback that stops a training."""

    def on_log(self, state: worldmodel.TrainingState) -> None:
        """Stop it when the latents collapse."""
        rank = assert_type(state.scalars.get("validation/effective_rank"), float | None)
        state.stop = rank is not None and rank < 0.5

    def on_evaluation_end(self, run: worldmodel.Run) -> None:
        """Print where the report is."""
        print(run.path / "report.html")


class Still(worldmodel.Policy):
    """A policy for collecting data."""

    def bind(
        self, action_space: gym.Space[Any], observation_space: gym.Space[Any], steps: int
    ) -> Callable[[int], Callable[[int, Any], np.ndarray]]:
        """Return zeros for every seed and step."""
        return lambda seed: lambda t, observation: np.zeros(action_space.shape or (), np.float32)


class CartPole(worldmodel.EnvPlugin):
    """What is known about an environment."""

    default_goal = "centered"

    def readout(self, state_dim: int) -> StateReadout:
        """Read the state itself."""
        return StateReadout(state_dim)

    def goal_test(self, goal: str) -> Callable[[np.ndarray], bool] | None:
        """Test whether the cart is in the middle."""
        return lambda state: bool(abs(state[0]) < 0.1)


@dataclass(frozen=True)
class Shooting:
    """A planner."""

    samples: int = 256

    def search(
        self, score: Callable[[Tensor], Tensor], initial: Search, generator: torch.Generator
    ) -> Search:
        """Keep the last plan."""
        return initial


def train_models(encoder: type[nn.Module]) -> worldmodel.Run:
    """Train with keywords, with a configuration, and on own data; resume and sweep."""
    config = worldmodel.build_config({"seed": 2}, preset="standard")
    assert_type(config.phase1.updates, int | None)
    run = worldmodel.train(config=config, callbacks=[PrintRank()], progress=False)
    run = worldmodel.train(
        "CartPole-v1", preset="smoke", policy=Still, encoder=encoder, size=100, seed=1
    )
    run = worldmodel.train(data=["episodes.h5", "data/mine"], settings={"image_size": 32})
    sweep: Mapping[str, Any] = {"grid": {"seed": [0, 1]}}
    result = assert_type(worldmodel.sweep(sweep, workers=2), worldmodel.SweepResult)
    assert_type(result.failures, dict[str, str])
    for row in result.rows:
        if (rank := row.metrics["collapse.effective_rank"]) is not None:
            assert_type(rank.mean, float)
    try:
        return assert_type(worldmodel.resume(run.path), worldmodel.Run)
    except (worldmodel.InterruptedRunError, worldmodel.RunError, worldmodel.ConfigError):
        return worldmodel.Run("hf://user/name", device="cpu", trust=False)


def use_model(run: worldmodel.Run, obs: np.ndarray) -> None:
    """Encode, predict, decode and look at the results of a run."""
    wm = assert_type(worldmodel.load(run.path), worldmodel.WorldModel)
    assert_type(run.model, worldmodel.WorldModel)
    assert_type(run.config, worldmodel.Config)
    z = assert_type(wm.encode(obs), Tensor)
    z_next = assert_type(wm.predict(z, torch.zeros(1, 2)), Tensor)
    assert_type(wm.rollout(z, np.zeros((20, 1, 2))), Tensor)
    assert_type(wm.decode(z_next), Tensor)
    reward, p_end = wm.outcome(z, torch.zeros(1, 2), z_next)
    assert_type(reward + p_end, Tensor)
    assert_type(wm.domain, Domain | None)
    assert_type(run.domain.outside(z), Tensor)
    metrics = assert_type(run.metrics, worldmodel.Metrics)
    assert_type(metrics.collapse.effective_rank, float)
    if metrics.forecast.angle is not None:
        assert_type(metrics.forecast.angle.error, dict[str, float])
    if run.probe is not None:
        assert_type(run.readout(4).angles(run.probe.predict(z.numpy())), np.ndarray)
    for found in worldmodel.evaluate_runs([run], comparison=Path("comparison.html")):
        assert_type(found, worldmodel.Metrics)


def act(run: worldmodel.Run) -> None:
    """Make environments, real and imagined; plan and train agents in them."""
    env = assert_type(run.make_env("rgb_array", start="down"), gym.Env[np.ndarray, Any])
    assert_type(worldmodel.make_env(run), gym.Env[np.ndarray, Any])
    obs, _ = env.reset(seed=0)
    assert_type(obs, np.ndarray)
    assert_type(worldmodel.LatentObservation(env, run.model).observation(obs), np.ndarray)
    envs = run.make_vec_env(8)
    assert_type(worldmodel.VectorLatentObservation(envs, run.model).num_envs, int)
    dream = worldmodel.LatentEnv(run.model, max_episode_steps=50)
    step = dream.step(dream.action_space.sample())
    assert_type(step, tuple[np.ndarray, float, bool, bool, dict[str, Any]])
    dreams = assert_type(run.imagine(64, max_episode_steps=50), worldmodel.LatentVectorEnv)
    assert_type(dreams.step(dreams.action_space.sample())[1], np.ndarray)
    PPO("MlpPolicy", worldmodel.SB3VecEnv(dreams)).learn(2048)
    policy = worldmodel.PlanningPolicy(run.model, goal_distance(torch.zeros(64)), Shooting())
    action, _ = policy.predict(obs)
    assert_type(action, np.ndarray)
    print(run.plan(goal="upright", episodes=1)["successes"], run.reach_goals(goal_offset=25))
    print(run.rollout(policy=Still(), steps=50), run.compare_agents([0], algo="sac", steps=2048))
    print(run.train_agent(on="dream", algo="ppo", loop={"rounds": 1})["real"]["mean"])
    assert_type(worldmodel.AgentConfig(algo="sac").steps, int)


def share(run: worldmodel.Run) -> None:
    """Write the model for others, and its data in other formats."""
    print(run.export("dream.html"), worldmodel.push(run, "user/name", private=True)["commit"])
    worldmodel.register_plugin(["CartPole-v1"], CartPole)
    seeds = range(100)
    with load_or_collect("CartPole-v1", "data", episodes=100, seeds=seeds, steps=50) as buffer:
        windows = assert_type(buffer.sample(8, 10, np.random.default_rng(0)), Windows)
        assert_type(windows.frames, np.ndarray)
    buffer = worldmodel.collect("CartPole-v1", "more", episodes=9, seeds=range(9), steps=50)
    own = worldmodel.ReplayBuffer.create(
        "own", frame_shape=(64, 64, 3), action_space=spaces.Discrete(2), metadata={}
    )
    frames, rewards = np.zeros((31, 64, 64, 3), np.uint8), np.ones(30)
    own.add_episode(frames, np.zeros(30, int), rewards, terminated=False, seed=0)
    assert_type(own.select([0]), worldmodel.ReplayBuffer)
    assert_type(buffer.lengths, np.ndarray)
    print(convert("own", "own.h5")["episodes"], write_sheet("own.h5", "episodes.png"))
    with run.datasets() as data:
        assert_type(data.train, worldmodel.ReplayBuffer)
