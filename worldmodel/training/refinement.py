"""What goes on learning by itself, on the latents of the frozen encoder.

Refinement: at the end of phase 1 the predictor.
In phase 1 the regulariser pulls at the predictions, too, and the targets move. Both bend the
dynamics: dreams lose energy. Here the encoder is frozen and there is nothing but the squared error
to the latents that came.

At the end of a short phase 2 the heads: data of few trajectories, though many steps, give a decoder
few updates, and heads that learned from one step of each would not know how an episode ends.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.models import WorldModel
from worldmodel.training.batches import WindowSampler
from worldmodel.training.dynamics import HeadTrainer, PredictorTrainer
from worldmodel.training.grounding import freeze
from worldmodel.training.latents import LatentEpisodes, encode_episodes

ENOUGH = 400
"""Updates of phase 2 after which the heads need no more."""


def refinement(model: WorldModel, buffer: ReplayBuffer, config: Config) -> PredictorTrainer | None:
    """The trainer of the predictor on the frozen encoder's latents.

    Args:
        model: Its predictor is trained in place.
        buffer: Training trajectories.
        config: Uses `refinement` and `seed`.

    Returns:
        None if there is nothing to train: no updates, or a predictor without weights.
    """
    settings = config.refinement
    if not settings.updates or not list(model.predictor.parameters()):
        return None
    freeze(model.encoder)
    latents = _encoded(model, buffer, config, 3)
    predictor: nn.Module = model.predictor
    return PredictorTrainer(
        predictor.requires_grad_(True),
        [latents],
        updates=settings.updates,
        learning_rate_peak=settings.learning_rate,
        horizon=min(settings.horizon, int(latents.remaining.max())),
        seed=config.seed,
        batch_size=settings.batch_size,
    )


def remaining_heads(model: WorldModel, buffer: ReplayBuffer, config: Config) -> HeadTrainer | None:
    """The trainer of the heads alone, after phase 2.

    Args:
        model: Its heads are trained in place.
        buffer: Training trajectories.
        config: Uses `phase2`, `refinement.episodes` and `seed`.

    Returns:
        None if phase 2 had `ENOUGH` updates, or none are to follow.
    """
    phase, length = config.phase2, model.frame_stack + 1
    done = WindowSampler(buffer, length, phase.batch_size, seed=(0,)).updates(phase.epochs)
    if done >= ENOUGH or not phase.head_updates:
        return None
    return HeadTrainer(
        model,
        [_encoded(model, buffer, config, 4)],
        updates=phase.head_updates,
        learning_rate_peak=phase.learning_rate,
        seed=config.seed,
    )


def _encoded(
    model: WorldModel, buffer: ReplayBuffer, config: Config, stream: int
) -> LatentEpisodes:
    """Latents of `refinement.episodes` trajectories drawn at random."""
    rng = np.random.default_rng((config.seed, stream))
    chosen = np.sort(rng.permutation(buffer.num_episodes)[: config.refinement.episodes])
    return encode_episodes(model, buffer, chosen)
