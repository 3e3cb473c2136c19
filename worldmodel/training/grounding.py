"""Phase 2: decoder, reward head and termination head on the frozen encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.models import WorldModel
from worldmodel.models.decoder import to_patches
from worldmodel.training.batches import Batch, WindowSampler, stack_at
from worldmodel.training.muon import make_optimizers, step_at
from worldmodel.training.schedule import learning_rate
from worldmodel.training.trainer import Trainer

Terms = dict[str, Tensor]


def freeze(module: nn.Module) -> None:
    """Lock parameters, and statistics too: no gradients, and evaluation mode."""
    module.requires_grad_(False)
    module.eval()


def outcome_losses(
    model: WorldModel,
    z: Tensor,
    actions: Tensor,
    following: Tensor,
    rewards: Tensor,
    terminated: Tensor,
) -> Terms:
    """MSE of the reward and cross-entropy of the termination.

    The heads learn from the encoded and from the predicted next latent alike, as a dream only has
    the latter.

    Args:
        model: its predictor is frozen.
        z: float32 (B, D), latents before the step.
        actions: float32 (B, A), action vectors.
        following: float32 (B, D), encoded latents after it.
        rewards: float32 (B,).
        terminated: float32 (B,), 1 where the episode ended.
    """
    with torch.no_grad():
        following = torch.cat((following, model.predictor(z, actions)))
    move = torch.cat((z, z)), torch.cat((actions, actions)), following
    return {
        "reward": F.mse_loss(model.reward_head(*move), rewards.repeat(2)),
        "termination": F.binary_cross_entropy_with_logits(
            model.termination_head(*move), terminated.repeat(2)
        ),
    }


def grounding_losses(model: WorldModel, batch: Batch) -> Terms:
    """Pixel MSE of the decoder, and the losses of the heads.

    Args:
        model: its encoder and predictor are frozen.
        batch: windows of S + 1 frames.
    """
    s = model.frame_stack
    observation = stack_at(batch.frames, s - 1, s)
    with torch.no_grad():
        z = model.encoder(observation)
        following = model.encoder(stack_at(batch.frames, s, s))
    step = batch.actions[s - 1], following, batch.rewards[s - 1], batch.terminated[s - 1]
    terms = outcome_losses(model, z, *step)
    if model.decoder is not None:
        pixels = to_patches(observation).float().mul_(1 / 255)
        terms["pixels"] = F.mse_loss(model.decoder.patches(z), pixels)
    return terms


class GroundingTrainer(Trainer):
    """Phase 2, one update a call.

    Args:
        model: trained in place; only the decoder and the heads change.
        buffer: training trajectories.
        config: uses `phase2` and `seed`.
    """

    def __init__(self, model: WorldModel, buffer: ReplayBuffer, config: Config) -> None:
        self.model = model
        self.phase = config.phase2
        for part in (model.encoder, model.target_encoder, model.predictor):
            freeze(part)
        self.sampler = WindowSampler(
            buffer, model.frame_stack + 1, self.phase.batch_size, seed=(config.seed, 2)
        )
        self.total = self.sampler.updates(self.phase.epochs)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizers = make_optimizers(trained, self.phase.optimizer)

    def update(self) -> Terms:
        """One update of the decoder and the heads."""
        phase = self.phase
        rate = learning_rate(
            self.step, self.total, phase.learning_rate, phase.warmup, phase.final_learning_rate
        )
        terms = grounding_losses(self.model, self.sampler.batch(self.step, self.model))
        self.model.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        step_at(self.optimizers, rate)
        self.step += 1
        return {name: term.detach() for name, term in terms.items()}
