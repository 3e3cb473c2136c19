"""The proof of what a model learned: figures, video and pictures from held-out episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.datasets import environment, named_policy, open_datasets
from worldmodel.evaluation import (
    HeldOut,
    MLPProbe,
    choose_readout,
    evaluate,
    evaluation_set,
    fit_probes,
    missing_angles,
    missing_states,
    pendulum_task,
    step_seconds,
)
from worldmodel.evaluation.probe_file import save_probe
from worldmodel.facts import run_facts
from worldmodel.imagination.store import dream_path, save_dream
from worldmodel.models import WorldModel
from worldmodel.playback import forecast_plot, forecast_video, reconstruction_figure
from worldmodel.report import ReportRun, gather_media, insert_agents, write_report
from worldmodel.run import Run, RunError, load

PICTURED = 16
FILMED = 4


def prove(
    run: Run, config: Config, model: WorldModel, train: ReplayBuffer, console: Console
) -> dict[str, Any]:
    """Evaluate on held-out episodes; write metrics.json, the video, the pictures, the report."""
    return _evaluate(run, config, model, train, 0, console).metrics


def evaluate_runs(
    paths: Sequence[Path],
    device: str,
    privileged_updates: int,
    comparison: Path | None,
    console: Console,
) -> list[dict[str, Any]]:
    """Evaluate finished runs anew and write the metrics.json, pictures and report of each.

    Args:
        paths: run directories, at least one.
        device: see :func:`worldmodel.run.choose_device`.
        privileged_updates: of the reference trained on the true state; 0 leaves it out.
        comparison: where the report of all runs goes if there are several; None for
            ``comparison.html``.
        console: shows progress.

    Returns:
        The metrics of each run.

    Raises:
        RunError: there is no finished run.
        ValueError: a run is named twice, or no report can be written to `comparison`.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("a run is named twice; name every run once")
    if comparison is not None and len(paths) == 1:
        raise ValueError("--output is for the report on several runs; one run has its report.html")
    comparison = comparison or Path("comparison.html")
    if comparison.is_dir() or not comparison.absolute().parent.is_dir():
        raise ValueError(
            f"{comparison} cannot be written: give a file in a directory that there is"
        )
    opened = [(Run(path), Run(path).config(), load(path, device)) for path in paths]
    reported = []
    for run, config, model in opened:
        if len(paths) > 1:
            console.print(f"Run {run.path}")
        with open_datasets(config, console) as datasets:
            reported.append(
                _evaluate(run, config, model, datasets.train, privileged_updates, console)
            )
    if len(reported) > 1:
        write_report(comparison, reported)
        console.print(f"Comparison: {comparison}")
    return [run.metrics for run in reported]


def _evaluate(
    run: Run,
    config: Config,
    model: WorldModel,
    train: ReplayBuffer,
    privileged_updates: int,
    console: Console,
) -> ReportRun:
    world = environment(config)
    dt = step_seconds(world["env_id"], world["env_kwargs"])
    task = pendulum_task(world["env_id"], world["env_kwargs"])
    readout = choose_readout(task, train.state_dim)
    console.print("Evaluating on held-out episodes ...")
    with _heldout(config, train, has_passive=task is not None) as heldout:
        probes = fit_probes(model, train, readout) if missing_states(train) is None else None
        metrics = {
            "run": run_facts(run.path, config, model),
            **evaluate(
                model,
                train,
                heldout,
                dt=dt,
                task=task,
                privileged_updates=privileged_updates,
                probes=probes,
            ),
        }
        run.save_metrics(metrics)
        if not dream_path(run.path).exists():
            save_dream(run.path, model, train)
        angles = probes.mlp if probes and missing_angles(train, readout) is None else None
        if angles is not None:
            save_probe(run.path, angles)
            forecast_plot(metrics, run.path / "forecast.png")
        if model.decoder is not None:
            _draw(run, model, heldout.main, angles, dt)
        media = gather_media(model, heldout.main, angles, task.energy if task else None)
    reported = ReportRun(run.path.resolve().name, metrics, media)
    write_report(run.report, [reported])
    try:
        insert_agents(run.path)
    except RunError as error:
        console.print(f"The report shows no agents: {error}")
    return reported


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
                    policy=named_policy(policy),
                    episodes=config.data.heldout_size,
                    **environment(config),
                )
                collected[policy] = stack.enter_context(buffer)
        yield HeldOut(**{name: collected[policy] for name, policy in policies.items()})


def _draw(
    run: Run, model: WorldModel, heldout: ReplayBuffer, probe: MLPProbe | None, dt: float
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
    if probe is not None:
        states = heldout.states(episodes[filmed], starts[filmed], length)
        told = {"states": states, "probe": probe}
    forecast_video(
        model,
        windows.frames[filmed],
        windows.actions[filmed],
        run.path / "forecast.mp4",
        dt=dt,
        **told,
    )
