"""The proof of what a model learned: figures, video and pictures from held-out episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.datasets import environment, open_datasets
from worldmodel.evaluation import evaluate, evaluation_set, fit_probes, step_seconds
from worldmodel.evaluation.evaluate import missing_states
from worldmodel.models import WorldModel
from worldmodel.run import Run, load


def prove(
    run: Run, config: Config, model: WorldModel, train: ReplayBuffer, console: Console
) -> dict[str, Any]:
    """Evaluate on held-out episodes; write metrics.json, the video and the pictures."""
    return _evaluate(run, config, model, train, 0, console)


def evaluate_run(
    path: Path, device: str, privileged_updates: int, console: Console
) -> dict[str, Any]:
    """Evaluate a finished run anew and write its metrics.json and pictures.

    Args:
        path: run directory.
        device: see :func:`worldmodel.run.choose_device`.
        privileged_updates: of the reference trained on the true state; 0 leaves it out.
        console: shows progress.

    Raises:
        RunError: there is no finished run.
    """
    run = Run(path)
    config = run.config()
    model = load(path, device)
    with open_datasets(config, console) as datasets:
        return _evaluate(run, config, model, datasets.train, privileged_updates, console)


def _evaluate(
    run: Run,
    config: Config,
    model: WorldModel,
    train: ReplayBuffer,
    privileged_updates: int,
    console: Console,
) -> dict[str, Any]:
    world = environment(config)
    dt = step_seconds(world["env_id"], world["env_kwargs"])
    console.print("Evaluating on held-out episodes ...")
    with evaluation_set(
        "heldout", training_seeds=train.seeds, policy=config.data.policy, **world
    ) as heldout:
        probes = None
        if missing_states(train) is None:
            probes = fit_probes(model, train, seed=0)
        metrics = evaluate(
            model,
            train,
            heldout,
            dt=dt,
            privileged_updates=privileged_updates,
            probes=probes,
        )
        run.save_metrics(metrics)
    return metrics
