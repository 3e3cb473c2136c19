"""Sweeps on Ray: one task per trial, resumed where a worker or the user stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.data.ray_collect import RETRIES, cancel, cluster
from worldmodel.errors import InterruptedRunError, RunError
from worldmodel.extras import require
from worldmodel.files import only_one_process, write_json, write_text
from worldmodel.run import Run
from worldmodel.sweeps.results import (
    SweepResult,
    TrialResult,
    known_metrics,
    markdown_table,
    sweep_plot,
    value_at,
)
from worldmodel.sweeps.sweep_file import DEFAULT_METRICS, Resources, Sweep, Trial, read_sweep
from worldmodel.sweeps.trials import (
    LOG,
    Job,
    changes,
    collect_data,
    data_settings,
    is_finished,
    read_trial,
    run_trial,
)

_SECONDS_TO_SAVE = 120.0
"""How long stopped trials may take to write their checkpoints."""


def sweep(
    source: str | Path | Mapping[str, Any],
    *,
    output_dir: str | Path | None = None,
    workers: int | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> SweepResult:
    """Train and evaluate configurations with several seeds, as tasks of a Ray cluster.

    The same call resumes: finished trials are kept, unfinished ones continue from their last
    checkpoint, and failed ones are tried again. Data that trials share is collected once.

    Args:
        source: path of a sweep file, or its content; see `worldmodel.sweeps.SweepFile`.
        output_dir: parent of the run directories; by default ``results/<name of the file>``.
        workers: number of simultaneous trials if a local cluster is started; None for as many as
            the cores allow. Ignored for an existing cluster (``RAY_ADDRESS``, or after `ray.init`).
        callbacks: that show the progress of the sweep.
        progress: show a progress bar and messages on stderr.

    Returns:
        The results; those of failed trials name their error. They are also written to the output
        directory.

    Raises:
        ConfigError: If the sweep file is invalid; the message lists every error.
        InterruptedRunError: If the user stopped it.
        MissingLibraryError: If Ray is not installed.
        RunError: If a trial was trained with other settings, or a file cannot be read or written.
        ValueError: If no machine has the resources of a trial.

    Example:
        >>> result = worldmodel.sweep("learning_rates.yaml", workers=2)  # doctest: +SKIP
    """
    plan = read_sweep(source, output_dir)
    ray = require("ray", "ray")
    watching = CallbackList([*callbacks, *_terminal(progress)])
    path = plan.output_dir
    try:
        path.mkdir(parents=True, exist_ok=True)
        with only_one_process(path / "sweep.lock", f"running the sweep in {path}"):
            return _run(ray, plan, workers, watching)
    except OSError as error:
        raise RunError(f"cannot write to {path}: {error}; pass another --output-dir") from error


def _terminal(progress: bool) -> list[Callback]:
    from worldmodel.terminal import TerminalProgress

    return [TerminalProgress()] if progress else []


def _run(ray: Any, plan: Sweep, workers: int | None, callbacks: CallbackList) -> SweepResult:
    path, resources = plan.output_dir, plan.file.resources
    _require_unchanged(plan)
    write_text(path / "sweep.yaml", yaml.safe_dump(plan.to_dict(), sort_keys=False))
    state = _State(plan)
    waiting = [trial for trial in plan.trials if trial.name not in state.contents]
    callbacks.on_message(
        f"Sweep of {len(plan.trials)} trials in {path}, {len(waiting)} of them to train"
    )
    cpus = None if workers is None else workers * resources.cpus
    if waiting:
        with cluster(ray, cpus):
            _require_resources(ray, resources)
            _run_trials(ray, state, waiting, callbacks)
    result = state.write()
    if state.contents:
        _write_figures(result, state)
    return result


def _require_unchanged(plan: Sweep) -> None:
    """Check that no trial was trained with other settings.

    Raises:
        RunError: If one was; the message lists all of them.
    """
    changed = {
        trial.name: "; ".join(found)
        for trial in plan.trials
        if (found := changes(trial, plan.output_dir / trial.name))
    }
    if changed:
        listed = ", ".join(f"{name} ({found})" for name, found in changed.items())
        raise RunError(
            f"{plan.output_dir} has trials that were trained with other settings: {listed}; rename "
            "their variants, remove their directories, or pass another --output-dir"
        )


def _require_resources(ray: Any, wanted: Resources) -> None:
    """Check that a machine has the resources of a trial, which would never start otherwise."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(
        found.get("CPU", 0) >= wanted.cpus and found.get("GPU", 0) >= wanted.gpus
        for found in machines
    ):
        have = ", ".join(f"{m.get('CPU', 0):g} CPUs and {m.get('GPU', 0):g} GPUs" for m in machines)
        raise ValueError(
            f"resources: a trial needs {wanted.cpus} CPUs and {wanted.gpus:g} GPUs on one machine, "
            f"and those of the cluster have {have}; lower resources"
        )


@dataclass
class _State:
    """What is known about the trials of a sweep.

    Attributes:
        plan: the sweep.
        contents: name of each finished trial -> content of its metrics.json.
        errors: name of each failed trial -> why it failed.
    """

    plan: Sweep
    contents: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for trial in self.plan.trials:
            if is_finished(trial, self.directory(trial)):
                self.add(trial)

    def directory(self, trial: Trial) -> Path:
        """Return the run directory of a trial."""
        return self.plan.output_dir / trial.name

    def add(self, trial: Trial) -> None:
        """Record a finished trial."""
        self.contents[trial.name] = Run(self.directory(trial)).metrics.to_dict()

    def running(self, trials: Sequence[Trial]) -> int:
        """Count the trials that a worker has started."""
        return sum((self.directory(trial) / LOG).is_file() for trial in trials)

    def result(self) -> SweepResult:
        """Gather the results up to now."""
        chosen, contents = self.plan.file.metrics, list(self.contents.values())
        paths = known_metrics(DEFAULT_METRICS, contents) if chosen is None else tuple(chosen)
        return SweepResult(
            path=self.plan.output_dir,
            evaluated_on=self.plan.file.evaluate_on,
            metrics=paths,
            trials=tuple(self._trial(trial, paths) for trial in self.plan.trials),
        )

    def _trial(self, trial: Trial, paths: Sequence[str]) -> TrialResult:
        content, record = self.contents.get(trial.name), read_trial(self.directory(trial))
        error = self.errors.get(trial.name)
        return TrialResult(
            name=trial.name,
            variant=trial.variant,
            seed=trial.seed,
            status="finished" if content else "failed" if error else "unfinished",
            minutes=record.seconds / 60 if record else None,
            metrics={path: value_at(content, path) if content else None for path in paths},
            error=error,
        )

    def write(self) -> SweepResult:
        """Write results.json and table.md."""
        result = self.result()
        write_json(result.path / "results.json", result.to_dict())
        write_text(result.path / "table.md", markdown_table(result))
        return result


def _run_trials(ray: Any, state: _State, trials: list[Trial], callbacks: CallbackList) -> None:
    """Run trials as tasks of the cluster, and write the results after each.

    Raises:
        InterruptedRunError: If the user stopped it; the trials have saved checkpoints.
    """
    for trial in trials:
        (state.directory(trial) / LOG).unlink(missing_ok=True)
    total = len(state.plan.trials)
    kept = total - len(trials)
    logs = state.plan.output_dir / "<trial>" / LOG
    callbacks.on_message(f"Trials to run: {len(trials)} of {total}; the log of each is {logs}")
    with callbacks.task("trials", total, kept) as advance:
        tasks = _submit(ray, state.plan, trials)
        try:
            while tasks:
                finished, _ = ray.wait(list(tasks), timeout=1.0)
                for task in finished:
                    _record(ray, state, tasks.pop(task), task, callbacks)
                done = total - len(tasks)
                running = state.running(list(tasks.values()))
                note = f"{running} running" if running or done > kept else "collecting data"
                advance(done, note + (f", {len(state.errors)} failed" if state.errors else ""))
        except KeyboardInterrupt as error:
            callbacks.on_message("Stopping: the running trials save a checkpoint ...")
            cancel(ray, list(tasks), _SECONDS_TO_SAVE)
            state.write()
            raise InterruptedRunError(
                f"Stopped; {len(state.contents)} of {total} trials are finished. Resume with the "
                "same command"
            ) from error
        except BaseException:
            cancel(ray, list(tasks), 0.0)
            raise


def _submit(ray: Any, plan: Sweep, trials: Sequence[Trial]) -> dict[Any, Trial]:
    """Start a task per trial, each of which waits for the task that collects its data."""
    resources = plan.file.resources
    shared: dict[str, Any] = {}
    options = {"num_cpus": resources.cpus, "max_retries": RETRIES}
    collect = ray.remote(**options)(collect_data)
    train = ray.remote(num_gpus=resources.gpus, **options)(run_trial)
    tasks = {}
    for trial in trials:
        job = Job.of(trial, plan.output_dir, resources.cpus)
        key = json.dumps(data_settings(trial.config), sort_keys=True)
        if key not in shared:
            shared[key] = collect.remote(job)
        tasks[train.remote(job, shared[key])] = trial
    return tasks


def _record(ray: Any, state: _State, trial: Trial, task: Any, callbacks: CallbackList) -> None:
    """Record the outcome of a trial, and write the results."""
    try:
        error = ray.get(task)
        if error is None:
            state.add(trial)
    except (ray.exceptions.RayError, RunError) as failure:
        error = failure
    if error is not None:
        text = _one_line(ray, error)
        state.errors[trial.name] = text
        callbacks.on_message(f"{trial.name} failed: {text}", warning=True)
    else:
        callbacks.on_message(f"{trial.name} is finished")
    state.write()


def _one_line(ray: Any, error: Exception) -> str:
    """Describe an error in one line, with its type where the message alone may say too little."""
    if isinstance(error, ray.exceptions.RayError):
        return str(error).strip().partition("\n")[0]
    text = " ".join(str(error).split())
    own = isinstance(error, ValueError | RunError | InterruptedRunError | OSError)
    return text if own and text else f"{type(error).__name__}: {text}"


def _write_figures(result: SweepResult, state: _State) -> None:
    """Write the plot, and the report that compares all finished runs."""
    from worldmodel.evaluation.metrics import Metrics
    from worldmodel.viz.report import ReportRun, write_report

    sweep_plot(result, result.path / "sweep.png")
    runs = [
        ReportRun(trial.name, Metrics.from_dict(state.contents[trial.name]))
        for trial in state.plan.trials
        if trial.name in state.contents
    ]
    write_report(result.path / "report.html", runs)
