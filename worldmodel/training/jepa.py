"""Phase 1: the joint-embedding predictive architecture, self-supervised, with no pixel loss.

The context encoder maps a stack of frames to a latent, the predictor is unrolled from it under
the recorded actions, and its predictions meet the latents that the target encoder, an exponential
moving average behind a stop-gradient, gives to the frames that came (BYOL, arXiv:2006.07733;
I-JEPA, arXiv:2301.08243). A regulariser on the predictions keeps the latent from collapsing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.config import Config, Objective
from worldmodel.data import ReplayBuffer
from worldmodel.models import WorldModel
from worldmodel.objectives import covariance_penalty, random_directions, sigreg, variance_hinge
from worldmodel.training.batches import Batch, WindowSampler, stack_at
from worldmodel.training.muon import clipped_step, make_optimizers
from worldmodel.training.schedule import cosine, learning_rate
from worldmodel.training.trainer import Trainer

Terms = dict[str, Tensor]


def forecast(model: WorldModel, batch: Batch, objective: Objective) -> tuple[Tensor, Tensor]:
    """Predictions and EMA targets at the objective's offsets.

    Returns:
        Predictions, and targets without gradients unless `stop_gradient` is off, both (K, B, D).
        Offset 0 is the context latent itself.
    """
    s = model.frame_stack
    z = model.encoder(stack_at(batch.frames, s - 1, s))
    actions = batch.actions[s - 1 : s - 1 + objective.horizon]
    unrolled = torch.cat((z[None], model.predictor.unroll(z, actions)))  # (1 + horizon, B, D)
    encoder = model.target_encoder if objective.stop_gradient else model.encoder
    with torch.set_grad_enabled(torch.is_grad_enabled() and not objective.stop_gradient):
        targets = [encoder(stack_at(batch.frames, s - 1 + k, s)) for k in objective.offsets]
    return unrolled[list(objective.offsets)], torch.stack(targets)


def jepa_loss(
    predictions: Tensor, targets: Tensor, objective: Objective, generator: torch.Generator
) -> tuple[Tensor, Terms]:
    """Total loss and its unweighted terms; a term of weight 0 is not computed.

    Args:
        predictions: (K, B, D).
        targets: (K, B, D).
        objective: weights.
        generator: draws the directions of the sketch.
    """
    loss = F.mse_loss(predictions, targets)
    terms = {"prediction": loss.detach()}

    def add(name: str, weight: float, term: Tensor) -> Tensor:
        terms[name] = term.detach()
        return weight * term

    if objective.variance_weight:
        loss = loss + add("variance", objective.variance_weight, variance_hinge(predictions))
    if objective.covariance_weight:
        penalty = covariance_penalty(predictions)
        loss = loss + add("covariance", objective.covariance_weight, penalty)
    if objective.sigreg_weight:
        directions = random_directions(
            predictions.shape[-1], objective.directions, generator, predictions.device
        )
        loss = loss + add("sigreg", objective.sigreg_weight, sigreg(predictions, directions))
    return loss, terms


@torch.no_grad()
def update_target(model: WorldModel, momentum: float) -> None:
    """Move the target encoder to ``momentum * target + (1 - momentum) * encoder``."""
    target: list[Tensor] = list(model.target_encoder.parameters())
    encoder: list[Tensor] = list(model.encoder.parameters())
    torch._foreach_lerp_(target, encoder, 1 - momentum)


class JEPATrainer(Trainer):
    """Phase 1, one update a call.

    Args:
        model: trained in place; its encoder, target encoder and predictor change.
        buffer: training trajectories.
        config: uses `phase1`, `objective` and `seed`.
    """

    def __init__(self, model: WorldModel, buffer: ReplayBuffer, config: Config) -> None:
        self.model = model
        self.objective = config.objective
        self.phase = config.phase1
        self.sampler = WindowSampler(
            buffer,
            model.frame_stack + self.objective.horizon,
            self.phase.batch_size,
            seed=(config.seed, 1),
        )
        self.total = self.sampler.updates(self.phase.epochs)
        self.skipped = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        self.parameters = [*model.encoder.parameters(), *model.predictor.parameters()]
        self.optimizers = make_optimizers(
            self.parameters, self.phase.optimizer, self.phase.weight_decay
        )

    def update(self) -> Terms:
        """One update of the encoder and the predictor, then of the target encoder.

        A batch whose gradient is not finite, as when a forecast runs away, changes no weights; the
        term `skipped` counts such batches.
        """
        phase = self.phase
        rate = learning_rate(
            self.step, self.total, phase.learning_rate, phase.warmup, phase.final_learning_rate
        )
        batch = self.sampler.batch(self.step, self.model)
        predictions, targets = forecast(self.model, batch, self.objective)
        loss, terms = jepa_loss(predictions, targets, self.objective, self.generator)
        self.model.zero_grad()
        loss.backward()
        if not clipped_step(self.optimizers, self.parameters, rate, phase.max_grad_norm):
            self.skipped += 1
        terms["skipped"] = torch.tensor(float(self.skipped))
        update_target(self.model, cosine(phase.ema_start, phase.ema_end, self.step / self.total))
        self.step += 1
        return terms

    def state_dict(self) -> dict[str, Any]:
        """All that exact resumption needs, the model's weights left out."""
        return {
            **super().state_dict(),
            "skipped": self.skipped,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        super().load_state_dict(state)
        self.skipped = state["skipped"]
        self.generator.set_state(state["generator"])
