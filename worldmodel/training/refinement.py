"""Refinement: at the end of phase 1 the predictor goes on learning by itself.

In phase 1 the regulariser pulls at the predictions, too, and the targets move. Both bend the
dynamics: dreams lose energy. Here the encoder is frozen and there is nothing but the squared error
to the latents that came.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.models import WorldModel
from worldmodel.training.dynamics import PredictorTrainer, encode_episodes
from worldmodel.training.grounding import freeze


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
    rng = np.random.default_rng((config.seed, 3))
    chosen = np.sort(rng.permutation(buffer.num_episodes)[: settings.episodes])
    latents = encode_episodes(model, buffer, chosen)
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
