"""Experiment trackers beside TensorBoard: Weights & Biases and trackio, as callbacks.

A tracker that fails, e.g. without a network, is reported once and left out; training continues.
"""

from __future__ import annotations

import importlib
import os
import re
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodel.callbacks import Callback, CallbackList, TrainingState, scalar_tags
from worldmodel.extras import require_installed
from worldmodel.files import write_text

if TYPE_CHECKING:
    from worldmodel.run import Run

PROJECT = "worldmodel"
"""Name of the project, where the environment variables of the tracker name none."""

_PICTURES = ("reconstruction.png", "forecast.png")
_TIMEOUT = 30.0
"""Seconds to wait for the server at the start."""
_RUN_ID = re.compile(r"[0-9a-f]{16}")


class Tracker(Callback, ABC):
    """A run of an external tracker: scalars while training, video and report after the evaluation.

    Args:
        report: function that is called with the text of a warning.
    """

    name: str

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._started = self._failed = False

    @abstractmethod
    def start(self, run: Run) -> None:
        """Start, or resume, the tracker's run."""

    @abstractmethod
    def log(self, scalars: dict[str, float], state: TrainingState) -> None:
        """Log scalars."""

    @abstractmethod
    def attach(self, run: Run) -> None:
        """Attach the results of the evaluation."""

    @abstractmethod
    def finish(self) -> None:
        """End the tracker's run."""

    def on_train_start(self, state: TrainingState) -> None:
        """Start the run."""
        with self._guard():
            self.start(state.run)
            self._started = True

    def on_log(self, state: TrainingState) -> None:
        """Log the scalars."""
        if self._started and not self._failed:
            with self._guard():
                self.log(scalar_tags(state.scalars), state)

    def on_evaluation_end(self, run: Run) -> None:
        """Attach the results."""
        if self._started and not self._failed:
            with self._guard():
                self.attach(run)

    def close(self) -> None:
        """End the run, also after a failure."""
        if self._started:
            self._started = False
            with self._guard():
                self.finish()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Report an exception once instead of raising it; keep stdout for results."""
        try:
            with redirect_stdout(sys.stderr):
                yield
        except Exception as error:  # a tracker may fail in any way, and training goes on
            if not self._failed:
                text = " ".join(f"{type(error).__name__}: {error}".split())
                self._report(f"{self.name} failed and is left out ({text}); training continues")
            self._failed = True


class WandbTracker(Tracker):
    """Logs to Weights & Biases; ``WANDB_MODE=offline`` keeps all in ``wandb/`` beside the run.

    The variables ``WANDB_PROJECT``, ``WANDB_ENTITY`` and ``WANDB_API_KEY`` apply. A resumed
    training continues the same run, whose id is in ``wandb_id`` of the run directory.
    """

    name = "wandb"

    def start(self, run: Run) -> None:
        """See `Tracker`."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._library = importlib.import_module("wandb")
        self._run = self._library.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.path.name,
            id=_wandb_id(run.path / "wandb_id"),
            resume="allow",
            dir=str(run.path.parent),  # it makes links, which a run must not hold
            config=run.config.model_dump(mode="json"),
            settings=self._library.Settings(
                console="off", disable_git=True, disable_code=True, init_timeout=_TIMEOUT
            ),
        )
        self._steps: set[str] = set()

    def log(self, scalars: dict[str, float], state: TrainingState) -> None:
        """See `Tracker`. Each phase has its own axis of updates."""
        axis = f"{state.phase.replace(' ', '')}/update"
        for tag in scalars.keys() - self._steps:
            self._run.define_metric(tag, step_metric=axis)
        self._steps |= scalars.keys()
        self._run.log({**scalars, axis: state.update})

    def attach(self, run: Run) -> None:
        """See `Tracker`."""
        self._run.log(_media(self._library, run, format="mp4"))
        self._run.save(str(run.path / "report.html"), base_path=str(run.path), policy="now")
        self._run.summary.update(headline(run))

    def finish(self) -> None:
        """See `Tracker`."""
        self._run.finish()


class TrackioTracker(Tracker):
    """Logs to trackio, a local dashboard; ``TRACKIO_DIR`` is its folder.

    A resumed training continues the run of the same name.
    """

    name = "trackio"

    def start(self, run: Run) -> None:
        """See `Tracker`."""
        self._library = importlib.import_module("trackio")
        self._run = self._library.init(
            project=PROJECT,
            name=run.path.name,
            resume="allow",
            config=run.config.model_dump(mode="json"),
            embed=False,
            auto_log_cpu=False,
        )

    def log(self, scalars: dict[str, float], state: TrainingState) -> None:
        """See `Tracker`."""
        self._run.log(scalars, step=state.update)

    def attach(self, run: Run) -> None:
        """See `Tracker`."""
        report = {"report": self._library.Html(run.path / "report.html")}
        self._run.log({**_media(self._library, run), **report, **headline(run)})

    def finish(self) -> None:
        """See `Tracker`."""
        self._library.finish()


TRACKERS: dict[str, type[Tracker]] = {"wandb": WandbTracker, "trackio": TrackioTracker}
"""Trackers beside TensorBoard, which `worldmodel.training` always writes."""


def require_trackers(names: Sequence[str]) -> None:
    """Check that the libraries of trackers are installed.

    Raises:
        MissingLibraryError: If one is not.
    """
    for name in names:
        if name in TRACKERS:
            require_installed(name, name)


@contextmanager
def tracking(names: Sequence[str], callbacks: CallbackList) -> Iterator[CallbackList]:
    """Add trackers to callbacks, and end their runs afterwards.

    Args:
        names: names of trackers; those not in `TRACKERS` are left out.
        callbacks: callbacks that are called before the trackers.

    Raises:
        MissingLibraryError: If a library is not installed.
    """
    require_trackers(names)

    def report(text: str) -> None:
        callbacks.on_message(text, warning=True)

    trackers = [TRACKERS[name](report) for name in names if name in TRACKERS]
    try:
        yield CallbackList([*callbacks.callbacks, *trackers])
    finally:
        for tracker in trackers:
            tracker.close()


def headline(run: Run) -> dict[str, float]:
    """Select the numbers of an evaluation by which runs are compared."""
    metrics = run.metrics
    values = {"evaluation/effective_rank": metrics.collapse.effective_rank}
    if metrics.probes is not None:
        values["evaluation/linear_probe_worst_r2"] = metrics.probes.linear.worst_r2
    if metrics.forecast.angle is not None:
        errors = metrics.forecast.angle.error
        values |= {f"evaluation/angle_error_{k}": value for k, value in errors.items()}
    return values


def _media(library: Any, run: Run, **video: Any) -> dict[str, Any]:
    """Wrap the pictures and the video that a run has in the classes of a tracker's library."""
    media = {
        Path(name).stem: library.Image(str(run.path / name))
        for name in _PICTURES
        if (run.path / name).is_file()
    }
    if (run.path / "forecast.mp4").is_file():
        media["forecast_video"] = library.Video(str(run.path / "forecast.mp4"), **video)
    return media


def _wandb_id(path: Path) -> str:
    """Return the id of the run in Weights & Biases, the same whenever training resumes."""
    if path.is_file() and _RUN_ID.fullmatch(found := path.read_text(encoding="utf-8").strip()):
        return found
    created = secrets.token_hex(8)
    write_text(path, created + "\n")
    return created
