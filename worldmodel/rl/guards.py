"""Guards against an agent that exploits its model's errors.

Dreams are short branches from real latents (MBPO, arXiv:1906.08253). A dream that leaves what the
model was trained on ends there for good, at the worst value that there is (MOReL,
arXiv:2005.05951). Where several predictors disagree, the reward is lowered (MOPO,
arXiv:2005.13239).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from worldmodel.imagination import LatentVectorEnv
from worldmodel.imagination.ensemble import Ensemble

DISCOUNT = 0.98
"""What agents value a reward one step later at: a second counts, at 20 steps each."""

_TRIED = 4096


@dataclass(frozen=True)
class Guards:
    """What is done against exploitation.

    Attributes:
        dream_steps: Longest dream. The value of its last latent counts on, as in any time limit.
        leaving_ends: A dream that leaves the domain ends at the worst value; otherwise it is cut,
            and the value of the latent that left counts.
        ensemble: Predictors whose disagreement is penalised.
        penalty: Reward taken off for each unit of disagreement; a unit is what the predictors
            disagree by at the median of training data.
    """

    dream_steps: int = 50
    leaving_ends: bool = True
    ensemble: Ensemble | None = None
    penalty: float = 0.0

    def facts(self) -> dict[str, Any]:
        """The same as JSON values, `ensemble` as its size."""
        size = 0 if self.ensemble is None else len(self.ensemble.predictors)
        return {
            "dream_steps": self.dream_steps,
            "leaving_ends": self.leaving_ends,
            "ensemble": size,
            "penalty": self.penalty if size else 0.0,
        }


def guard(dream: LatentVectorEnv, guards: Guards) -> gym.vector.VectorEnv:
    """The dream with guards around it; its own time limit is left as it is."""
    envs: gym.vector.VectorEnv = dream
    if guards.ensemble is not None and guards.penalty:
        envs = DisagreementPenalty(envs, dream, guards.ensemble, guards.penalty)
    return LeavingEnds(envs, dream) if guards.leaving_ends else envs


class LeavingEnds(gym.vector.VectorWrapper):
    """A dream that leaves the domain terminates, at the worst value that rewards allow.

    Args:
        env: The dream, perhaps wrapped.
        dream: The dream itself.
    """

    def __init__(self, env: gym.vector.VectorEnv, dream: LatentVectorEnv) -> None:
        super().__init__(env)
        self.worst = least_reward(dream) / (1.0 - DISCOUNT)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the dreams; see the class."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        left = info["out_of_domain"]
        rewards = np.where(left, rewards + self.worst, rewards)
        return observations, rewards, terminated | left, truncated & ~left, info


class DisagreementPenalty(gym.vector.VectorWrapper):
    """Rewards less what the ensemble's disagreement costs.

    Args:
        env: The dream, perhaps wrapped.
        dream: The dream itself.
        ensemble: Predictors of the same latent.
        penalty: Reward a unit of disagreement.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv,
        dream: LatentVectorEnv,
        ensemble: Ensemble,
        penalty: float,
    ) -> None:
        super().__init__(env)
        self.dream, self.ensemble, self.cost = dream, ensemble, penalty

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the dreams; see the class."""
        vectors = self.dream.wm.action_vector(np.asarray(actions))
        disagreement = self.ensemble.disagreement(self.dream.latents, vectors).cpu().numpy()
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        return observations, rewards - self.cost * disagreement, terminated, truncated, info


@torch.no_grad()
def least_reward(dream: LatentVectorEnv) -> float:
    """The least reward among dreams' first steps under random actions, 0 at most."""
    starts = dream.starts[:_TRIED]
    dream.single_action_space.seed(0)
    actions = np.stack([dream.single_action_space.sample() for _ in starts])
    reward, _ = dream.wm.outcome(starts, actions, dream.wm.predict(starts, actions))
    return min(0.0, float(reward.min()))
