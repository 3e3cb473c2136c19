"""Model predictive control with a world model, and the policy that collects data with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.data.policies import Actor, ActorFactory, Policy, Random
from worldmodel.models import (
    DiscreteActions,
    WorldModel,
    describe_actions,
    imagined_return,
    unroll,
)
from worldmodel.planning.planners import (
    MAX_ACTION,
    Search,
    TrajectoryOptimizer,
    icem,
    make_planner,
    planner_settings,
)
from worldmodel.run import Run

PlanObjective = Callable[[WorldModel, Tensor, Tensor], Tensor]
"""Maps a model, latents (H+1, M, D) and action vectors (H, M, A) to values (M,)."""


def goal_distance(goal: Tensor) -> PlanObjective:
    """Make the objective of reaching a goal latent.

    Its value is the negative mean distance to the goal over the steps, less the minimum distance.
    The minimum attracts towards a goal that is still out of reach of most steps, the mean keeps the
    plan there.

    Args:
        goal: float32 (D,).
    """

    def value(wm: WorldModel, latents: Tensor, actions: Tensor) -> Tensor:
        distance = (latents[1:] - goal).norm(dim=-1)  # (H, M)
        total: Tensor = distance.mean(0) + distance.amin(0)
        return -total

    return value


class PlanningPolicy:
    """Model predictive control: plan H steps, take the first action, observe, plan again.

    Each search starts from the last plan, shifted by one step. For discrete actions, each candidate
    has one number per action, and the largest one selects the action. The interface is that of
    models of Stable-Baselines3, whose `evaluate_policy` accepts a `PlanningPolicy`.

    Args:
        wm: the world model.
        objective: `imagined_return`, ``goal_distance(goal)``, or another function.
        optimizer: ``"icem"``, ``"cem"``, ``"mppi"``, ``module:Name``, or an object of
            `worldmodel.planning.planners`.
        horizon: steps ahead H.
        seed: random seed of the search.

    Raises:
        ValueError: If the horizon is below 1, or there is no such planner.
    """

    def __init__(
        self,
        wm: WorldModel,
        objective: PlanObjective = imagined_return,
        optimizer: TrajectoryOptimizer | str = "icem",
        *,
        horizon: int = 20,
        seed: int = 0,
    ) -> None:
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}; expected 1 step or more")
        self.wm = wm
        self.objective = objective
        self.optimizer: TrajectoryOptimizer = (
            make_planner(optimizer) if isinstance(optimizer, str) else optimizer
        )
        self.horizon = horizon
        self._generator = torch.Generator(wm.device).manual_seed(seed)
        self._last: Search | None = None

    def predict(
        self,
        observation: np.ndarray,
        state: None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """Choose actions.

        Args:
            observation: (B, ...) as `WorldModel.encode` takes them, or one without B.
            state: unused.
            episode_start: bool (B,), where an episode starts and the last plan is discarded.
            deterministic: unused; a search draws candidates from its own generator.

        Returns:
            Actions of the environment, (B, A), or (B,) if discrete, without B for one observation;
            and None.
        """
        single = np.ndim(observation) == len(self.wm.spec.frame_shape)
        batch = observation[None] if single else observation
        starts = None if episode_start is None else np.atleast_1d(episode_start)
        actions = self._to_actions(self.plan(self.wm.encode(batch), starts)[0])
        return (actions[0] if single else actions), None

    @torch.no_grad()
    def plan(self, z: Tensor, episode_start: np.ndarray | None = None) -> Tensor:
        """Plan from latents.

        Args:
            z: float32 (B, D).
            episode_start: bool (B,), where the last plan is discarded.

        Returns:
            The plans, float32 (H, B, A) in [-1, 1], as action vectors or one number per discrete
            action.
        """

        def score(candidates: Tensor) -> Tensor:
            _, problems, count, _ = candidates.shape
            vectors = self._to_vectors(candidates).flatten(1, 2)  # (H, B * N, A)
            first = z.repeat_interleave(count, 0)
            latents = torch.cat([first[None], unroll(self.wm.predictor, first, vectors)])
            return self.objective(self.wm, latents, vectors).view(problems, count)

        initial = self._initial_search(z, episode_start)
        self._last = self.optimizer.search(score, initial, self._generator)
        return self._last.actions

    @torch.no_grad()
    def imagine(self, z: Tensor) -> Tensor:
        """Roll out the last plan from the latents (B, D) it was made for: (H, B, D).

        Raises:
            ValueError: If there is no plan yet.
        """
        if self._last is None:
            raise ValueError("there is no plan yet: call predict() or plan() first")
        return unroll(self.wm.predictor, z, self._to_vectors(self._last.actions))

    def _initial_search(self, z: Tensor, episode_start: np.ndarray | None) -> Search:
        if self._last is None or self._last.mean.shape[1] != len(z):
            return Search.zeros(self.horizon, len(z), self.wm.spec.actions.dim, z.device)
        initial = self._last.shifted()
        if episode_start is not None and episode_start.any():
            for part in initial:
                part[:, torch.as_tensor(episode_start, device=z.device)] = 0.0
        return initial

    def _to_vectors(self, plan: Tensor) -> Tensor:
        """Turn a plan (..., A) into the model's action vectors (..., A)."""
        actions = self.wm.spec.actions
        if isinstance(actions, DiscreteActions):
            return F.one_hot(plan.argmax(-1), actions.n).float()
        return plan

    def _to_actions(self, plan: Tensor) -> np.ndarray:
        """Turn a plan (..., A) into actions of the environment, (..., A), or (...,) if discrete."""
        actions = self.wm.spec.actions
        if isinstance(actions, DiscreteActions):
            indices: np.ndarray = plan.argmax(-1).cpu().numpy()
            return indices + actions.start
        low, high = np.array(actions.low, np.float32), np.array(actions.high, np.float32)
        return low + (plan.cpu().numpy() + MAX_ACTION) / (2 * MAX_ACTION) * (high - low)


_STREAM = (
    0x9A1  # keeps the draws of this policy apart from those of the environment and of `Random`
)


@dataclass(frozen=True)
class Planned(Policy):
    """Collects data with the model of a run: some episodes are planned, the others are random.

    The seed of an episode decides which. The defaults explore: few planned episodes, short
    searches, and noise on the actions.

    Args:
        run: directory of the run whose model plans to maximize the imagined return.
        fraction: fraction of planned episodes, in [0, 1].
        noise: standard deviation of the noise on planned Box actions, in half ranges.
        optimizer: of action sequences.
        horizon: steps ahead.
    """

    run: str | Path
    fraction: float = 0.1
    noise: float = 0.3
    optimizer: TrajectoryOptimizer = icem(samples=32, iterations=2, elites=6)  # noqa: RUF009 (frozen)
    horizon: int = 15

    @cached_property
    def _opened(self) -> Run:
        return Run(self.run, "cpu")

    @property
    def uses_observations(self) -> bool:
        """False, because the policy sees stored frames, not the environment's own observations."""
        return False

    @property
    def frame_input(self) -> tuple[tuple[int, ...], int]:
        """Shape of the frames and size of the stacks that the model encodes."""
        spec = self._opened.model.spec
        return spec.frame_shape, spec.frame_stack

    def identity(self) -> dict[str, Any]:
        """Describe everything that decides the actions, the weights by their hash."""
        digest = hashlib.sha256()
        spec = self._opened.model.spec
        for part in ("encoder", "predictor", *spec.heads):
            digest.update(self._opened.weights_path(part).read_bytes())
        return {
            "name": "planned",
            "sha256": digest.hexdigest(),
            "fraction": self.fraction,
            "noise": self.noise,
            "optimizer": planner_settings(self.optimizer),
            "horizon": self.horizon,
            "random": Random().identity(),
        }

    def bind(
        self, action_space: gym.Space[Any], observation_space: gym.Space[Any], steps: int
    ) -> ActorFactory:
        """Prepare to act in an environment; see `Policy.bind`.

        Raises:
            RunError: If the run has no trained model.
            ValueError: If the model was trained on other actions.
        """
        wm = self._opened.model
        if describe_actions(action_space) != wm.spec.actions:
            raise ValueError(
                f"the model of {self.run} was trained on actions {wm.spec.actions}, but the "
                f"environment has {action_space}; use policy 'random'"
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


def planner_of(run: Run | str | Path) -> Planned:
    """Make the policy that plans every episode without noise, by the configuration of a run."""
    run = run if isinstance(run, Run) else Run(run, "cpu")
    settings = run.config.planning
    optimizer = make_planner(
        settings.method, settings.samples, settings.iterations, **settings.kwargs
    )
    return Planned(run.path, 1.0, 0.0, optimizer, settings.horizon)


def noisy(
    action: np.ndarray, space: gym.Space[Any], noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Add Gaussian noise to a Box action and clip it to the bounds; return others unchanged.

    Args:
        action: of the space.
        space: the action space.
        noise: standard deviation, in half ranges of the space.
        rng: source of the noise.
    """
    if not isinstance(space, gym.spaces.Box):
        return action
    half = (space.high - space.low) / 2
    shifted = action + noise * half * rng.standard_normal(half.shape)
    clipped: np.ndarray = np.clip(shifted, space.low, space.high).astype(space.dtype)
    return clipped
