"""Planning: act in the real environment by searching among imagined futures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.imagination.optimizers import MAX_ACTION, Optimizer, Search, make_optimizer
from worldmodel.models import WorldModel
from worldmodel.models.spec import DiscreteActions

HORIZON = 20

Objective = Callable[[WorldModel, Tensor, Tensor], Tensor]
"""Maps a model, latents (H+1, M, D) and action vectors (H, M, A) to values (M,)."""


def imagined_return(wm: WorldModel, latents: Tensor, actions: Tensor) -> Tensor:
    """The rewards that the heads give, summed while the episode is likely to go on.

    Args:
        wm: The world model.
        latents: float32 (H+1, M, D).
        actions: float32 (H, M, A), action vectors.

    Returns:
        float32 (M,).
    """
    steps, count, _ = actions.shape
    before, act, after = (part.flatten(0, 1) for part in (latents[:-1], actions, latents[1:]))
    rewards = wm.reward_head(before, act, after).view(steps, count)
    going_on = (1 - wm.termination_head(before, act, after).sigmoid()).view(steps, count)
    alive = torch.cat([torch.ones_like(going_on[:1]), going_on[:-1].cumprod(0)])
    return (alive * rewards).sum(0)


def nearness(goal: Tensor) -> Objective:
    """The negative distance to a goal latent, float32 (D,): its mean over the steps and its least.

    The least draws towards a goal that most of the steps cannot be near yet, the mean holds it.
    """

    def value(wm: WorldModel, latents: Tensor, actions: Tensor) -> Tensor:
        distance = (latents[1:] - goal).norm(dim=-1)  # (H, M)
        return -distance.mean(0) - distance.amin(0)

    return value


class PlanningPolicy:
    """Model predictive control: plan H steps, take the first action, look, plan again.

    Each search begins at the last plan, shifted by one step. Discrete actions are searched as the
    largest of n numbers. The interface is that of Stable-Baselines3's models, so that its
    `evaluate_policy` takes one.

    Args:
        wm: The world model.
        objective: `imagined_return`, `nearness(goal)`, or another.
        optimizer: From `worldmodel.imagination.optimizers`, or "icem", "cem" or "mppi".
        horizon: H.
        seed: Of the search.

    Raises:
        ValueError: If the horizon is below 1, or there is no such method.
    """

    def __init__(
        self,
        wm: WorldModel,
        objective: Objective = imagined_return,
        optimizer: Optimizer | str = "icem",
        *,
        horizon: int = HORIZON,
        seed: int = 0,
    ) -> None:
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}; expected 1 step or more")
        self.wm = wm
        self.objective = objective
        self.optimizer: Optimizer = (
            make_optimizer(optimizer) if isinstance(optimizer, str) else optimizer
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
    ) -> tuple[Any, None]:
        """Choose actions.

        Args:
            observation: (B, ...), or one without the batch, as `WorldModel.encode` takes them.
            state: Unused.
            episode_start: bool (B,), where an episode begins and the last plan is forgotten.
            deterministic: Unused: a search draws candidates from its own generator.

        Returns:
            Actions of the environment, (B, A), or (B,) if discrete, without B for one observation;
            and None.
        """
        frame_axes = len(self.wm.spec.frame_shape)
        single = np.ndim(observation) == frame_axes
        batch = observation[None] if single else observation
        started = None if episode_start is None else np.atleast_1d(episode_start)
        plan = self.plan(self.wm.encode(batch), started)
        actions = self._as_actions(plan[0])
        return (actions[0] if single else actions), None

    @torch.no_grad()
    def plan(self, z: Tensor, started: np.ndarray | None = None) -> Tensor:
        """Plan from latents.

        Args:
            z: float32 (B, D).
            started: bool (B,), where to forget the last plan.

        Returns:
            Numbers that stand for actions, float32 (H, B, A), in [-1, 1].
        """
        begin = self._begin(z, started)

        def score(candidates: Tensor) -> Tensor:
            _, problems, count, _ = candidates.shape
            actions = self._as_vectors(candidates).flatten(1, 2)  # (H, B * N, A)
            first = z.repeat_interleave(count, 0)
            latents = torch.cat([first[None], self.wm.predictor.unroll(first, actions)])
            return self.objective(self.wm, latents, actions).view(problems, count)

        self._last = self.optimizer.search(score, begin, self._generator)
        return self._last.actions

    @torch.no_grad()
    def imagine(self, z: Tensor) -> Tensor:
        """What the last plan leads to from the latents (B, D) it was made for: (H, B, D)."""
        if self._last is None:
            raise ValueError("there is no plan yet: call predict() or plan() first")
        return self.wm.predictor.unroll(z, self._as_vectors(self._last.actions))

    def _begin(self, z: Tensor, started: np.ndarray | None) -> Search:
        size = self.wm.spec.actions.dim
        if self._last is None or self._last.mean.shape[1] != len(z):
            none = z.new_zeros(self.horizon, len(z), size)
            return Search(none, none, none[:, :, None][:, :, :0])
        begin = self._last.shifted()
        if started is not None and started.any():
            for part in begin:
                part[:, torch.as_tensor(started, device=z.device)] = 0.0
        return begin

    def _as_vectors(self, numbers: Tensor) -> Tensor:
        """What the model takes: action vectors."""
        actions = self.wm.spec.actions
        if isinstance(actions, DiscreteActions):
            return F.one_hot(numbers.argmax(-1), actions.n).float()
        return numbers

    def _as_actions(self, numbers: Tensor) -> np.ndarray:
        """What the environment takes."""
        actions = self.wm.spec.actions
        if isinstance(actions, DiscreteActions):
            return numbers.argmax(-1).cpu().numpy() + actions.start
        low, high = np.array(actions.low, np.float32), np.array(actions.high, np.float32)
        return low + (numbers.cpu().numpy() + MAX_ACTION) / (2 * MAX_ACTION) * (high - low)
