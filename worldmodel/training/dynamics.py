"""Training predictors and heads on a frozen encoder: episodes are encoded once, then only latents.

The latent space stays as it is, so that agents, probes and the decoder keep their meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.data import ReplayBuffer
from worldmodel.models import WorldModel
from worldmodel.training.batches import stack_at, to_batch
from worldmodel.training.muon import clipped_step, make_optimizers
from worldmodel.training.progress import progress_of, restore_progress
from worldmodel.training.schedule import learning_rate, set_learning_rate

BATCH = 256
FINAL = 0.02
WARMUP = 100
MAX_GRAD_NORM = 5.0

_ENCODED = 512  # observations at once
_STRIDE = 1_000_003


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


class PredictorTrainer:
    """Minimises the squared error of an unrolled predictor at every step, one update a call.

    Args:
        predictor: Trained in place.
        parts: Encoded episodes.
        updates: Of the weights, on `batch_size` windows each.
        learning_rate_peak: Warmed up to, then cooled on a cosine.
        horizon: Steps unrolled.
        seed: Of the windows.
        shares: Of each part in a batch; by size if not given.
        batch_size: Windows an update.

    Raises:
        ValueError: No episode is long enough.
    """

    def __init__(
        self,
        predictor: nn.Module,
        parts: Sequence[LatentEpisodes],
        *,
        updates: int,
        learning_rate_peak: float,
        horizon: int,
        seed: int,
        shares: Sequence[float] | None = None,
        batch_size: int = BATCH,
    ) -> None:
        self.predictor, self.total, self.step = predictor, updates, 0
        self.peak = learning_rate_peak
        self.draw = _Draw(parts, horizon, seed, shares, batch_size)
        self.parameters = list(predictor.parameters())
        self.optimizers = make_optimizers(self.parameters, "muon", 1e-2)

    def update(self) -> dict[str, Tensor]:
        """One update of the predictor; none if its gradient is not finite."""
        device = self.parameters[0].device
        z, actions = (rows.to(device) for rows in self.draw.windows(self.step))
        loss = F.mse_loss(self.predictor.unroll(z[0], actions), z[1:])  # type: ignore[operator]
        self.predictor.zero_grad()
        loss.backward()
        rate = learning_rate(self.step, self.total, self.peak, WARMUP, FINAL)
        clipped_step(self.optimizers, self.parameters, rate, MAX_GRAD_NORM)
        self.step += 1
        return {"prediction": loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        """All that exact resumption needs, the model's weights left out."""
        return progress_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        restore_progress(self, state)


def fit_predictor(predictor: nn.Module, parts: Sequence[LatentEpisodes], **how: Any) -> None:
    """Run a `PredictorTrainer`, whose arguments these are, to its end."""
    trainer = PredictorTrainer(predictor, parts, **how)
    while trainer.step < trainer.total:
        trainer.update()


class HeadTrainer:
    """Trains the reward and termination heads, as phase 2 does, on encoded and predicted latents.

    Args:
        wm: Its heads are trained in place.
        parts: See `PredictorTrainer`, as for the rest.
    """

    def __init__(
        self,
        wm: WorldModel,
        parts: Sequence[LatentEpisodes],
        *,
        updates: int,
        learning_rate_peak: float,
        seed: int,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.wm, self.total, self.step = wm, updates, 0
        self.peak = learning_rate_peak
        self.draw = _Draw(parts, 1, seed, shares, BATCH)
        self.parameters = [*wm.reward_head.parameters(), *wm.termination_head.parameters()]
        self.optimizers = make_optimizers(self.parameters, "muon")

    def update(self) -> dict[str, Tensor]:
        """One update of both heads."""
        wm = self.wm
        batch = (rows.to(wm.device) for rows in self.draw.transitions(self.step))
        z, action, following, reward, terminated = batch
        with torch.no_grad():
            following = torch.cat((following, wm.predictor(z, action)))
        move = torch.cat((z, z)), torch.cat((action, action)), following
        terms = {
            "reward": F.mse_loss(wm.reward_head(*move), reward.repeat(2)),
            "termination": F.binary_cross_entropy_with_logits(
                wm.termination_head(*move), terminated.repeat(2)
            ),
        }
        for parameter in self.parameters:
            parameter.grad = None
        torch.stack(list(terms.values())).sum().backward()
        rate = learning_rate(self.step, self.total, self.peak, WARMUP, FINAL)
        for optimizer in self.optimizers:
            set_learning_rate(optimizer, rate)
            optimizer.step()
        self.step += 1
        return {name: term.detach() for name, term in terms.items()}

    def state_dict(self) -> dict[str, Any]:
        """All that exact resumption needs, the model's weights left out."""
        return progress_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        restore_progress(self, state)


def fit_heads(wm: WorldModel, parts: Sequence[LatentEpisodes], **how: Any) -> None:
    """Run a `HeadTrainer`, whose arguments these are, to its end."""
    trainer = HeadTrainer(wm, parts, **how)
    while trainer.step < trainer.total:
        trainer.update()


class _Draw:
    """Draws windows from several parts."""

    def __init__(
        self,
        parts: Sequence[LatentEpisodes],
        horizon: int,
        seed: int,
        shares: Sequence[float] | None,
        batch_size: int,
    ) -> None:
        self.parts, self.horizon, self.seed = parts, horizon, seed
        self.batch_size = batch_size
        self.starts = [part.starts(horizon) for part in parts]
        counts = torch.tensor([float(len(s)) for s in self.starts])
        if not counts.sum():
            raise ValueError(f"no episode has the {horizon + 1} latents that a window needs")
        weights = counts if shares is None else torch.tensor(shares) * (counts > 0)
        self.shares = (weights / weights.sum()).tolist()

    def windows(self, step: int) -> tuple[Tensor, Tensor]:
        """Latents (horizon + 1, B, D) and action vectors (horizon, B, A) of one update."""
        drawn = [part.windows(rows, self.horizon) for part, rows in self._rows(step)]
        return torch.cat([z for z, _ in drawn], 1), torch.cat([a for _, a in drawn], 1)

    def transitions(self, step: int) -> tuple[Tensor, ...]:
        """z, action vectors, next z, rewards and terminations of B steps."""
        drawn = []
        for part, rows in self._rows(step):
            move = part.z[rows], part.actions[rows], part.z[rows + 1]
            drawn.append((*move, part.rewards[rows], part.terminated[rows]))
        return tuple(torch.cat(column) for column in zip(*drawn, strict=True))

    def _rows(self, step: int) -> Iterator[tuple[LatentEpisodes, Tensor]]:
        """First rows of windows, by the seed and the step alone."""
        generator = torch.Generator().manual_seed(_STRIDE * self.seed + step)
        for part, starts, share in zip(self.parts, self.starts, self.shares, strict=True):
            count = round(self.batch_size * share)
            if count:
                yield part, starts[torch.randint(len(starts), (count,), generator=generator)]
