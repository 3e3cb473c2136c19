"""A trial: its directory, and what a worker of the cluster does to finish it."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from worldmodel.callbacks import Callback, TrainingState
from worldmodel.config import Config, validate
from worldmodel.data.workers import portable
from worldmodel.errors import ConfigError, InterruptedRunError, RunError
from worldmodel.files import read_record, write_json
from worldmodel.registry import SEARCHED
from worldmodel.run import Run
from worldmodel.sweeps.sweep_file import Trial
from worldmodel.trust import trust_all, trusts_all

RECORD, LOG = "trial.json", "trial.log"
_WITHOUT_EFFECT: dict[str, Any] = {
    "output_dir": True,
    "device": True,
    "data": {"dir", "workers", "compression"},
    "evaluation": {"split"},
}
"""Settings that do not change the weights: a trained run need not be trained again for them."""


@dataclass(frozen=True)
class TrialRecord:
    """The content of trial.json.

    Attributes:
        variant: name of the variant.
        seed: seed of the training.
        config: the configuration that was asked for; training may lower its horizon.
        seconds: time spent in training and evaluation, of all attempts.
        evaluated_on: `evaluation.split` of the complete evaluation; None before it.
    """

    variant: str
    seed: int
    config: dict[str, Any]
    seconds: float = 0.0
    evaluated_on: str | None = None


@dataclass(frozen=True)
class Job:
    """What a worker needs to know.

    Attributes:
        trial: the trial.
        path: absolute path of its run directory.
        threads: number of torch threads.
        directory: working directory; it must exist on every machine.
        searched: see `worldmodel.registry.SEARCHED`.
        trusted: whether all runs are trusted.
    """

    trial: Trial
    path: Path
    threads: int
    directory: Path
    searched: tuple[str, ...]
    trusted: bool

    @classmethod
    def of(cls, trial: Trial, output_dir: Path, threads: int) -> Job:
        """Describe a trial to a worker, with the settings of this process."""
        path = output_dir.resolve() / trial.name
        return cls(trial, path, threads, Path.cwd(), tuple(SEARCHED), trusts_all())


def comparable(config: Config) -> dict[str, Any]:
    """Return the settings that determine the weights of a trial, as JSON values."""
    return config.model_dump(mode="json", exclude=_WITHOUT_EFFECT)


def data_settings(config: Config) -> dict[str, Any]:
    """Return the settings that determine the data of a trial, as JSON values."""
    keys = {"env", "observation", "image_size", "data"}
    return config.model_dump(mode="json", include=keys)


def read_trial(path: Path) -> TrialRecord | None:
    """Read trial.json of a run directory; None if there is none.

    Raises:
        RunError: If it is damaged.
    """
    file = path / RECORD
    if not file.is_file():
        return None
    return read_record(file, TrialRecord, f"remove {path} to train this trial again")


def changes(trial: Trial, path: Path) -> list[str]:
    """List the settings in which a trial differs from what its directory was trained with.

    There is nothing to compare before the first checkpoint.

    Raises:
        RunError: If the directory is not that of a trial.
    """
    if not any((path / name).is_file() for name in ("checkpoint.pt", "metrics.json")):
        return []
    record = read_trial(path)
    if record is None:
        raise RunError(f"{path} is no trial: it has no {RECORD}; pass another --output-dir")
    try:
        before = comparable(validate(record.config))
    except ConfigError as error:
        return [f"its configuration is of another version: {error}"]
    return changed_keys(before, comparable(trial.config))


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the settings in which two configurations differ, as ``model.width was 16, is 32``."""
    texts = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            texts += [f"{key}.{text}" for text in changed_keys(old, new)]
        elif old != new:
            texts.append(f"{key} was {old!r}, is {new!r}")
    return texts


def is_finished(trial: Trial, path: Path) -> bool:
    """Whether a trial is trained, and evaluated on the episodes that the sweep asks for.

    Raises:
        RunError: If its metrics are damaged.
    """
    record, run, split = read_trial(path), Run(path), trial.config.evaluation.split
    if record is None or record.evaluated_on != split or not run.finished:
        return False
    return run.metrics.data.split == split


def collect_data(job: Job) -> Exception | None:
    """Collect the data of a trial into the cache, in a worker; return what was raised."""
    from worldmodel.data.datasets import check_data, open_datasets

    try:
        with _prepared(job):
            check_data(job.trial.config)
            with open_datasets(job.trial.config):
                pass
    except Exception as error:
        return portable(error)
    return None


def run_trial(job: Job, collected: Exception | None) -> Exception | None:
    """Train and evaluate a trial in a worker, from its last checkpoint on.

    Args:
        job: the trial.
        collected: what `collect_data` returned.

    Returns:
        What was raised.
    """
    if collected is not None:
        return collected
    from rich.console import Console

    from worldmodel.terminal import TerminalProgress
    from worldmodel.training import train_in

    with _prepared(job):
        job.path.mkdir(parents=True, exist_ok=True)
        with (job.path / LOG).open("a", encoding="utf-8", buffering=1) as log:
            console = Console(file=log, soft_wrap=True, highlight=False)
            try:
                _adopt_split(job)
                with _timed(job) as clock:
                    watching = [clock, TerminalProgress(console)]
                    train_in(job.path, job.trial.config, callbacks=watching)
            except KeyboardInterrupt:
                return InterruptedRunError(f"{job.trial.name} was stopped")
            except Exception as error:
                log.write(traceback.format_exc())
                return portable(error)
    return None


@contextmanager
def _prepared(job: Job) -> Iterator[None]:
    """Give this process the settings of the one that started the sweep."""
    import torch

    os.chdir(job.directory)
    SEARCHED[:] = job.searched
    if job.trusted:
        trust_all()
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    torch.set_num_threads(job.threads)
    yield


def _adopt_split(job: Job) -> None:
    """Evaluate a run that is already trained on the episodes that the sweep asks for now."""
    if (job.path / "checkpoint.pt").is_file():
        run, split = Run(job.path), job.trial.config.evaluation.split
        if run.config.evaluation.split != split:
            run.change_config({"evaluation": {"split": split}})


class _Clock(Callback):
    """Writes the time spent on a trial into trial.json, whenever losses are logged."""

    def __init__(self, path: Path, record: TrialRecord) -> None:
        self._path, self._record, self._start = path, record, time.monotonic()

    def on_log(self, state: TrainingState) -> None:
        """Write the time."""
        self.write()

    def write(self, evaluated_on: str | None = None) -> None:
        """Write the time, and whether the evaluation is complete."""
        seconds = self._record.seconds + time.monotonic() - self._start
        record = replace(self._record, seconds=seconds, evaluated_on=evaluated_on)
        write_json(self._path / RECORD, asdict(record))


@contextmanager
def _timed(job: Job) -> Iterator[_Clock]:
    """Measure the time of this attempt, and add it to that of earlier ones."""
    trial, record = job.trial, read_trial(job.path)
    config = trial.config.model_dump(mode="json")
    seconds = record.seconds if record else 0.0
    clock = _Clock(job.path, TrialRecord(trial.variant, trial.seed, config, seconds))
    clock.write()
    try:
        yield clock
    except BaseException:
        clock.write()
        raise
    clock.write(evaluated_on=trial.config.evaluation.split)
