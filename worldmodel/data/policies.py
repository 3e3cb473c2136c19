"""Policies that collect data without looking: passive, random, and a mixture of both.

A policy is bound to an environment once and then asked for one actor an episode. All its
randomness derives from the episode's seed, so an episode does not depend on which others are
collected beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

Actor = Callable[[int, Any], np.ndarray]
"""Maps the step within the episode and the observation to an action."""

ActorFactory = Callable[[int], Actor]
"""Maps an episode's seed to its actor."""

_STREAM = 0x0AC7  # keeps the actions' randomness apart from the environment's, which has the seed


class Policy(Protocol):
    """What `collect` asks of a policy."""

    @property
    def observes(self) -> bool:
        """Whether actions depend on the environment's own observations."""

    @property
    def sees(self) -> tuple[tuple[int, ...], int] | None:
        """Shape and number of the stored frames that actors are shown stacked, oldest first.

        None if they are given the environment's own observations.
        """

    def identity(self) -> dict[str, Any]:
        """Everything that decides the actions, as JSON values."""

    def bind(
        self, action_space: gym.Space, observation_space: gym.Space, steps: int
    ) -> ActorFactory:
        """Prepare to act in an environment for episodes of at most ``steps`` steps."""


@dataclass(frozen=True)
class Passive:
    """Zero action at every step: what the environment does by itself."""

    observes = False
    sees = None

    def identity(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"name": "passive"}

    def bind(
        self, action_space: gym.Space, observation_space: gym.Space, steps: int
    ) -> ActorFactory:
        """See `Policy`.

        Raises:
            ValueError: if zero is no action of the space.
        """
        if not isinstance(action_space, gym.spaces.Box):
            raise ValueError(
                f"policy 'passive' means a zero action, which {action_space} does not have; "
                "use policy 'random' or a saved agent"
            )
        zero = np.zeros(action_space.shape, action_space.dtype)
        if not action_space.contains(zero):
            raise ValueError(
                f"policy 'passive' means a zero action, but 0 is outside {action_space}; "
                "use policy 'random' or a saved agent"
            )
        return lambda seed: lambda t, observation: zero


@dataclass(frozen=True)
class Random:
    """Uniform random actions, each held for a random number of steps.

    Args:
        hold: fewest and most steps an action is held, both included.
    """

    hold: tuple[int, int] = (1, 8)
    observes = False
    sees = None

    def __post_init__(self) -> None:
        low, high = self.hold
        if not 1 <= low <= high:
            raise ValueError(f"hold is {self.hold}; expected (fewest, most) steps from 1 up")

    def identity(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"name": "random", "hold": list(self.hold), "streams": 2}

    def bind(
        self, action_space: gym.Space, observation_space: gym.Space, steps: int
    ) -> ActorFactory:
        """See `Policy`.

        Raises:
            ValueError: if the space has no bounds to draw within.
        """
        draw = _uniform(action_space)

        def start(seed: int) -> Actor:
            actions = self._held(draw, steps, seed)
            return lambda t, observation: actions[t]

        return start

    def _held(
        self, draw: Callable[[np.random.Generator, int], np.ndarray], steps: int, seed: int
    ) -> np.ndarray:
        """Actions of a whole episode, (steps, *action_shape); a longer one begins with them."""
        low, high = self.hold
        timing, choice = np.random.default_rng((_STREAM, seed)).spawn(2)
        holds = timing.integers(low, high, size=-(-steps // low), endpoint=True)
        segments = int(np.searchsorted(np.cumsum(holds), steps)) + 1
        return np.repeat(draw(choice, segments), holds[:segments], axis=0)[:steps]


@dataclass(frozen=True)
class Mixed:
    """Each episode is passive or random, drawn from its seed.

    Args:
        random_fraction: share of random episodes, in [0, 1].
        hold: as in `Random`.
    """

    random_fraction: float = 0.5
    hold: tuple[int, int] = (1, 8)
    observes = False
    sees = None

    def __post_init__(self) -> None:
        if not 0 <= self.random_fraction <= 1:
            raise ValueError(f"random_fraction is {self.random_fraction}; expected 0 to 1")

    def identity(self) -> dict[str, Any]:
        """See `Policy`."""
        fraction = float(self.random_fraction)
        random = Random(self.hold).identity()
        return {"name": "mixed", "random_fraction": fraction, "random": random}

    def bind(
        self, action_space: gym.Space, observation_space: gym.Space, steps: int
    ) -> ActorFactory:
        """See `Policy`.

        Raises:
            ValueError: if either policy cannot act in the space.
        """
        passive = Passive().bind(action_space, observation_space, steps)
        random = Random(self.hold).bind(action_space, observation_space, steps)

        def start(seed: int) -> Actor:
            is_random = np.random.default_rng((_STREAM + 1, seed)).random() < self.random_fraction
            return random(seed) if is_random else passive(seed)

        return start


def _uniform(space: gym.Space) -> Callable[[np.random.Generator, int], np.ndarray]:
    """A function that draws ``count`` actions of the space, (count, *space.shape)."""
    if isinstance(space, gym.spaces.Discrete):
        first, n = int(space.start), int(space.n)
        return lambda rng, count: rng.integers(first, first + n, size=count)
    if isinstance(space, gym.spaces.Box) and space.is_bounded("both"):
        box = space
        low, high = box.low.astype(np.float64), box.high.astype(np.float64)
        return lambda rng, count: rng.uniform(low, high, (count, *box.shape)).astype(box.dtype)
    raise ValueError(
        f"policy 'random' draws within the bounds of a Box or Discrete space, not {space}; "
        "bound the actions with gymnasium.wrappers.RescaleAction or use a saved agent"
    )
