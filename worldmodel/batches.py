"""Batches of windows: a function of the seed and the update, however training was interrupted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodel.data import ReplayBuffer, Windows
from worldmodel.data.windows import one_start_each
from worldmodel.hyperparameters import Budget
from worldmodel.models import WorldModel


@dataclass(frozen=True)
class Batch:
    """Windows of L frames on the model's device, L = S + horizon.

    Attributes:
        frames: uint8 (B, L, H, W, C), or float32 (B, L, d).
        actions: action vectors, float32 (L-1, B, A); ``actions[t]`` leads from frame t to t+1.
        rewards: float32 (L-1, B).
        terminated: float32 (L-1, B), 1 where the step ended the episode by termination.
    """

    frames: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor


class WindowSampler:
    """Random windows, one from each trajectory per epoch.

    Update `u` takes places ``u * B`` to ``(u + 1) * B`` of an endless sequence of shuffled passes
    over the trajectories, so that its batch depends on the seed and on `u` alone.

    Args:
        buffer: where the trajectories are.
        length: frames L per window.
        batch_size: windows B per batch.
        seed: any sequence of non-negative integers.

    Raises:
        ValueError: If no trajectory is long enough for a window.
    """

    def __init__(
        self, buffer: ReplayBuffer, length: int, batch_size: int, seed: tuple[int, ...]
    ) -> None:
        self.buffer = buffer
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.episodes = buffer.episodes_of_at_least(length)
        if not len(self.episodes):
            raise ValueError(
                f"no trajectory in {buffer.path} has the {length} frames that a window needs; the "
                f"longest has {buffer.lengths.max()}: collect with more steps, or lower "
                "objective.horizon"
            )
        self._pass: tuple[int, np.ndarray] = (-1, self.episodes)

    def updates(self, budget: Budget) -> int:
        """Return the number of batches that a budget allows."""
        if budget.epochs is None:
            return budget.updates or 0
        return math.ceil(budget.epochs * len(self.episodes) / self.batch_size)

    def _order(self, epoch: int) -> np.ndarray:
        if self._pass[0] != epoch:
            rng = np.random.default_rng([*self.seed, 0, epoch])
            self._pass = (epoch, rng.permutation(self.episodes))
        return self._pass[1]

    def batch(self, update: int, model: WorldModel, part: slice = slice(None)) -> Batch:
        """Read the batch of one update, or a part of its windows, on the model's device."""
        return to_batch(self.windows(update, part), model)

    def windows(self, update: int, part: slice = slice(None)) -> Windows:
        """Read the windows of one update, or a part of them."""
        places = np.arange(update * self.batch_size, (update + 1) * self.batch_size)
        epochs, within = np.divmod(places, len(self.episodes))
        chosen = np.concatenate([self._order(e)[within[epochs == e]] for e in np.unique(epochs)])
        rng = np.random.default_rng([*self.seed, 1, update])
        starts = one_start_each(self.buffer.lengths[chosen], self.length, rng)
        return self.buffer.windows(chosen[part], starts[part], self.length)


def to_batch(windows: Windows, model: WorldModel) -> Batch:
    """Move windows to the model's device, with actions as the model takes them."""
    frames, actions, rewards, terminated = (torch.from_numpy(array) for array in windows)
    return Batch(
        frames.to(model.device),
        model.action_vector(actions.transpose(0, 1)),
        rewards.T.to(model.device),
        terminated.T.float().to(model.device),
    )
