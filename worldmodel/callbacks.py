"""Callbacks: everything that watches a training run or another long task.

Progress bars, TensorBoard, the collapse monitor and the user's own code are all a `Callback`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from worldmodel.data import ReplayBuffer
    from worldmodel.hyperparameters import ObjectiveConfig
    from worldmodel.models import WorldModel
    from worldmodel.run import Run


@dataclass
class TrainingState:
    """The state of a training run, as callbacks see it.

    Attributes:
        run: the run that is being trained.
        model: the model that is being trained.
        validation: validation episodes.
        phase: name of the phase: ``"phase 1"``, ``"refinement"``, ``"phase 2"`` or ``"heads"``.
        update: number of updates done in this phase.
        updates: number of updates of the whole phase.
        losses: terms of the last update's loss, 0-d tensors without gradients; and `skipped`, the
            number of updates skipped so far because of non-finite gradients.
        scalars: logged values by name, filled before `Callback.on_log`; callbacks may add to them.
        note: short text for the progress bar, filled before `Callback.on_log`; callbacks may
            replace it.
        stop: whether to save a checkpoint after this update and stop; callbacks may set it. The run
            can be resumed.
    """

    run: Run
    model: WorldModel
    validation: ReplayBuffer
    phase: str = ""
    update: int = 0
    updates: int = 0
    losses: dict[str, torch.Tensor] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
    note: str = ""
    stop: bool = False


class Callback:
    """A base class whose methods do nothing; override those that you need.

    Everything that takes `callbacks` calls `on_message` at any time, and for each long task, such
    as the collection of episodes or a phase of training, `on_task_start` once, `on_task_update` as
    it advances, and `on_task_end` once, also if the task fails.

    Training also calls, in this order:

    1. `on_train_start`, once, when the data and the model are available;
    2. after each update of the weights: `on_log` (only after every 50th update of a phase and its
       last one), then `on_update`, then `on_task_update` of the phase;
    3. `on_train_end`, once, after the last phase and before the evaluation, or when training is
       stopped or fails;
    4. `on_evaluation_end`, once, after the evaluation.
    """

    def on_message(self, text: str, *, warning: bool = False) -> None:
        """Receive a text that the user should read."""

    def on_task_start(self, task: str, total: int | None, done: int) -> None:
        """Called when a task of `total` units, None if unknown, starts with `done` finished."""

    def on_task_update(self, task: str, done: int, note: str) -> None:
        """Called when `done` units of a task are finished."""

    def on_task_end(self, task: str) -> None:
        """Called when a task ends, whether it is finished or not."""

    def on_train_start(self, state: TrainingState) -> None:
        """Called once, before the first phase starts or a stopped one resumes."""

    def on_update(self, state: TrainingState) -> None:
        """Called after every update of the weights.

        Avoid ``.item()`` here: it waits for the device.
        """

    def on_log(self, state: TrainingState) -> None:
        """Called after every 50th update and the last one of a phase; `state.scalars` is filled."""

    def on_train_end(self, state: TrainingState) -> None:
        """Called once, when training is finished, stopped or failed."""

    def on_evaluation_end(self, run: Run) -> None:
        """Called once, after training and evaluation: metrics, video and report are written."""


class Advance(Protocol):
    """A function that reports the progress of a task, with a short note."""

    def __call__(self, done: int, note: str = "") -> None: ...


class CallbackList(Callback):
    """Several callbacks as one.

    Args:
        callbacks: callbacks, in the order in which they are called.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.callbacks = tuple(callbacks)

    def on_message(self, text: str, *, warning: bool = False) -> None:
        """Forward to all."""
        for callback in self.callbacks:
            callback.on_message(text, warning=warning)

    def on_task_start(self, task: str, total: int | None, done: int) -> None:
        """Forward to all."""
        for callback in self.callbacks:
            callback.on_task_start(task, total, done)

    def on_task_update(self, task: str, done: int, note: str) -> None:
        """Forward to all."""
        for callback in self.callbacks:
            callback.on_task_update(task, done, note)

    def on_task_end(self, task: str) -> None:
        """Forward to all."""
        for callback in self.callbacks:
            callback.on_task_end(task)

    def on_train_start(self, state: TrainingState) -> None:
        """Forward to all."""
        for callback in self.callbacks:
            callback.on_train_start(state)

    def on_update(self, state: TrainingState) -> None:
        """Forward to all."""
        for callback in self.callbacks:
            callback.on_update(state)

    def on_log(self, state: TrainingState) -> None:
        """Forward to all."""
        for callback in self.callbacks:
            callback.on_log(state)

    def on_train_end(self, state: TrainingState) -> None:
        """Forward to all."""
        for callback in self.callbacks:
            callback.on_train_end(state)

    def on_evaluation_end(self, run: Run) -> None:
        """Forward to all."""
        for callback in self.callbacks:
            callback.on_evaluation_end(run)

    @contextmanager
    def task(self, name: str, total: int | None, done: int = 0) -> Iterator[Advance]:
        """Announce a task and report its progress.

        Args:
            name: name of the task.
            total: number of units; None if unknown.
            done: number of units finished earlier.

        Yields:
            A function that takes the number of units done.
        """
        self.on_task_start(name, total, done)

        def advance(done: int, note: str = "") -> None:
            self.on_task_update(name, done, note)

        try:
            yield advance
        finally:
            self.on_task_end(name)


def scalar_tags(scalars: Mapping[str, float]) -> dict[str, float]:
    """Name scalars for trackers.

    The tag of a loss is ``<phase>/<term>``, such as ``phase1/prediction``. The number of skipped
    updates is not a loss: its tag is ``skipped_updates/<phase>``.
    """
    tags = {}
    for name, value in scalars.items():
        group, _, term = name.rpartition("/")
        tags[f"skipped_updates/{group}" if term == "skipped" else name] = value
    return tags


class TensorBoardLogger(Callback):
    """Writes losses and validation scalars as TensorBoard events into the run directory."""

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None

    def on_train_start(self, state: TrainingState) -> None:
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(state.run.path / "tensorboard"))

    def on_log(self, state: TrainingState) -> None:
        """Write the scalars."""
        assert self._writer is not None
        for tag, value in scalar_tags(state.scalars).items():
            self._writer.add_scalar(tag, value, state.update)

    def on_train_end(self, state: TrainingState) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


COLLAPSED_RANK = 2.0
"""Effective rank below which a representation counts as collapsed."""
COLLAPSED_STD = 0.05
"""Mean standard deviation of the latents below which a representation counts as collapsed."""
COLLAPSE_AFTER = 200
"""Number of updates before which small latents indicate an untrained encoder, not a collapse."""


class CollapseMonitor(Callback):
    """Watches phase 1 on validation windows and warns when the representation collapses.

    Adds ``validation/std`` (mean over latent dimensions), ``validation/effective_rank``,
    ``validation/prediction_error`` and ``validation/persistence_error`` (MSE of the forecasts, and
    of the repeated context latent, against the targets at all offsets but 0), and their ratio
    ``validation/relative_error``.

    Args:
        report: function that is called with the text of a warning.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._warned = False

    def on_train_start(self, state: TrainingState) -> None:
        """Draw the validation windows."""
        from worldmodel.phases import validation_batch

        self._batch = validation_batch(state.model, state.validation, state.run.config)
        self._warned = False

    def on_log(self, state: TrainingState) -> None:
        """Measure, and warn once per collapse."""
        if state.phase != "phase 1":
            return
        objective = state.run.config.objective
        scalars = self._measure(state.model, objective)
        state.scalars.update({f"validation/{name}": value for name, value in scalars.items()})
        rank, std = scalars["effective_rank"], scalars["std"]
        collapsed = rank < COLLAPSED_RANK or std < COLLAPSED_STD
        if collapsed and state.update >= COLLAPSE_AFTER and not self._warned:
            self._report(
                f"Representation collapse at update {state.update}: effective rank {rank:.1f} of "
                f"{state.model.spec.latent_dim}, mean standard deviation {std:.3f}. The latent no "
                f"longer distinguishes observations under objective {objective.name!r}; use "
                "--objective vicreg, or raise objective.variance_weight"
            )
        self._warned = collapsed and state.update >= COLLAPSE_AFTER
        error = float(state.losses["prediction"]) if "prediction" in state.losses else float("nan")
        state.note = f"prediction {error:.3f}, rank {rank:.1f}, std {std:.2f}"

    def _measure(self, model: WorldModel, objective: ObjectiveConfig) -> dict[str, float]:
        from torch.nn import functional as F

        from worldmodel.evaluation.collapse import collapse
        from worldmodel.phases import evaluation_mode, predict_targets

        with evaluation_mode(model):
            predictions, targets, _ = predict_targets(model, self._batch, objective)
        statistics = collapse(predictions[0])
        error = float(F.mse_loss(predictions[1:], targets[1:]))
        persistence = float(F.mse_loss(predictions[:1].expand_as(targets[1:]), targets[1:]))
        return {
            "std": float(statistics.std.mean()),
            "effective_rank": statistics.effective_rank,
            "prediction_error": error,
            "persistence_error": persistence,
            "relative_error": error / max(persistence, 1e-12),
        }


class StopRequest:
    """Whether the user asked to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def deferred_interrupt() -> Iterator[StopRequest]:
    """Record the first SIGINT or SIGTERM instead of acting on it; a second SIGINT acts at once.

    Signals reach the main thread only; in other threads nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def record(signum: int, frame: object) -> None:
        if request.requested and signum == signal.SIGINT:
            raise KeyboardInterrupt
        request.requested = True

    previous = {s: signal.signal(s, record) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
