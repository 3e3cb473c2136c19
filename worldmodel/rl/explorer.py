"""Collection with an agent on latents: `Explorer`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.agent_files import load_agent_file
from worldmodel.data import Policy
from worldmodel.data.policies import Actor, ActorFactory, seeded_agent
from worldmodel.imagination.domain import require_domain
from worldmodel.models import WorldModel
from worldmodel.planning.policy import noisy

_NOISE_STREAM = 0xE49  # keeps the noise apart from the environment's randomness


@dataclass(frozen=True)
class Explorer(Policy):
    """Collects data with an agent on latents: actions are sampled, and noise is added.

    Args:
        wm: the world model, which encodes the observations.
        agent: path of the agent's ``.zip`` file.
        algo: a key of `worldmodel.rl.agents.ALGORITHMS`.
        noise: standard deviation of the noise, in half ranges of a Box action.
    """

    wm: WorldModel
    agent: Path
    algo: str
    noise: float = 0.2

    uses_observations = False  # it sees stored frames, not the environment's own observations

    @property
    def frame_input(self) -> tuple[tuple[int, ...], int]:
        """Shape of the frames and size of the stacks that the model encodes."""
        return self.wm.spec.frame_shape, self.wm.frames.size

    def identity(self) -> dict[str, Any]:
        """Describe everything that decides the actions, agent and encoder by their hash."""
        digest = hashlib.sha256(self.agent.read_bytes())
        for weights in self.wm.encoder.state_dict().values():
            digest.update(weights.cpu().numpy().tobytes())
        return {
            "name": "explorer",
            "sha256": digest.hexdigest(),
            "algo": self.algo,
            "noise": self.noise,
        }

    def bind(
        self, action_space: gym.Space[Any], observation_space: gym.Space[Any], steps: int
    ) -> ActorFactory:
        """Prepare to act in an environment; see `Policy.bind`."""
        space = require_domain(self.wm).space
        low, high = space.low, space.high
        model = load_agent_file(self.agent, self.algo.upper(), action_space, space)

        def start(seed: int) -> Actor:
            choose = seeded_agent(model, seed, deterministic=False)
            rng = np.random.default_rng((_NOISE_STREAM, seed))

            def act(t: int, observation: Any) -> np.ndarray:
                z = self.wm.encode(observation[None]).cpu().numpy()[0]
                return noisy(choose(np.clip(z, low, high)), action_space, self.noise, rng)

            return act

        return start
