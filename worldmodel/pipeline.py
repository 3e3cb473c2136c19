"""`worldmodel train`: data, the phases, proof; stopped and resumed at any update."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.datasets import Datasets, check_data, open_datasets
from worldmodel.interrupt import InterruptedRunError, deferred_interrupt
from worldmodel.models import ModelSpec, WorldModel, describe_actions
from worldmodel.monitor import Health, check_health
from worldmodel.progress import progress_bar
from worldmodel.proof import prove
from worldmodel.run import Run, choose_device
from worldmodel.training.batches import WindowSampler
from worldmodel.training.cpu import tune_cpu
from worldmodel.training.grounding import GroundingTrainer
from worldmodel.training.jepa import JEPATrainer
from worldmodel.training.refinement import refinement, remaining_heads
from worldmodel.training.trainer import Trainer

LOG_EVERY = 50
CHECKPOINT_EVERY = 200
JUDGE_FROM = 200
"""Updates before which a small spread means a young encoder and not a collapsed one."""

PHASES = ("phase 1", "refinement", "phase 2", "heads")
PHASE1_PARTS = ("encoder", "target_encoder", "predictor")

_log = logging.getLogger(__name__)


def train(config: Config, console: Console) -> Run:
    """Train a world model and write its run directory.

    Args:
        config: the resolved configuration.
        console: shows progress.

    Raises:
        InterruptedRunError: the user stopped it; the run can be resumed.
        RunError: the run directory cannot be written.
        ValueError: the environment, its spaces or the device do not fit.
    """
    choose_device(config.device)
    check_data(config)
    run = Run.create(config)
    return _carry_on(run, config, console)


def resume(path: str | Path, console: Console) -> Run:
    """Continue a run from its last checkpoint, as if it had never stopped.

    Raises:
        RunError: `path` is no run directory, or it is damaged.
    """
    run = Run(path)
    return _carry_on(run, run.config(), console)


def _carry_on(run: Run, config: Config, console: Console) -> Run:
    console.print(f"Run directory: {run.path}")
    try:
        with open_datasets(config, console) as datasets:
            model = _train_phases(run, config, datasets, console)
            prove(run, config, model, datasets.train, console)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(_resume_hint(run)) from error
    return run


def _train_phases(run: Run, config: Config, datasets: Datasets, console: Console) -> WorldModel:
    tune_cpu()
    torch.manual_seed(config.seed)
    spec = _spec(config, datasets.train)
    run.save_spec(spec)
    model = WorldModel(spec).to(choose_device(config.device))
    checkpoint = run.load_checkpoint()
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
    with SummaryWriter(str(run.tensorboard)) as writer:
        begun = PHASES.index(checkpoint["phase"]) if checkpoint else 0
        for phase in PHASES[begun:]:
            inspect: Inspect = _losses_remark
            trainer: Trainer | None
            if phase == "phase 1":
                trainer = JEPATrainer(model, datasets.train, config)
                inspect = _phase1_inspection(model, datasets.validation, config, writer, console)
            elif phase == "refinement":
                trainer = refinement(model, datasets.train, config)
            elif phase == "heads":
                trainer = remaining_heads(model, datasets.train, config)
            else:
                for name in PHASE1_PARTS:
                    run.save_weights(name, getattr(model, name))
                trainer = GroundingTrainer(model, datasets.train, config)
            if trainer is not None:
                _drive(run, trainer, phase, model, checkpoint, inspect, writer, console)
            checkpoint = None
    for name, module in model.named_children():
        run.save_weights(name, module)
    return model.eval().requires_grad_(False)


def _spec(config: Config, buffer: ReplayBuffer) -> ModelSpec:
    return ModelSpec(
        frame_shape=buffer.frame_shape,
        frame_stack=config.frame_stack,
        actions=describe_actions(buffer.action_space),
        **config.model.model_dump(),
    )


Inspect = Callable[[int, dict[str, float]], str]
"""Called with the update and the losses now and then; gives a remark for the bar."""


def _losses_remark(step: int, losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in losses.items())


def _phase1_inspection(
    model: WorldModel,
    validation: ReplayBuffer,
    config: Config,
    writer: SummaryWriter,
    console: Console,
) -> Inspect:
    length = model.frame_stack + config.objective.horizon
    sampler = WindowSampler(validation, length, validation.num_episodes, seed=(0,))
    batch = sampler.batch(0, model)
    warned = False

    def inspect(step: int, losses: dict[str, float]) -> str:
        nonlocal warned
        health = check_health(model, batch, config.objective)
        for name, value in health.scalars().items():
            writer.add_scalar(name, value, step)
        collapsed = health.collapsed and step >= JUDGE_FROM
        if collapsed and not warned:
            console.print(_collapse_warning(step, health, config), style="bold red")
        warned = collapsed
        return (
            f"loss {losses['prediction']:.3f}, rank {health.effective_rank:.1f}, "
            f"std {health.std:.2f}"
        )

    return inspect


def _collapse_warning(step: int, health: Health, config: Config) -> str:
    return (
        f"COLLAPSE at update {step}: effective rank {health.effective_rank:.1f} of "
        f"{config.model.latent_dim}, mean standard deviation {health.std:.3f}. The latent has lost "
        f"what the frames show under objective {config.objective.name!r}; try --objective vicreg."
    )


def _drive(
    run: Run,
    trainer: Trainer,
    phase: str,
    model: WorldModel,
    checkpoint: dict[str, Any] | None,
    inspect: Inspect,
    writer: SummaryWriter,
    console: Console,
) -> None:
    """Update until the end of the phase; log, save, and stop between updates if asked."""

    def save() -> None:
        run.save_checkpoint(
            {"phase": phase, "model": model.state_dict(), "trainer": trainer.state_dict()}
        )

    if checkpoint is not None:
        trainer.load_state_dict(checkpoint["trainer"])
    with (
        deferred_interrupt() as stop,
        progress_bar(console, phase, trainer.total, trainer.step) as bar,
    ):
        while trainer.step < trainer.total:
            terms = trainer.update()
            last = trainer.step == trainer.total
            if trainer.step % LOG_EVERY == 0 or last:
                losses = {name: float(term) for name, term in terms.items()}
                for name, value in losses.items():
                    writer.add_scalar(f"{phase.replace(' ', '')}/{name}", value, trainer.step)
                bar(trainer.step, inspect(trainer.step, losses))
            else:
                bar(trainer.step)
            if trainer.step % CHECKPOINT_EVERY == 0 or last or stop.asked:
                save()
            if stop.asked:
                raise InterruptedRunError(_resume_hint(run))


def _resume_hint(run: Run) -> str:
    return f"Stopped and saved. Go on with: worldmodel train --resume {run.path}"
