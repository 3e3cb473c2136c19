"""Training: data, the phases in the order they run, and the evaluation; resumable at any update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from worldmodel.callbacks import (
    Callback,
    CallbackList,
    CollapseMonitor,
    TensorBoardLogger,
    TrainingState,
    deferred_interrupt,
)
from worldmodel.config import Config, build_config, from_options
from worldmodel.data.datasets import Datasets, check_data, open_datasets
from worldmodel.errors import InterruptedRunError
from worldmodel.models import ModelSpec, WorldModel, check_parts, choose_device
from worldmodel.objectives import check_objective
from worldmodel.optim import Phase, tune_cpu
from worldmodel.phases import decoder_phase, jepa_phase, refinement_phase, remaining_heads_phase
from worldmodel.registry import READOUTS
from worldmodel.run import Run

LOG_EVERY = 50
CHECKPOINT_EVERY = 200

PHASES: dict[str, Callable[[WorldModel, Any, Config], Phase | None]] = {
    "phase 1": jepa_phase,
    "refinement": refinement_phase,
    "phase 2": decoder_phase,
    "heads": remaining_heads_phase,
}
"""The phases in the order they run; each makes what is trained, or None where nothing is."""


def train(
    env: str | type[gym.Env[Any, Any]] | Callable[..., gym.Env[Any, Any]] | None = None,
    *,
    preset: str = "quick",
    config: Config | None = None,
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Any,
) -> Run:
    """Collect data, train a world model, and evaluate it on held-out episodes.

    Args:
        env: a Gymnasium id, ``module:id``, an environment class, or a factory.
        preset: ``smoke``, ``quick`` or ``standard``.
        config: a whole configuration, instead of `env`, `preset`, `settings` and `options`.
        settings: nested values of any other key of the configuration, as in
            ``{"phase1": {"learning_rate": 1e-3}}``.
        callbacks: watch the training; see `worldmodel.Callback`. TensorBoard events and the
            warning about collapse are there without them.
        progress: show progress bars and messages on stderr.
        options: those of the command `worldmodel train`, as ``size=2000``, ``policy="random"``,
            ``epochs=20``, ``seed=1``; `encoder`, `decoder`, `predictor`, `objective`, `policy` and
            `readout` also take the class or function itself.

    Returns:
        The finished run.

    Raises:
        ConfigError: If the configuration is invalid; the message lists every error.
        InterruptedRunError: If the user stopped it; `resume` continues the run.
        RunError: If the run directory cannot be written.
        TypeError: If there is no such option.
        ValueError: If the environment, its spaces or the device do not fit.

    Example:
        >>> run = worldmodel.train(env="DoublePendulumPixels-v0", preset="quick")  # doctest: +SKIP
    """
    if config is None:
        layers = from_options(env=env, **options)
        config = build_config(layers, settings or {}, preset=preset)
    elif env is not None or settings or options or preset != "quick":
        raise TypeError("config is a whole configuration: give it without other options")
    _check(config)
    return _train(Run.create(config), callbacks, progress)


def resume(path: str | Path, *, callbacks: Sequence[Callback] = (), progress: bool = True) -> Run:
    """Continue a run from its last checkpoint, as if it had never stopped.

    Args:
        path: the run directory.
        callbacks: see `train`.
        progress: see `train`.

    Raises:
        InterruptedRunError: If the user stopped it again.
        RunError: If `path` is no run directory, or it is damaged.
    """
    run = Run(path)
    choose_device(run.config.device)
    return _train(run, callbacks, progress)


def _check(config: Config) -> None:
    """Find mistakes in the configuration before anything is written."""
    choose_device(config.device)
    READOUTS.resolve(config.evaluation.readout)
    env = check_data(config)
    spec = ModelSpec.of(config, env.source.shape, env.action_space)
    check_parts(spec)
    check_objective(config.objective, spec.latent_dim, spec.actions.dim)


def _train(run: Run, callbacks: Sequence[Callback], progress: bool) -> Run:
    from worldmodel.evaluation.run_evaluation import evaluate_run
    from worldmodel.terminal import TerminalProgress

    watching = CallbackList([*callbacks, *([TerminalProgress()] if progress else [])])
    watching.on_message(f"Run directory: {run.path}")
    try:
        with open_datasets(run.config, [watching]) as datasets:
            model = _run_phases(run, datasets, watching)
            run.set_model(model)
            evaluate_run(run, train_buffer=datasets.train, callbacks=[watching])
    except KeyboardInterrupt as error:
        raise InterruptedRunError(_resume_hint(run)) from error
    return run


def _run_phases(run: Run, datasets: Datasets, callbacks: CallbackList) -> WorldModel:
    """Train what is left to train; returns the model, frozen."""
    config, buffer = run.config, datasets.train
    tune_cpu()
    torch.manual_seed(config.seed)
    spec = ModelSpec.of(config, buffer.frame_shape, buffer.action_space)
    run.save_spec(spec)
    model = WorldModel(spec).to(choose_device(config.device))
    checkpoint = run.load_checkpoint()
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
    state = TrainingState(run, model, datasets.validation)
    monitor = CollapseMonitor(lambda text: callbacks.on_message(text, warning=True))
    callbacks = CallbackList([monitor, TensorBoardLogger(), callbacks])
    callbacks.on_train_start(state)
    names = list(PHASES)
    try:
        for name in names[names.index(checkpoint["phase"]) if checkpoint else 0 :]:
            phase = PHASES[name](model, buffer, config)
            if phase is not None:
                if checkpoint is not None:
                    phase.load_state_dict(checkpoint["trainer"])
                _run_phase(phase, state, callbacks)
            checkpoint = None
    finally:
        callbacks.on_train_end(state)
    run.save_weights(model)
    return model.eval().requires_grad_(False)


def _run_phase(phase: Phase, state: TrainingState, callbacks: CallbackList) -> None:
    """Update until the end of the phase; log, save, and stop between updates if asked."""
    state.phase, state.updates = phase.name, phase.updates
    with (
        deferred_interrupt() as interrupt,
        callbacks.task(phase.name, phase.updates, phase.step) as advance,
    ):
        while phase.step < phase.updates:
            state.losses = phase.update()
            state.update, state.note = phase.step, ""
            last = phase.step == phase.updates
            if phase.step % LOG_EVERY == 0 or last:
                _log(state, callbacks)
            callbacks.on_update(state)
            advance(phase.step, state.note)
            stop = state.stop or interrupt.requested
            if phase.step % CHECKPOINT_EVERY == 0 or last or stop:
                state.run.save_checkpoint(
                    {
                        "phase": phase.name,
                        "model": state.model.state_dict(),
                        "trainer": phase.state_dict(),
                    }
                )
            if stop:
                raise InterruptedRunError(_resume_hint(state.run))


def _log(state: TrainingState, callbacks: CallbackList) -> None:
    losses = {name: float(term) for name, term in state.losses.items()}
    state.note = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
    tag = state.phase.replace(" ", "")
    state.scalars = {f"{tag}/{name}": value for name, value in losses.items()}
    callbacks.on_log(state)


def _resume_hint(run: Run) -> str:
    saved = "and saved" if (run.path / "checkpoint.pt").exists() else "before the first checkpoint"
    return f"Stopped {saved}. Resume with: worldmodel train --resume {run.path}"
