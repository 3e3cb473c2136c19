"""Evaluation of agents in the real environment: at the end, during training, and as a video."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import FiniteFloat
from stable_baselines3.common.callbacks import BaseCallback
from typing_extensions import TypedDict

from worldmodel.agent_config import AgentConfig
from worldmodel.callbacks import Advance, StopRequest
from worldmodel.data.datasets import split_seeds
from worldmodel.plugins import find_plugin
from worldmodel.rl.envs import AgentEnvs, VectorEnv
from worldmodel.viz.canvas import compose, curve_strip
from worldmodel.viz.video import write_video

_MAX_VIDEO_STEPS = 1_000


class Predicts(Protocol):
    """Anything that chooses actions with the `predict` method of Stable-Baselines3's agents."""

    def predict(
        self, observation: np.ndarray, *, deterministic: bool = ...
    ) -> tuple[np.ndarray, Any]:
        """Choose actions for observations (N, ...)."""


Evaluate = Callable[[Predicts], dict[str, Any]]
"""A function that evaluates an agent in the real environment, see `evaluate_policy`."""


def heldout_seeds(config: AgentConfig) -> range:
    """Seeds of the episodes of the final evaluation."""
    return split_seeds("heldout", config.eval_episodes)


def validation_seeds(config: AgentConfig) -> range:
    """Seeds of the episodes of learning curves, and of choices that are based on them."""
    return split_seeds("validation", config.eval_episodes)


def evaluate_policy(
    agent: Predicts, envs: VectorEnv, seeds: Sequence[int], max_steps: int = 10_000
) -> dict[str, Any]:
    """Play one episode per seed with deterministic actions.

    Args:
        agent: Agent that chooses the actions.
        envs: Vector environment with autoreset disabled, of as many environments as seeds.
        seeds: Seeds of the environments' resets.
        max_steps: Number of steps after which an episode without an end is cut off.

    Returns:
        `returns` and `steps` of each episode; `mean`, `std`, `min` and `max` of the returns; and
        `reward_per_step`, the mean over all steps.
    """
    first: Any = list(seeds)
    observations, _ = envs.reset(seed=first)
    active = np.ones(len(seeds), bool)
    returns, steps = np.zeros(len(seeds)), np.zeros(len(seeds), int)
    while active.any() and steps.max() < max_steps:
        actions, _ = agent.predict(observations, deterministic=True)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns += np.where(active, rewards, 0.0)
        steps += active
        ended = terminated | truncated
        active &= ~ended
        if ended.any() and active.any():
            observations, _ = envs.reset(options={"reset_mask": ended})
    return _statistics(returns.tolist(), steps.tolist())


def _statistics(returns: list[float], steps: list[int]) -> dict[str, Any]:
    return {
        "returns": returns,
        "steps": steps,
        "mean": statistics.fmean(returns),
        "std": statistics.pstdev(returns),
        "min": min(returns),
        "max": max(returns),
        "reward_per_step": sum(returns) / sum(steps),
    }


@contextmanager
def real_evaluation(envs: AgentEnvs, config: AgentConfig, seeds: range) -> Iterator[Evaluate]:
    """Open real environments and yield a function that evaluates an agent on these seeds."""
    with closing(envs.real(len(seeds))) as real:
        yield lambda agent: evaluate_policy(agent, real, seeds, config.max_eval_steps)


class CurvePoint(TypedDict):
    """An evaluation on validation seeds.

    `steps` and `seconds` are those of the training so far; `mean` (of the return) and
    `reward_per_step` are in the real environment.
    """

    steps: int
    seconds: FiniteFloat
    mean: FiniteFloat
    reward_per_step: FiniteFloat


@dataclass
class Curve:
    """A learning curve.

    Attributes:
        points: The evaluations so far.
        seconds: Training time so far, without the evaluations.
    """

    points: list[CurvePoint] = field(default_factory=list)
    seconds: float = 0.0


class EvalCallback(BaseCallback):
    """Evaluates the agent during training, reports progress, and stops when the user asks.

    Args:
        curve: Learning curve, to which every evaluation adds a point.
        evaluate: Function that evaluates the agent in the real environment.
        interval: Number of steps between evaluations.
        total: Step at which training ends.
        advance: Function that reports progress.
        stop: Whether the user asked to stop.
    """

    def __init__(
        self,
        curve: Curve,
        evaluate: Evaluate,
        *,
        interval: int,
        total: int,
        advance: Advance,
        stop: StopRequest,
    ) -> None:
        super().__init__()
        self.curve, self.evaluate = curve, evaluate
        self.interval, self.total = interval, total
        self.advance, self.stop = advance, stop
        self.next_evaluation = 0
        self.resumed_at = 0.0

    def _on_training_start(self) -> None:
        self.next_evaluation = self.num_timesteps + self.interval
        self.resumed_at = time.perf_counter()

    def _on_step(self) -> bool:
        return not self.stop.requested

    def _on_rollout_start(self) -> None:
        if self.next_evaluation <= self.num_timesteps < self.total:
            self._evaluate()
            self.next_evaluation += self.interval
        self._report()

    def _on_training_end(self) -> None:
        if self.stop.requested:
            return
        self._evaluate()
        self.logger.dump(self.num_timesteps)
        self._report()

    def _report(self) -> None:
        points = self.curve.points
        note = f"return {points[-1]['mean']:.1f} in the real environment" if points else ""
        self.advance(min(self.num_timesteps, self.total), note)

    def _evaluate(self) -> None:
        self.curve.seconds += time.perf_counter() - self.resumed_at
        result = self.evaluate(self.model)
        mean, per_step = result["mean"], result["reward_per_step"]
        self.curve.points.append(
            CurvePoint(
                steps=self.num_timesteps,
                seconds=self.curve.seconds,
                mean=mean,
                reward_per_step=per_step,
            )
        )
        self.logger.record("real/mean", mean)
        self.logger.record("real/reward_per_step", per_step)
        self.resumed_at = time.perf_counter()


def result_summary(results: dict[str, Any]) -> dict[str, Any]:
    """Select the results of an agent that are shown in a terminal."""
    real = results["real"]
    shown = {
        "trained on": results["config"]["on"],
        "return": f"{real['mean']:.1f} ± {real['std']:.1f} over {len(real['returns'])} episodes",
        "reward per step": round(real["reward_per_step"], 3),
        "training steps": results["steps"],
        "real steps": results["real_steps"],
        "real steps of the model": results["model_data_steps"],
        "seconds": round(results["seconds"], 1),
    }
    if "rounds" in results:
        shown["rounds"] = [round(each["mean"], 1) for each in results["rounds"]]
    for number, each in enumerate(results.get("candidates", ())):
        kept = ", kept" if number == results["best_candidate"] else ""
        shown.setdefault("candidates", []).append(f"{each['mean']:.1f} (seed {each['seed']}{kept})")
    return shown | {key: results[key] for key in ("agent", "video")}


def record_video(envs: AgentEnvs, agent: Predicts, seed: int, path: Path, algo: str) -> Path:
    """Record one episode in the real environment, with its rewards below; return `path`.

    Args:
        envs: The agent's environments.
        agent: Agent that chooses the actions.
        seed: Seed of the episode.
        path: Path of the video file.
        algo: Name of the algorithm, for the label.
    """
    env = envs.run.config.env
    dt = find_plugin(env.id, env.kwargs).seconds_per_step() * env.frame_skip
    frames, rewards = _play(envs, agent, seed)
    label = f"{algo.upper()} trained on {envs.on}"
    note = f"real, seed {seed}"
    write_video(path, _images(frames, rewards, label, dt, note), 1.0 / dt)
    return path


def _play(envs: AgentEnvs, agent: Predicts, seed: int) -> tuple[list[np.ndarray], list[float]]:
    with closing(envs.real(1, render_mode="rgb_array")) as real:
        observations, _ = real.reset(seed=seed)
        frames, rewards, ended = [_frame(real)], list[float](), False
        while not ended and len(rewards) < _MAX_VIDEO_STEPS:
            actions, _ = agent.predict(observations, deterministic=True)
            observations, reward, terminated, truncated, _ = real.step(actions)
            frames.append(_frame(real))
            rewards.append(float(reward[0]))
            ended = bool(terminated[0] | truncated[0])
    return frames, rewards


def _frame(envs: VectorEnv) -> np.ndarray:
    images: Any = envs.render()
    return np.asarray(images[0])


def _images(
    frames: list[np.ndarray], rewards: list[float], label: str, dt: float, note: str
) -> Iterator[np.ndarray]:
    low, high = np.floor(10 * min(0.0, *rewards)) / 10, np.ceil(10 * max(0.1, *rewards)) / 10
    for k, frame in enumerate(frames):
        top = compose((frame,), (label,), f"t = {k * dt:.2f} s", note)
        strip = curve_strip(
            rewards[:k], len(rewards) - 1, "reward", top.shape[1], low=low, high=high
        )
        yield np.concatenate([top, strip])
