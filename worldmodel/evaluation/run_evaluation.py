"""The evaluation of finished runs: metrics.json, probe, pictures, video and report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.data import ReplayBuffer, evaluation_set
from worldmodel.errors import RunError
from worldmodel.evaluation.evaluate import HeldOut, evaluate, missing_angles, missing_states
from worldmodel.evaluation.metrics import Metrics, RunSummary
from worldmodel.evaluation.probes import Probes, fit_probes
from worldmodel.evaluation.warnings import find_warnings
from worldmodel.files import remove_leftovers
from worldmodel.imagination.domain import fit_domain, start_latents

if TYPE_CHECKING:
    from worldmodel.data.datasets import Datasets
    from worldmodel.run import Run
    from worldmodel.viz.report import ReportRun

PICTURE_EPISODES = 16
VIDEO_EPISODES = 4
_LONGEST_WRITE = 3600.0
"""Age in seconds from which a temporary file belongs to no running process."""


def evaluate_run(
    run: Run,
    *,
    datasets: Datasets | None = None,
    reference_updates: int = 0,
    callbacks: Sequence[Callback] = (),
) -> Metrics:
    """Evaluate a run on the episodes of `evaluation.split`, and write the results.

    Writes metrics.json, the probe, the pictures, the video and the report into its directory, and
    the domain and start latents if there are none yet.

    Args:
        run: a run with a trained model.
        datasets: datasets of the run; opened if not given.
        reference_updates: number of updates of the reference model, which is trained on the true
            state; 0 for none.
        callbacks: callbacks that show progress and messages.

    Raises:
        RunError: If the run has no trained model, or a file cannot be read.
    """
    return _evaluate(run, datasets, reference_updates, CallbackList(callbacks)).metrics


def evaluate_runs(
    runs: Sequence[Run],
    *,
    reference_updates: int | None = None,
    comparison: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> list[Metrics]:
    """Evaluate runs, see `evaluate_run`, and compare several of them in one more report.

    Args:
        runs: one run or more.
        reference_updates: number of updates of the reference model, which is trained on the true
            state; 0 for none, None for `evaluation.reference.updates` of each run.
        comparison: path of the report that compares several runs; by default
            ``comparison.html``.
        callbacks: callbacks that show progress and messages.

    Raises:
        RunError: If a run has no trained model.
        ValueError: If a run is named twice, or `comparison` cannot be written.
    """
    watching = CallbackList(callbacks)
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise ValueError("a run is named twice; name every run once")
    if comparison is not None and len(runs) == 1:
        raise ValueError("--output is the report on several runs; one run has its report.html")
    path = comparison or Path("comparison.html")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"cannot write {path}: expected a file in an existing directory")
    for run in runs:
        _ = run.model  # fails before any run is evaluated
    reported = []
    for run in runs:
        if len(runs) > 1:
            watching.on_message(f"Run {run.path}")
        default = run.config.evaluation.reference.updates
        updates = default if reference_updates is None else reference_updates
        reported.append(_evaluate(run, None, updates, watching))
    if len(reported) > 1:
        from worldmodel.viz.report import write_report

        write_report(path, reported)
        watching.on_message(f"Comparison: {path}")
    return [one.metrics for one in reported]


def _evaluate(
    run: Run,
    datasets: Datasets | None,
    reference_updates: int,
    callbacks: CallbackList,
) -> ReportRun:
    if datasets is None:
        with run.datasets([callbacks]) as opened:
            return _evaluate(run, opened, reference_updates, callbacks)
    from worldmodel.viz.media import gather_media
    from worldmodel.viz.report import ReportRun, insert_agents, link_dream, write_report

    remove_leftovers(run.path, _LONGEST_WRITE)
    model, settings, train = run.model, run.config.evaluation, datasets.train
    kind = "held-out" if settings.split == "heldout" else settings.split
    callbacks.on_message(f"Evaluating on {kind} episodes ...")
    readout = run.readout(train.state_dim)
    with _heldout(run, datasets, callbacks) as heldout:
        probes = None
        if missing_states(train) is None:
            probes = fit_probes(model, train, readout, settings.probe)
        metrics = evaluate(
            model,
            train,
            heldout,
            settings,
            plugin=run.plugin,
            dt=run.dt,
            reference_updates=reference_updates,
            probes=probes,
        )
        summary = RunSummary.of(run.config, model, run.path, train)
        data = replace(metrics.data, split=settings.split)
        metrics = replace(metrics, data=data, run=summary)
        metrics = replace(metrics, warnings=find_warnings(metrics))
        run.save_metrics(metrics)
        if not run.has_imagination:
            starts = start_latents(model, train, settings.starts)
            run.save_imagination(starts, fit_domain(model, train, settings))
        angle_probes = None if missing_angles(train, readout) else probes
        if angle_probes is not None:
            run.save_probe(angle_probes.mlp)
        _draw(run, metrics, heldout.main, angle_probes)
        energy = run.plugin.energy if run.plugin.state_dim in (None, train.state_dim) else None
        media = gather_media(model, heldout.main, probes, energy)
    reported = ReportRun(run.path.resolve().name, metrics, media)
    write_report(run.path / "report.html", [reported])
    link_dream(run.path)
    try:
        insert_agents(run.path)
    except RunError as error:
        callbacks.on_message(f"The report shows no agents: {error}", warning=True)
    return reported


@contextmanager
def _heldout(run: Run, datasets: Datasets, callbacks: CallbackList) -> Iterator[HeldOut]:
    """Open the evaluation episodes: as in training, under random and under passive actions.

    Those that own data does not hold are collected if the environment is known.
    """
    split = run.config.evaluation.split
    stored = datasets.heldout
    if split == "validation" and run.config.data.sources:
        stored = datasets.validation
    main = run.config.data.policy
    policies = {"main": main, "driven": "random"}
    if run.plugin.energy is not None:
        policies["passive"] = "passive"
    known = {} if stored is None else {main: stored}
    with ExitStack() as stack:
        for policy in dict.fromkeys(policies.values()):
            if policy not in known and run.config.env.id is not None:
                seeds = datasets.train.seeds
                episodes = evaluation_set(split, run.config, seeds, policy, callbacks=[callbacks])
                known[policy] = stack.enter_context(episodes)
        yield HeldOut(
            main=known[main],
            driven=known.get("random", known[main]),
            passive=known.get(policies.get("passive", "")),
        )


def _draw(run: Run, metrics: Metrics, heldout: ReplayBuffer, probes: Probes | None) -> None:
    """Write pictures and a video of held-out episodes that are at least as long as the median."""
    from worldmodel.viz.figures import forecast_plot, reconstruction_figure
    from worldmodel.viz.video import forecast_video

    if probes is not None:
        forecast_plot(metrics, run.path / "forecast.png")
    if run.model.decoder is None:
        return
    length = int(np.median(heldout.lengths))
    episodes = np.flatnonzero(heldout.lengths >= length)[:PICTURE_EPISODES]
    starts = np.zeros_like(episodes)
    windows = heldout.windows(episodes, starts, length)
    frames, actions = windows.frames, windows.actions
    path = run.path / "reconstruction.png"
    reconstruction_figure(run.model, frames, actions, path, dt=run.dt)
    some = slice(VIDEO_EPISODES)
    states = None
    if probes is not None:
        states = heldout.states(episodes[some], starts[some], length)
    path = run.path / "forecast.mp4"
    forecast_video(
        run.model, frames[some], actions[some], path, dt=run.dt, states=states, probes=probes
    )
