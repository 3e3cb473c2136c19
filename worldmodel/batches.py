"""Batches of windows: a function of the seed and the update, however training was interrupted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodel.accelerator import to_device
from worldmodel.data import ReplayBuffer, Windows
from worldmodel.data.windows import one_start_each
from worldmodel.device_buffer import DeviceReplayBuffer
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
        if isinstance(self.buffer, DeviceReplayBuffer):
            return Batch(*self.buffer.gather(*self._draw(update, part), self.length))
        return to_batch(self.windows(update, part, pinned=model.device.type == "cuda"), model)

    def windows(self, update: int, part: slice = slice(None), *, pinned: bool = False) -> Windows:
        """Read the windows of one update, or a part of them, into pinned memory if needed."""
        episodes, starts = self._draw(update, part)
        out = _pinned_windows(self.buffer, len(episodes), self.length) if pinned else None
        return self.buffer.windows(episodes, starts, self.length, out)

    def _draw(self, update: int, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Draw a part of the windows of one update: episodes and first frames, int64 (B,)."""
        places = np.arange(update * self.batch_size, (update + 1) * self.batch_size)
        epochs, within = np.divmod(places, len(self.episodes))
        chosen = np.concatenate([self._order(e)[within[epochs == e]] for e in np.unique(epochs)])
        rng = np.random.default_rng([*self.seed, 1, update])
        starts = one_start_each(self.buffer.lengths[chosen], self.length, rng)
        return chosen[part], starts[part]


def _pinned_windows(buffer: ReplayBuffer, count: int, length: int) -> Windows:
    """Allocate windows in pinned memory, from which copies to a GPU need not be waited for."""
    parts = [torch.from_numpy(array) for array in buffer.empty_windows(count, length)]
    return Windows(*(torch.empty_like(part, pin_memory=True).numpy() for part in parts))


def to_batch(windows: Windows, model: WorldModel) -> Batch:
    """Move windows to the model's device, with actions as the model takes them."""
    device = model.device
    frames, actions, rewards, terminated = (
        to_device(torch.from_numpy(array), device) for array in windows
    )
    return Batch(
        frames,
        model.action_vector(actions.transpose(0, 1)),
        rewards.T,
        terminated.T.float(),
    )
