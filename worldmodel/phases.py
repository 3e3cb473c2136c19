"""The phases of training, in the order they run.

Phase 1 is a joint-embedding predictive architecture, self-supervised and without pixel loss: the
context encoder maps a stack of frames to a latent, the predictor is unrolled from it under the
recorded actions, and its predictions are compared with the latents that the target encoder, an
exponential moving average behind a stop-gradient, gives to the frames that followed (BYOL,
arXiv:2006.07733; I-JEPA, arXiv:2301.08243). A regularizer on the predictions prevents collapse.

Refinement trains the predictor alone on latents of the frozen encoder: in phase 1 the regularizer
and the moving targets bend the dynamics, and imagined trajectories lose energy.

Phase 2 trains the decoder and the reward and termination heads on the frozen encoder. Where it is
short, the heads alone go on: few windows per trajectory rarely contain a termination.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.accelerator import Accelerator
from worldmodel.batches import Batch, WindowSampler
from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.distributed import all_gather, batch_slice, broadcast_module
from worldmodel.hyperparameters import ObjectiveConfig, Optimization
from worldmodel.latents import LatentEpisodes, LatentSampler, encode_episodes
from worldmodel.models import WorldModel, unroll
from worldmodel.models.encoders import encode_windows
from worldmodel.models.heads import HEADS, Transition, reconstruction_loss
from worldmodel.objectives import Forecast, make_objective
from worldmodel.optim import Phase, Terms, cosine
from worldmodel.prefetch import batch_reader

MIN_VALIDATION_WINDOWS = 16


def jepa_phase(model: WorldModel, buffer: ReplayBuffer, config: Config) -> Phase:
    """Make phase 1: train the encoder and the predictor; the target encoder follows.

    Args:
        model: trained in place.
        buffer: training trajectories.
        config: uses `phase1`, `objective`, `training` and `seed`.
    """
    settings, phase = config.objective, config.phase1
    spec = model.spec
    objective = make_objective(settings, spec.latent_dim, spec.actions.dim, config.seed)
    module = objective.to(model.device) if isinstance(objective, nn.Module) else None
    if module is not None:
        broadcast_module(module)
    generator = torch.Generator().manual_seed(config.seed)
    length = model.frames.window(settings.horizon)
    sampler = WindowSampler(buffer, length, phase.batch_size, seed=(config.seed, 1))
    updates = sampler.updates(phase)
    accelerator = Accelerator.of(config.training, model.device)
    read = batch_reader(sampler, model, updates, prefetch=accelerator.prefetch)

    def predict(batch: Batch) -> Forecast:
        return predict_targets(model, batch, settings)

    prepared = accelerator.prepare(predict)

    def loss(update: int) -> tuple[Tensor, Terms]:
        forecast = Forecast(*(all_gather(part, dim=1) for part in prepared(read(update))))
        total, terms = objective(forecast, settings, generator)
        return total, terms

    def follow(update: int) -> None:
        momentum = cosine(phase.ema_start, phase.ema_end, update / updates)
        update_target(model.target_encoder, model.encoder, momentum)

    parameters = [*model.encoder.parameters(), *model.predictor.parameters()]
    if module is not None:
        parameters += module.parameters()
    return Phase("phase 1", parameters, loss, phase, updates, follow, generator, module)


def predict_targets(model: WorldModel, batch: Batch, objective: ObjectiveConfig) -> Forecast:
    """Compute predictions and EMA targets of a batch at the objective's offsets."""
    frames, first = model.frames, model.frames.first
    z = encode_windows(model.encoder, frames, batch.frames, [first])[0]
    actions = batch.actions[first : first + objective.horizon]
    unrolled = torch.cat((z[None], unroll(model.predictor, z, actions)))  # (1 + horizon, B, D)
    steps = unrolled.unbind()  # indices would be copied to the device, which waits for it
    predictions = torch.stack([steps[k] for k in objective.offsets])
    encoder = model.target_encoder if objective.stop_gradient else model.encoder
    with torch.set_grad_enabled(torch.is_grad_enabled() and not objective.stop_gradient):
        times = [first + k for k in objective.offsets]
        targets = encode_windows(encoder, frames, batch.frames, times)
    return Forecast(predictions, targets, actions)


@torch.no_grad()
def update_target(target: nn.Module, encoder: nn.Module, momentum: float) -> None:
    """Move a target encoder to ``momentum * target + (1 - momentum) * encoder``.

    Floating-point buffers, such as the running statistics of BatchNorm, are averaged like
    parameters; other buffers are copied.
    """
    averaged: list[Tensor] = list(target.parameters())
    towards: list[Tensor] = list(encoder.parameters())
    for mine, theirs in zip(target.buffers(), encoder.buffers(), strict=True):
        if mine.is_floating_point():
            averaged.append(mine)
            towards.append(theirs)
        else:
            mine.copy_(theirs)
    torch._foreach_lerp_(averaged, towards, 1 - momentum)


def refinement_phase(model: WorldModel, buffer: ReplayBuffer, config: Config) -> Phase | None:
    """Make the refinement: train the predictor on latents of the frozen encoder.

    Args:
        model: its predictor is trained in place.
        buffer: training trajectories.
        config: uses `refinement`, `training` and `seed`.

    Returns:
        None if there is nothing to train: no updates, or a predictor without weights.
    """
    settings = config.refinement
    if not settings.updates or not list(model.predictor.parameters()):
        return None
    freeze(model.encoder)
    latents = encode_some(model, buffer, config, stream=3)
    model.predictor.requires_grad_(True).train()
    return predictor_phase(
        "refinement",
        model.predictor,
        [latents],
        settings,
        updates=settings.updates,
        horizon=min(settings.horizon, int(latents.remaining.max())),
        seed=config.seed,
        accelerator=Accelerator.of(config.training, model.device),
    )


def predictor_phase(
    name: str,
    predictor: nn.Module,
    parts: Sequence[LatentEpisodes],
    settings: Optimization,
    *,
    updates: int,
    horizon: int,
    seed: int,
    fractions: Sequence[float] | None = None,
    accelerator: Accelerator | None = None,
) -> Phase:
    """Minimize the squared error of an unrolled predictor at every step.

    Args:
        name: of the phase.
        predictor: trained in place.
        parts: encoded episodes.
        settings: of the optimization.
        updates: of the weights.
        horizon: steps unrolled.
        seed: of the windows.
        fractions: of each part in a batch; by size if not given.
        accelerator: how the predictor runs; by default in float32.

    Raises:
        ValueError: If no episode is long enough.
    """
    parameters = list(predictor.parameters())
    device = parameters[0].device
    sampler = LatentSampler(parts, horizon, settings.batch_size, seed, fractions, device)

    def forecast(windows: tuple[Tensor, Tensor]) -> Tensor:
        z, actions = windows
        return unroll(predictor, z[0], actions).float()

    prepared = (accelerator or Accelerator(device)).prepare(forecast)

    def loss(update: int) -> tuple[Tensor, Terms]:
        windows = sampler.windows(update, batch_slice(settings.batch_size))
        error = F.mse_loss(prepared(windows), windows[0][1:])
        return error, {"prediction": error.detach()}

    return Phase(name, parameters, loss, settings, updates)


def decoder_heads_phase(model: WorldModel, buffer: ReplayBuffer, config: Config) -> Phase:
    """Make phase 2: train the decoder and the heads.

    Args:
        model: trained in place; encoder, target encoder and predictor are frozen.
        buffer: training trajectories.
        config: uses `phase2`, `training` and `seed`.
    """
    for part in (model.encoder, model.target_encoder, model.predictor):
        freeze(part)
    phase, frames = config.phase2, model.frames
    sampler = _transition_sampler(model, buffer, config)
    accelerator = Accelerator.of(config.training, model.device)
    updates = sampler.updates(phase)
    read = batch_reader(sampler, model, updates, prefetch=accelerator.prefetch)

    def losses(batch: Batch) -> Terms:
        first = frames.first
        observation = frames.observe(batch.frames, first)
        with torch.no_grad():
            z, z_next = encode_windows(model.encoder, frames, batch.frames, [first, first + 1])
        outcome = batch.rewards[first], batch.terminated[first]
        terms = head_losses(model, Transition(z, batch.actions[first], z_next, *outcome))
        if model.decoder is not None:
            terms["pixels"] = reconstruction_loss(model.decoder, z, observation)
        return terms

    prepared = accelerator.prepare(losses)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return Phase("phase 2", parameters, lambda i: _sum(prepared(read(i))), phase, updates)


def extra_heads_phase(model: WorldModel, buffer: ReplayBuffer, config: Config) -> Phase | None:
    """Make a phase that trains the heads alone, on latents of many episodes, after phase 2.

    Args:
        model: its heads are trained in place.
        buffer: training trajectories.
        config: uses `phase2`, `refinement.episodes` and `seed`.

    Returns:
        None if phase 2 had `phase2.min_updates`, or no further updates are configured.
    """
    phase = config.phase2
    done = _transition_sampler(model, buffer, config).updates(phase)
    if done >= phase.min_updates or not phase.head_updates:
        return None
    for part in (model.encoder, model.predictor):
        freeze(part)
    return heads_phase(
        model,
        [encode_some(model, buffer, config, stream=4)],
        phase.model_copy(update={"batch_size": phase.head_batch_size}),
        updates=phase.head_updates,
        seed=config.seed,
        accelerator=Accelerator.of(config.training, model.device),
    )


def heads_phase(
    model: WorldModel,
    parts: Sequence[LatentEpisodes],
    settings: Optimization,
    *,
    updates: int,
    seed: int,
    fractions: Sequence[float] | None = None,
    accelerator: Accelerator | None = None,
) -> Phase:
    """Train the heads on encoded and predicted latents, as in phase 2.

    Args:
        model: its heads are trained in place.
        parts: encoded episodes.
        settings: of the optimization.
        updates: of the weights.
        seed: of the transitions.
        fractions: of each part in a batch; by size if not given.
        accelerator: how the networks run; by default in float32.
    """
    sampler = LatentSampler(parts, 1, settings.batch_size, seed, fractions, model.device)

    def losses(step: Transition) -> Terms:
        return head_losses(model, step)

    prepared = (accelerator or Accelerator(model.device)).prepare(losses)

    def loss(update: int) -> tuple[Tensor, Terms]:
        return _sum(prepared(sampler.transitions(update, batch_slice(settings.batch_size))))

    parameters = [p for name in model.spec.heads for p in getattr(model, name).parameters()]
    return Phase("heads", parameters, loss, settings, updates)


def planned_updates(model: WorldModel, buffer: ReplayBuffer, config: Config) -> dict[str, int]:
    """Return the updates of ``phase1``, ``refinement`` and ``phase2`` on given data."""
    length = model.frames.window(config.objective.horizon)
    sampler = WindowSampler(buffer, length, config.phase1.batch_size, seed=(config.seed, 1))
    return {
        "phase1": sampler.updates(config.phase1),
        "refinement": config.refinement.updates,
        "phase2": _transition_sampler(model, buffer, config).updates(config.phase2),
    }


def head_losses(model: WorldModel, step: Transition) -> Terms:
    """Compute the loss of every head; see `worldmodel.models.heads.HEADS`.

    The heads are trained on the encoded and on the predicted next latent alike, since imagined
    rollouts only have the latter.

    Args:
        model: its predictor is frozen.
        step: transitions with encoded latents.
    """
    with torch.no_grad():
        predicted = step._replace(z_next=model.predictor(step.z, step.actions))
    both = Transition(*(torch.cat(column) for column in zip(step, predicted)))
    inputs = both.z, both.actions, both.z_next
    return {
        name.removesuffix("_head"): HEADS[name](getattr(model, name)(*inputs).float(), both)
        for name in model.spec.heads
    }


def freeze(module: nn.Module) -> None:
    """Freeze parameters, and running statistics too: no gradients, and evaluation mode."""
    module.requires_grad_(False)
    module.eval()


def validation_batch(model: WorldModel, validation: ReplayBuffer, config: Config) -> Batch:
    """Read one window of every validation episode, or several where there are few."""
    length = model.frames.window(config.objective.horizon)
    count = max(validation.num_episodes, MIN_VALIDATION_WINDOWS)
    sampler = WindowSampler(validation, length, count, seed=(0,))
    return sampler.batch(0, model)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put all modules in evaluation mode for a while, without gradients."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before.items():
            module.training = training


def _transition_sampler(model: WorldModel, buffer: ReplayBuffer, config: Config) -> WindowSampler:
    length = model.frames.window(1)
    return WindowSampler(buffer, length, config.phase2.batch_size, seed=(config.seed, 2))


def _sum(terms: Terms) -> tuple[Tensor, Terms]:
    values = torch.stack(list(terms.values()))  # a copy: CUDA graphs reuse the memory of `terms`
    return values.sum(), dict(zip(terms, values.detach().unbind(), strict=True))


def encode_some(
    model: WorldModel, buffer: ReplayBuffer, config: Config, stream: int
) -> LatentEpisodes:
    """Encode `refinement.episodes` trajectories drawn at random."""
    rng = np.random.default_rng((config.seed, stream))
    chosen = np.sort(rng.permutation(buffer.num_episodes)[: config.refinement.episodes])
    return encode_episodes(model, buffer, chosen)
