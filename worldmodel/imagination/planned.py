"""A trained model's planner as a policy that collects data."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.policies import Actor, ActorFactory, Random
from worldmodel.imagination.optimizers import CEM, icem
from worldmodel.imagination.planning import HORIZON, PlanningPolicy
from worldmodel.models.spec import describe_actions
from worldmodel.run import Run, load

_STREAM = 0x9A1
_PARTS = ("encoder", "predictor", "reward_head", "termination_head")


@dataclass(frozen=True)
class Planned:
    """Each episode is planned for return by a run's model, or random, by its seed.

    The defaults explore: few episodes are planned, with short searches and noise on the actions.

    Args:
        run: Directory of the run whose model plans.
        fraction: Share of planned episodes, in [0, 1].
        noise: Standard deviation of the noise, in half ranges of a Box action.
        optimizer: Of the search.
        horizon: Steps ahead.
    """

    run: Path
    fraction: float = 0.1
    noise: float = 0.3
    optimizer: CEM = icem(samples=32, iterations=2, elites=6)  # noqa: RUF009 (it is frozen)
    horizon: int = 15
    observes = False

    @property
    def sees(self) -> tuple[tuple[int, ...], int]:
        """See `Policy`."""
        spec = load(self.run, "cpu").spec
        return spec.frame_shape, spec.frame_stack

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
            "optimizer": asdict(self.optimizer),
            "horizon": self.horizon,
            "random": Random().identity(),
        }

    def bind(
        self, action_space: gym.Space, observation_space: gym.Space, steps: int
    ) -> ActorFactory:
        """See `Policy`.

        Raises:
            ValueError: If the model was trained on other actions.
        """
        wm = load(self.run, "cpu")
        if describe_actions(action_space) != wm.spec.actions:
            raise ValueError(
                f"the model of {self.run} plans {wm.spec.actions}, and the environment takes "
                f"{action_space}; use policy 'random'"
            )
        random = Random().bind(action_space, observation_space, steps)

        def start(seed: int) -> Actor:
            rng = np.random.default_rng((_STREAM, seed))
            if rng.random() >= self.fraction:
                return random(seed)
            planner = PlanningPolicy(wm, optimizer=self.optimizer, horizon=self.horizon, seed=seed)

            def act(t: int, observation: Any) -> np.ndarray:
                action, _ = planner.predict(observation)
                return noisy(action, action_space, self.noise, rng)

            return act

        return start


def planner_of(run: Path) -> Planned:
    """The planner at its best: every episode, without noise."""
    return Planned(run, fraction=1.0, noise=0.0, optimizer=icem(), horizon=HORIZON)


def noisy(action: Any, space: gym.Space, noise: float, rng: np.random.Generator) -> np.ndarray:
    """A Box action with Gaussian noise, in half ranges, on it; other actions as they are."""
    if not isinstance(space, gym.spaces.Box):
        return action
    half = (space.high - space.low) / 2
    shifted = action + noise * half * rng.standard_normal(half.shape)
    return np.clip(shifted, space.low, space.high).astype(space.dtype)
