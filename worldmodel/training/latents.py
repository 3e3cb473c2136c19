"""Episodes encoded once by a frozen encoder, to train on their latents alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.data import ReplayBuffer
from worldmodel.models import WorldModel
from worldmodel.training.batches import stack_at, to_batch

_ENCODED = 512  # observations at once


@dataclass(frozen=True)
class LatentEpisodes:
    """Encoded episodes, one behind the other.

    Attributes:
        z: float32 (N, D), latents.
        actions: float32 (N, A), action vectors; row i leads from latent i to i + 1.
        rewards: float32 (N,), of that step.
        terminated: float32 (N,), 1 where that step ended the episode by termination.
        remaining: int64 (N,), latents that follow in the same episode; rows of the four above
            mean nothing where it is 0.
    """

    z: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    remaining: Tensor

    def windows(self, starts: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Latents (horizon + 1, B, D) and action vectors (horizon, B, A) from int64 (B,) rows."""
        rows = starts + torch.arange(horizon + 1)[:, None]
        return self.z[rows], self.actions[rows[:-1]]

    def episodes(self) -> np.ndarray:
        """Which episode each row is of, int64 (N,)."""
        ends = (self.remaining == 0).long()
        return (ends.cumsum(0) - ends).numpy()

    def over(self) -> Tensor:
        """Which rows ended an episode by termination, bool (N,)."""
        return F.pad(self.terminated[:-1], (1, 0)) > 0

    def starts(self, horizon: int) -> Tensor:
        """Rows that so many latents follow, int64 (M,)."""
        return torch.nonzero(self.remaining >= horizon)[:, 0]


def encode_episodes(wm: WorldModel, buffer: ReplayBuffer, episodes: np.ndarray) -> LatentEpisodes:
    """Encode whole episodes, int (E,), those too short for a step left out.

    Raises:
        ValueError: None of them is long enough.
    """
    lengths = np.asarray(buffer.lengths)[episodes]
    enough = lengths > wm.frame_stack
    if not enough.any():
        raise ValueError(f"no episode of {buffer.path} has {wm.frame_stack + 1} frames")
    parts = [
        _encode(wm, buffer, chunk, length)
        for chunk, length in _chunks(episodes[enough], lengths[enough])
    ]
    return concatenate(parts)


def concatenate(parts: Sequence[LatentEpisodes]) -> LatentEpisodes:
    """One behind the other."""
    fields = LatentEpisodes.__dataclass_fields__
    return LatentEpisodes(**{name: torch.cat([getattr(p, name) for p in parts]) for name in fields})


def _chunks(episodes: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Episodes of one length at a time, and not too many."""
    for length in np.unique(lengths):
        same = episodes[lengths == length]
        count = max(1, _ENCODED // int(length))
        for i in range(0, len(same), count):
            yield same[i : i + count], int(length)


def _encode(
    wm: WorldModel, buffer: ReplayBuffer, episodes: np.ndarray, length: int
) -> LatentEpisodes:
    batch = to_batch(buffer.windows(episodes, np.zeros_like(episodes), length), wm)
    s = wm.frame_stack
    observations = torch.stack(
        [stack_at(batch.frames, newest, s) for newest in range(s - 1, length)], dim=1
    )
    z = wm.encode(observations.flatten(0, 1))
    steps = length - s

    def rows(values: Tensor) -> Tensor:
        """(T, B, ...) of transitions to (B * (steps + 1), ...), the last row of each empty."""
        mine = values[s - 1 :].transpose(0, 1)
        return F.pad(mine, (0, 0) * (mine.ndim - 2) + (0, 1)).flatten(0, 1).cpu()

    return LatentEpisodes(
        z.cpu(),
        rows(batch.actions),
        rows(batch.rewards),
        rows(batch.terminated),
        torch.arange(steps, -1, -1).repeat(len(episodes)),
    )
