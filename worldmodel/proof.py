"""The proof of what a model learned: figures, video and pictures from held-out episodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.datasets import environment, open_datasets
from worldmodel.evaluation import (
    HeldOut,
    Probes,
    evaluate,
    evaluation_set,
    fit_probes,
    missing_states,
    pendulum_task,
    step_seconds,
)
from worldmodel.models import WorldModel
from worldmodel.playback import forecast_plot, forecast_video, reconstruction_figure
from worldmodel.run import Run, load

PICTURED = 16
FILMED = 4


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
    task = pendulum_task(world["env_id"], world["env_kwargs"])
    console.print("Evaluating on held-out episodes ...")
    with _heldout(config, train, has_passive=task is not None) as heldout:
        probes = fit_probes(model, train) if missing_states(train) is None else None
        metrics = evaluate(
            model,
            train,
            heldout,
            dt=dt,
            task=task,
            privileged_updates=privileged_updates,
            probes=probes,
        )
        run.save_metrics(metrics)
        if probes is not None:
            forecast_plot(metrics, run.path / "forecast.png")
        if model.decoder is not None:
            _draw(run, model, heldout.main, probes, dt)
    return metrics


@contextmanager
def _heldout(config: Config, train: ReplayBuffer, *, has_passive: bool) -> Iterator[HeldOut]:
    """Collect the held-out episodes: as in training, passive, and driven by random actions."""
    policies = {"main": config.data.policy, "driven": "random"}
    if has_passive:
        policies["passive"] = "passive"
    with ExitStack() as stack:
        collected: dict[str, ReplayBuffer] = {}
        for policy in policies.values():
            if policy not in collected:
                buffer = evaluation_set(
                    "heldout",
                    training_seeds=train.seeds,
                    policy=policy,
                    episodes=config.data.heldout_size,
                    **environment(config),
                )
                collected[policy] = stack.enter_context(buffer)
        yield HeldOut(**{name: collected[policy] for name, policy in policies.items()})


def _draw(
    run: Run, model: WorldModel, heldout: ReplayBuffer, probes: Probes | None, dt: float
) -> None:
    """Video and pictures of the held-out episodes that are as long as most."""
    length = int(np.median(heldout.lengths))
    episodes = np.flatnonzero(heldout.lengths >= length)[:PICTURED]
    starts = np.zeros_like(episodes)
    windows = heldout.windows(episodes, starts, length)
    reconstruction_figure(
        model, windows.frames, windows.actions, run.path / "reconstruction.png", dt=dt
    )
    filmed = slice(FILMED)
    told: dict[str, Any] = {}
    if probes is not None:
        states = heldout.states(episodes[filmed], starts[filmed], length)
        told = {"states": states, "probe": probes.mlp}
    forecast_video(
        model,
        windows.frames[filmed],
        windows.actions[filmed],
        run.path / "forecast.mp4",
        dt=dt,
        **told,
    )
