"""Training predictors and heads on the latents of a frozen encoder.

The latent space stays as it is, so that agents, probes and the decoder keep their meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.models import WorldModel
from worldmodel.training.grounding import outcome_losses
from worldmodel.training.latents import LatentEpisodes
from worldmodel.training.muon import clipped_step, make_optimizers, step_at
from worldmodel.training.schedule import learning_rate
from worldmodel.training.trainer import Trainer

BATCH = 256
FINAL = 0.02
WARMUP = 100
MAX_GRAD_NORM = 5.0

_STRIDE = 1_000_003


class PredictorTrainer(Trainer):
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
        self.predictor, self.total = predictor, updates
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


class HeadTrainer(Trainer):
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
        self.wm, self.total = wm, updates
        self.peak = learning_rate_peak
        self.draw = _Draw(parts, 1, seed, shares, BATCH)
        self.parameters = [*wm.reward_head.parameters(), *wm.termination_head.parameters()]
        self.optimizers = make_optimizers(self.parameters, "muon")

    def update(self) -> dict[str, Tensor]:
        """One update of both heads."""
        wm = self.wm
        batch = (rows.to(wm.device) for rows in self.draw.transitions(self.step))
        terms = outcome_losses(wm, *batch)
        for parameter in self.parameters:
            parameter.grad = None
        torch.stack(list(terms.values())).sum().backward()
        rate = learning_rate(self.step, self.total, self.peak, WARMUP, FINAL)
        step_at(self.optimizers, rate)
        self.step += 1
        return {name: term.detach() for name, term in terms.items()}


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
