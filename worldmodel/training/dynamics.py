"""Training predictors and heads on a frozen encoder: episodes are encoded once, then only latents.

The latent space stays as it is, so that agents, probes and the decoder keep their meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.data import ReplayBuffer
from worldmodel.models import WorldModel
from worldmodel.training.batches import stack_at, to_batch
from worldmodel.training.muon import make_optimizers
from worldmodel.training.schedule import learning_rate, set_learning_rate

BATCH = 256
FINAL = 0.02
MAX_GRAD_NORM = 5.0

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


def fit_predictor(
    predictor: nn.Module,
    parts: Sequence[LatentEpisodes],
    *,
    updates: int,
    learning_rate_peak: float,
    horizon: int,
    seed: int,
    shares: Sequence[float] | None = None,
) -> None:
    """Minimise the squared error of an unrolled predictor at every step.

    Args:
        predictor: Trained in place.
        parts: Encoded episodes.
        updates: Of the weights, on `BATCH` windows each.
        learning_rate_peak: Warmed up to, then cooled on a cosine.
        horizon: Steps unrolled.
        seed: Of the windows.
        shares: Of each part in a batch; by size if not given.
    """
    draw = _Draw(parts, horizon, seed, shares)
    parameters = list(predictor.parameters())
    optimizers = make_optimizers(parameters, "muon", 1e-2)
    for step in range(updates):
        z, actions = draw.windows()
        loss = F.mse_loss(predictor.unroll(z[0], actions), z[1:])  # type: ignore[operator]
        predictor.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        rate = learning_rate(step, updates, learning_rate_peak, 100, FINAL)
        for optimizer in optimizers:
            set_learning_rate(optimizer, rate)
            optimizer.step()


def fit_heads(
    wm: WorldModel,
    parts: Sequence[LatentEpisodes],
    *,
    updates: int,
    learning_rate_peak: float,
    seed: int,
    shares: Sequence[float] | None = None,
) -> None:
    """Train the reward and termination heads, as phase 2 does, on encoded and predicted latents.

    Args:
        wm: Its heads are trained in place.
        parts: See `fit_predictor`, as for the rest.
    """
    draw = _Draw(parts, 1, seed, shares)
    parameters = [*wm.reward_head.parameters(), *wm.termination_head.parameters()]
    optimizers = make_optimizers(parameters, "muon")
    for step in range(updates):
        z, action, following, reward, terminated = draw.transitions()
        with torch.no_grad():
            following = torch.cat((following, wm.predictor(z, action)))
        z, action = torch.cat((z, z)), torch.cat((action, action))
        loss = F.mse_loss(wm.reward_head(z, action, following), reward.repeat(2))
        end = wm.termination_head(z, action, following)
        loss = loss + F.binary_cross_entropy_with_logits(end, terminated.repeat(2))
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        rate = learning_rate(step, updates, learning_rate_peak, 100, FINAL)
        for optimizer in optimizers:
            set_learning_rate(optimizer, rate)
            optimizer.step()


class _Draw:
    """Draws windows from several parts."""

    def __init__(
        self,
        parts: Sequence[LatentEpisodes],
        horizon: int,
        seed: int,
        shares: Sequence[float] | None,
    ) -> None:
        self.parts, self.horizon = parts, horizon
        self.starts = [part.starts(horizon) for part in parts]
        counts = torch.tensor([float(len(s)) for s in self.starts])
        if not counts.sum():
            raise ValueError(f"no episode has the {horizon + 1} latents that a window needs")
        weights = counts if shares is None else torch.tensor(shares) * (counts > 0)
        self.shares = (weights / weights.sum()).tolist()
        self.generator = torch.Generator().manual_seed(seed)

    def windows(self) -> tuple[Tensor, Tensor]:
        """Latents (horizon + 1, BATCH, D) and action vectors (horizon, BATCH, A)."""
        drawn = [
            part.windows(self._rows(starts, round(BATCH * share)), self.horizon)
            for part, starts, share in zip(self.parts, self.starts, self.shares, strict=True)
        ]
        return torch.cat([z for z, _ in drawn], 1), torch.cat([a for _, a in drawn], 1)

    def transitions(self) -> tuple[Tensor, ...]:
        """z, action vectors, next z, rewards and terminations of BATCH steps."""
        drawn = []
        for part, starts, share in zip(self.parts, self.starts, self.shares, strict=True):
            rows = self._rows(starts, round(BATCH * share))
            step = part.z[rows], part.actions[rows], part.z[rows + 1]
            drawn.append((*step, part.rewards[rows], part.terminated[rows]))
        return tuple(torch.cat(column) for column in zip(*drawn, strict=True))

    def _rows(self, starts: Tensor, count: int) -> Tensor:
        if not count:
            return starts[:0]
        return starts[torch.randint(len(starts), (count,), generator=self.generator)]
