"""A planner that collects data: random episodes, and some that are planned by a trained model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.policies import Actor, ActorFactory, Random
from worldmodel.imagination.optimizers import icem
from worldmodel.imagination.planning import PlanningPolicy, imagined_return
from worldmodel.run import Run, load

_STREAM = 0x9A1
_PARTS = ("encoder", "predictor", "reward_head", "termination_head")


@dataclass(frozen=True)
class Planned:
    """Each episode is random, or planned for return with noise on its actions, by its seed.

    Plans are short and drawn from few candidates, as they are to explore and not to be the best.

    Args:
        run: Directory of the run whose model plans.
        fraction: Share of planned episodes, in [0, 1].
        noise: Standard deviation of the noise, in half ranges of a Box action.
    """

    run: Path
    fraction: float = 0.1
    noise: float = 0.3
    observes = True

    def identity(self) -> dict[str, Any]:
        """See `Policy`."""
        digest = hashlib.sha256()
        for part in _PARTS:
            digest.update((Run(self.run).models / f"{part}.pth").read_bytes())
        return {
            "name": "planned",
            "sha256": digest.hexdigest(),
            "fraction": self.fraction,
            "noise": self.noise,
        }

    def bind(
        self, action_space: gym.Space, observation_space: gym.Space, steps: int
    ) -> ActorFactory:
        """See `Policy`.

        Raises:
            ValueError: If the model was trained on other observations, or on other actions.
        """
        wm = load(self.run, "cpu")
        *sides, last = wm.spec.frame_shape
        expected = (*sides, wm.frame_stack * last)
        if observation_space.shape != expected:
            raise ValueError(
                f"the model of {self.run} plans from observations of shape {expected}, and the "
                f"environment shows {observation_space.shape}; make it with the same image_size "
                "and frame_stack, or use policy 'random'"
            )
        random = Random().bind(action_space, observation_space, steps)

        def start(seed: int) -> Actor:
            rng = np.random.default_rng((_STREAM, seed))
            if rng.random() >= self.fraction:
                return random(seed)
            optimizer = icem(samples=32, iterations=2, elites=6)
            planner = PlanningPolicy(wm, imagined_return, optimizer, horizon=15, seed=seed)

            def act(t: int, observation: Any) -> np.ndarray:
                action, _ = planner.predict(observation)
                return _noisy(action, action_space, self.noise, rng)

            return act

        return start


def _noisy(action: Any, space: gym.Space, noise: float, rng: np.random.Generator) -> np.ndarray:
    if not isinstance(space, gym.spaces.Box):
        return action
    half = (space.high - space.low) / 2
    shifted = action + noise * half * rng.standard_normal(half.shape)
    return np.clip(shifted, space.low, space.high).astype(space.dtype)
