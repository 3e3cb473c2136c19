"""An agent of latents as a policy that collects data, exploring."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.agent import seeded_agent
from worldmodel.data.policies import Actor, ActorFactory
from worldmodel.imagination.planned import noisy
from worldmodel.models import WorldModel
from worldmodel.rl.algorithms import ALGORITHMS

_STREAM = 0xE49


@dataclass(frozen=True)
class Explorer:
    """Draws the actions of an agent that was trained on latents, and adds noise to them.

    Args:
        wm: Encodes what is seen.
        agent: The ``.zip`` file.
        algo: A key of `ALGORITHMS`.
        noise: Standard deviation of the noise, in half ranges of a Box action.
    """

    wm: WorldModel
    agent: Path
    algo: str
    noise: float = 0.2
    observes = False

    @property
    def sees(self) -> tuple[tuple[int, ...], int]:
        """See `Policy`."""
        return self.wm.spec.frame_shape, self.wm.frame_stack

    def identity(self) -> dict[str, Any]:
        """See `Policy`."""
        return {
            "name": "explorer",
            "sha256": hashlib.sha256(self.agent.read_bytes()).hexdigest(),
            "algo": self.algo,
            "noise": self.noise,
        }

    def bind(
        self, action_space: gym.Space, observation_space: gym.Space, steps: int
    ) -> ActorFactory:
        """See `Policy`."""
        model = ALGORITHMS[self.algo].load(self.agent, device="cpu")
        low, high = model.observation_space.low, model.observation_space.high

        def start(seed: int) -> Actor:
            acting = seeded_agent(model, seed, deterministic=False)
            rng = np.random.default_rng((_STREAM, seed))

            def act(t: int, observation: Any) -> np.ndarray:
                z = self.wm.encode(observation[None]).cpu().numpy()[0]
                return noisy(acting(np.clip(z, low, high)), action_space, self.noise, rng)

            return act

        return start
