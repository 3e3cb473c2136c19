"""Training: data, the phases in the order they run, and the evaluation; resumable at any update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import gymnasium as gym
import numpy as np
import torch

from worldmodel.accelerator import check_compiler, choose_precision
from worldmodel.callbacks import (
    Callback,
    CallbackList,
    CollapseMonitor,
    TensorBoardLogger,
    TrainingState,
    deferred_interrupt,
)
from worldmodel.config import Config, build_config, from_options
from worldmodel.data import FrameStack, ReplayBuffer
from worldmodel.data.datasets import Datasets, check_data, open_datasets
from worldmodel.data.own_data import OwnSource, as_sources, describe_data
from worldmodel.device_buffer import cache_on_device
from worldmodel.distributed import (
    LostProcess,
    any_process,
    average_losses,
    barrier,
    broadcast_module,
    broadcast_result,
    is_main_process,
    process_count,
    process_group,
    require_divisible,
)
from worldmodel.errors import InterruptedRunError, RunError
from worldmodel.files import only_one_process, temporary_files
from worldmodel.hub import HubReference, is_hub_reference
from worldmodel.hyperparameters import Data
from worldmodel.keywords import TrainOptions
from worldmodel.models import ModelSpec, WorldModel, check_parts, choose_device
from worldmodel.objectives import check_objective
from worldmodel.optim import Phase, tuned_cpu
from worldmodel.phases import decoder_heads_phase, extra_heads_phase, jepa_phase, refinement_phase
from worldmodel.registry import READOUTS
from worldmodel.run import Run
from worldmodel.trackers import require_trackers, tracking

LOG_EVERY = 50
CHECKPOINT_EVERY = 200
_CHECKED_EPISODES = 16

PHASES: dict[str, Callable[[WorldModel, Any, Config], Phase | None]] = {
    "phase 1": jepa_phase,
    "refinement": refinement_phase,
    "phase 2": decoder_heads_phase,
    "heads": extra_heads_phase,
}
"""The phases in the order they run; each makes what is trained, or None where nothing is."""


def train(
    env: str | type[gym.Env[Any, Any]] | Callable[..., gym.Env[Any, Any]] | None = None,
    *,
    data: OwnSource | Sequence[OwnSource] | Sequence[Mapping[str, Any]] | None = None,
    preset: str = "quick",
    config: Config | None = None,
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Unpack[TrainOptions],
) -> Run:
    """Collect data, train a world model, and evaluate it on held-out episodes.

    Args:
        env: a Gymnasium id, ``module:id``, an environment class, or a factory.
        data: own data to train on instead of collecting: the path of a replay buffer or HDF5
            file, ``minari:ID``, a `ReplayBuffer`, a function that yields episodes, several of
            these, or a list of episodes (dicts with the arguments of `ReplayBuffer.add_episode`).
            The environment is that of the data, where it names one, unless `env` is given.
        preset: ``smoke``, ``quick`` or ``standard``.
        config: a whole configuration, instead of `env`, `preset`, `settings` and `options`.
        settings: values of any other key of the configuration, dotted or nested, as
            ``{"phase1.learning_rate": 1e-3}``.
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
        place = Path(options.get("data_dir") or Data().dir)
        sources = None if data is None else as_sources(data, place)
        layers = from_options(env=env, data=sources, **options)
        config = build_config(layers, settings or {}, preset=preset)
    elif env is not None or data is not None or settings or options or preset != "quick":
        raise TypeError("config is a whole configuration: give it without other options")
    with process_group():
        watching = _watching(callbacks, progress)
        path = broadcast_result(lambda: _create(config, watching))
        return _train(Run(path, config.device, trust=True), watching)


def resume(path: str | Path, *, callbacks: Sequence[Callback] = (), progress: bool = True) -> Run:
    """Continue a run from its last checkpoint, as if it had never stopped.

    Args:
        path: the run directory.
        callbacks: see `train`.
        progress: see `train`.

    Raises:
        InterruptedRunError: If the user stopped it again.
        RunError: If `path` is not a run directory, or it is damaged.
    """
    if is_hub_reference(path):
        name = HubReference.parse(str(path))
        raise RunError(f"{name} cannot be resumed: checkpoints are not on the Hub; train a new run")
    with process_group():
        run = Run(path)
        choose_device(run.config.device)
        return _train(run, _watching(callbacks, progress))


def train_in(path: Path, config: Config, *, callbacks: Sequence[Callback] = ()) -> Run:
    """Train a run in a given directory, or continue the training that a checkpoint there is of.

    Args:
        path: the run directory.
        config: the configuration; a continued run has its own.
        callbacks: see `train`.

    Raises:
        InterruptedRunError: If the user stopped it; the same call continues it.
        RunError: If the run directory is damaged or cannot be written.
        ValueError: If the environment, its spaces or the device do not fit.
    """
    if (path / "checkpoint.pt").is_file():
        return resume(path, callbacks=callbacks, progress=False)
    with process_group():
        watching = _watching(callbacks, progress=False)
        broadcast_result(lambda: _create(config, watching, path))
        return _train(Run(path, config.device, trust=True), watching)


def _watching(callbacks: Sequence[Callback], progress: bool) -> CallbackList:
    from worldmodel.terminal import TerminalProgress

    if not is_main_process():
        return CallbackList([])
    return CallbackList([*callbacks, *([TerminalProgress()] if progress else [])])


def _create(config: Config, callbacks: CallbackList, path: Path | None = None) -> Path:
    """Make a run directory, unless the configuration has a mistake."""
    try:
        _check(config, callbacks)
    except KeyboardInterrupt as error:
        raise InterruptedRunError("Stopped before a run was made") from error
    return Run.create(config, path).path


def _check(config: Config, callbacks: CallbackList) -> None:
    """Find mistakes in the configuration before a run is made."""
    check_compiler(config.training, choose_device(config.device))
    require_trackers(config.trackers)
    require_divisible(_batch_sizes(config))
    READOUTS.resolve(config.evaluation.readout)
    spec = ModelSpec.of(config, *check_data(config, [callbacks]))
    check_parts(spec)
    check_objective(config.objective, spec.latent_dim, spec.actions.dim)


def _batch_sizes(config: Config) -> dict[str, int]:
    return {
        "phase1.batch_size": config.phase1.batch_size,
        "refinement.batch_size": config.refinement.batch_size,
        "phase2.batch_size": config.phase2.batch_size,
        "phase2.head_batch_size": config.phase2.head_batch_size,
    }


@contextmanager
def _opened(run: Run, callbacks: CallbackList) -> Iterator[Datasets]:
    """Open the run's data; the first process collects it and keeps others from training the run."""
    if not is_main_process():
        barrier()
        with open_datasets(run.config, [callbacks]) as datasets:
            yield datasets
        return
    with (
        only_one_process(run.path / "training.lock", f"training {run.path}"),
        open_datasets(run.config, [callbacks]) as datasets,
    ):
        barrier()
        yield datasets


def _train(run: Run, watching: CallbackList) -> Run:
    from worldmodel.evaluation.run_evaluation import evaluate_run

    require_divisible(_batch_sizes(run.config))
    leftovers = list(temporary_files(run.path))
    watching.on_message(f"Run directory: {run.path}")
    if process_count() > 1:
        watching.on_message(f"Training in {process_count()} processes")
    names = run.config.trackers if is_main_process() else ()
    try:
        with (
            tracking(names, watching) as watching,
            _opened(run, watching) as datasets,
            tuned_cpu(),
        ):
            if run.config.data.sources:
                for text in describe_data(run.config, datasets):
                    watching.on_message(text)
            require_motion(datasets.train)
            fit_horizon(run, datasets.train, watching)
            model = run_phases(run, datasets, watching)
            run.set_model(model)
            if is_main_process():
                evaluate_run(run, datasets=datasets, callbacks=[watching])
                watching.on_evaluation_end(run)
                for file in leftovers:
                    file.unlink(missing_ok=True)
            barrier()
    except LostProcess as error:
        raise RunError(f"{error}; resume with: {_resume_command(run)}") from error
    except KeyboardInterrupt as error:
        raise InterruptedRunError(_resume_hint(run)) from error
    except OSError as error:
        raise RunError(
            f"training stopped: {error}; make room on the disk or fix its permissions, then resume "
            f"with: {_resume_command(run)}"
        ) from error
    return run


def require_motion(train: ReplayBuffer) -> None:
    """Check that not all frames are the same.

    Raises:
        ValueError: If they are, in the first episodes.
    """
    first = train.windows([0], [0], 1).frames[0, 0]
    episodes = min(len(train), _CHECKED_EPISODES)
    for i in range(episodes):
        if (train.windows([i], [0], int(train.lengths[i])).frames != first).any():
            return
    pixels = "; look at what the environment renders, or use --observation vector"
    raise ValueError(
        f"all frames of the first {episodes} training episodes are identical, so there is nothing "
        f"to learn{pixels if first.ndim == 3 else ''}"
    )


def fit_horizon(run: Run, train: ReplayBuffer, callbacks: CallbackList) -> None:
    """Lower the objective's horizon where most training episodes are too short for it.

    The new horizon is the median number of steps after the first observation, and is written into
    the run's configuration.

    Raises:
        ValueError: If most episodes are too short for one step.
    """
    config, frames = run.config, FrameStack(run.config.frame_stack)
    steps = frames.steps(int(np.quantile(train.lengths, 0.5, method="lower")))
    if steps < 1:
        raise ValueError(
            f"most of the {len(train)} training episodes have fewer than the {frames.window(1)} "
            f"frames that {frames.size} stacked frames and one step need; lower frame_stack, or "
            "train on longer episodes"
        )
    if steps < config.objective.horizon:
        callbacks.on_message(
            f"objective.horizon is lowered from {config.objective.horizon} to {steps}: half of the "
            "training episodes have no more steps",
            warning=True,
        )
        run.change_config({"objective": {"horizon": steps}})


def run_phases(run: Run, datasets: Datasets, callbacks: CallbackList) -> WorldModel:
    """Train what is left to train; returns the model, frozen."""
    config = run.config
    torch.manual_seed(config.seed)
    spec = ModelSpec.of(config, datasets.train.frame_shape, datasets.train.action_space)
    run.save_spec(spec)
    model = WorldModel(spec).to(choose_device(config.device))
    buffer = cache_on_device(datasets.train, model, config.training.device_cache)
    checkpoint = run.load_checkpoint()
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        _compare_precision(checkpoint, model, config, callbacks)
    state = TrainingState(run, model, datasets.validation)
    if is_main_process():
        monitor = CollapseMonitor(lambda text: callbacks.on_message(text, warning=True))
        callbacks = CallbackList([monitor, callbacks, TensorBoardLogger()])
    callbacks.on_train_start(state)
    names = list(PHASES)
    try:
        for name in names[names.index(checkpoint["phase"]) if checkpoint else 0 :]:
            broadcast_module(model)  # also statistics of BatchNorm, which are those of a part
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


def _compare_precision(
    checkpoint: Mapping[str, Any], model: WorldModel, config: Config, callbacks: CallbackList
) -> None:
    """Warn if a run continues in another precision, because it is on another device."""
    before = checkpoint.get("precision", "float32")  # checkpoints of older versions have none
    now = choose_precision(config.training, model.device)
    if now != before:
        callbacks.on_message(
            f"The run was trained in {before} so far and continues in {now}, which is "
            f"training.precision={config.training.precision} on {model.device}",
            warning=True,
        )


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
                state.losses = average_losses(state.losses)
                _log(state, callbacks)
            callbacks.on_update(state)
            advance(phase.step, state.note)
            stop = any_process(state.stop or interrupt.requested)
            if phase.step % CHECKPOINT_EVERY == 0 or last or stop:
                state.run.save_checkpoint(
                    {
                        "phase": phase.name,
                        "precision": choose_precision(
                            state.run.config.training, state.model.device
                        ),
                        "model": state.model.state_dict(),
                        "trainer": phase.state_dict(),
                    }
                )
            if stop:
                raise InterruptedRunError(_resume_hint(state.run))
    if interrupt.requested:  # after the last check
        raise InterruptedRunError(_resume_hint(state.run))


def _log(state: TrainingState, callbacks: CallbackList) -> None:
    losses = {name: float(term) for name, term in state.losses.items()}
    shown = {name: value for name, value in losses.items() if name != "skipped" or value}
    state.note = ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
    tag = state.phase.replace(" ", "")
    state.scalars = {f"{tag}/{name}": value for name, value in losses.items()}
    callbacks.on_log(state)


def _resume_hint(run: Run) -> str:
    saved = "and saved" if (run.path / "checkpoint.pt").exists() else "before the first checkpoint"
    return f"Stopped {saved}. Resume with: {_resume_command(run)}"


def _resume_command(run: Run) -> str:
    command = "worldmodel train" if process_count() == 1 else "torchrun ... -m worldmodel train"
    return f"{command} --resume {run.path}"
