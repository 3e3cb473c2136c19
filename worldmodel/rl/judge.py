"""Judging an agent in the real environment."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from worldmodel.evaluation.heldout import SEEDS

EPISODES = 20

LONGEST = 10_000
"""Steps after which an episode that does not end, in an environment without time limit, is cut."""


class Actor(Protocol):
    """What acts: an agent of Stable-Baselines3."""

    def predict(self, observation: Any, *, deterministic: bool = ...) -> Any: ...


def heldout_seeds(episodes: int = EPISODES) -> range:
    """Seeds of the episodes that agents are judged by, at the end."""
    return SEEDS["heldout"][:episodes]


def validation_seeds(episodes: int = EPISODES) -> range:
    """Seeds of the episodes of learning curves, and of what is chosen by them."""
    return SEEDS["validation"][:episodes]


def judge(agent: Actor, envs: gym.vector.VectorEnv, seeds: Sequence[int]) -> dict[str, Any]:
    """Play one episode a seed, `LONGEST` steps at most, with the most likely action at each.

    Args:
        agent: Acts.
        envs: As many environments as seeds, with autoreset disabled.
        seeds: Of the environments' resets.

    Returns:
        `returns` and `steps` (one an episode), `mean`, `std` (over episodes), `min` and `max` of
        the returns, and `reward_a_step`, the mean over all steps.
    """
    each: Any = list(seeds)
    observations, _ = envs.reset(seed=each)
    alive = np.ones(len(seeds), bool)
    returns, steps = np.zeros(len(seeds)), np.zeros(len(seeds), int)
    while alive.any() and steps.max() < LONGEST:
        actions, _ = agent.predict(observations, deterministic=True)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns += np.where(alive, rewards, 0.0)
        steps += alive
        ended = terminated | truncated
        alive &= ~ended
        if ended.any() and alive.any():
            observations, _ = envs.reset(options={"reset_mask": ended})
    return summarise(returns.tolist(), steps.tolist())


def summarise(returns: list[float], steps: list[int]) -> dict[str, Any]:
    """Figures over episodes, see `judge`."""
    return {
        "returns": returns,
        "steps": steps,
        "mean": statistics.fmean(returns),
        "std": statistics.pstdev(returns),
        "min": min(returns),
        "max": max(returns),
        "reward_a_step": sum(returns) / sum(steps),
    }
