"""Terminal output of the commands: progress, messages, errors, tables and exit statuses."""

from __future__ import annotations

import json
import os
import sysconfig
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from worldmodel.callbacks import Callback

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

    from worldmodel.errors import Problem
    from worldmodel.evaluation.metrics import Metrics

DEBUG = "WORLDMODEL_DEBUG"
"""Environment variable that is 1 to show whole tracebacks, as ``--debug`` does."""

FAILED = 1
WRONG_USAGE = 2
_TABLE_WIDTH = 80


class TerminalProgress(Callback):
    """Shows progress and messages on stderr: live bars on a terminal, a line per tenth elsewhere.

    Args:
        console: console to write to; by default stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        if console is None:
            from rich.console import Console

            console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.console = console
        self._tasks: dict[str, _Bar | _Lines] = {}

    def on_message(self, text: str, *, warning: bool = False) -> None:
        """Print the text, warnings in red."""
        self.console.print(text, style="bold red" if warning else None, markup=False)

    def on_task_start(self, task: str, total: int | None, done: int) -> None:
        """Show a bar."""
        kind = _Bar if self.console.is_terminal else _Lines
        self._tasks[task] = kind(self.console, task, total, done)

    def on_task_update(self, task: str, done: int, note: str) -> None:
        """Move the bar."""
        self._tasks[task].update(done, note)

    def on_task_end(self, task: str) -> None:
        """Leave the bar as it is."""
        self._tasks.pop(task).close()


class _Lines:
    """Prints a line after the first step, and whenever another tenth is done.

    Where the total is unknown, that is a tenth more than at the last line.
    """

    def __init__(self, console: Console, name: str, total: int | None, start: int) -> None:
        self.console, self.name, self.total, self.start = console, name, total, start
        self.started = time.monotonic()
        self.due = 1.0

    def update(self, done: int, note: str) -> None:
        if done < self.due:
            return
        total = self.total
        self.due = done + max(1, done // 10) if total is None else _next_tenth(done, total)
        elapsed = time.monotonic() - self.started
        rate = (done - self.start) / max(elapsed, 1e-9)
        text = f"{self.name}: {done}, {rate:.1f}/s"
        if total is not None:
            left = _remaining(total - done, rate)
            text = f"{self.name}: {done}/{total}, {rate:.1f}/s, {left} left"
        self.console.print(text + (f", {note}" if note else ""), markup=False)

    def close(self) -> None:
        pass


class _Bar:
    """A live bar with rate, elapsed and remaining time."""

    def __init__(self, console: Console, name: str, total: int | None, start: int) -> None:
        from rich import progress

        columns = (
            progress.TextColumn("{task.description:<18}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}"),
            progress.TextColumn("[dim]{task.fields[note]}"),
        )
        self.bars: Progress = progress.Progress(*columns, console=console)
        left = "" if total is None else "left -:--"
        fields: dict[str, Any] = {"rate": "", "left": left, "note": ""}
        self.task: TaskID = self.bars.add_task(name, total=total, completed=start, **fields)
        self.total, self.start, self.started = total, start, time.monotonic()
        self.bars.start()

    def update(self, done: int, note: str) -> None:
        rate = (done - self.start) / max(time.monotonic() - self.started, 1e-9)
        self.bars.update(self.task, completed=done, rate=f"{rate:,.1f}/s")
        if self.total is not None:
            left = _remaining(self.total - done, rate)
            self.bars.update(self.task, left=f"left {left}")
        if note:
            self.bars.update(self.task, note=note)

    def close(self) -> None:
        self.bars.stop()


def _next_tenth(done: int, total: int) -> float:
    """Return the number of units at which another tenth of the total is done."""
    return (10 * done // total + 1) * total / 10


def _remaining(units: int, rate: float) -> str:
    """Format the time that is left; unknown before the first unit is done."""
    return _duration(units / rate) if rate > 0.0 else "-:--"


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn an error into one line on stderr and an exit status.

    An exception in user code is shown with the lines of that code. Any other unexpected exception
    is shown with its whole traceback, and with ``--debug`` every exception is.
    """
    try:
        yield
    except KeyboardInterrupt:
        fail("stopped", FAILED)
    except Exception as error:
        if os.environ.get(DEBUG) == "1" or isinstance(error, typer.Exit):
            raise
        _report(error)
        raise


def _report(error: Exception) -> None:
    """Print an error and exit; return if it is unexpected and not the user's."""
    from gymnasium.error import Error as GymnasiumError

    from worldmodel.errors import (
        InterruptedRunError,
        MissingLibraryError,
        ReplayBufferError,
        RunError,
    )
    from worldmodel.user_code import user_code_of

    where = user_code_of(error)
    if where is not None and not isinstance(error, GymnasiumError):
        _fail_in_user_code(error, f"{where}: {type(error).__name__}: {error}")
    if isinstance(error, ReplayBufferError):
        fail(str(error), FAILED)
    if isinstance(error, ValueError | GymnasiumError):
        fail(str(error), WRONG_USAGE)
    if isinstance(error, InterruptedRunError):
        if not is_worker_process():
            typer.echo(str(error), err=True)
        raise typer.Exit(FAILED)
    if isinstance(error, RunError | MissingLibraryError | OSError):
        fail(str(error), FAILED)
    if isinstance(error, MemoryError):
        fail(f"not enough memory: {error}", FAILED)
    if any(_is_users(Path(frame.filename)) for frame in traceback.extract_tb(error.__traceback__)):
        _fail_in_user_code(error, f"{type(error).__name__}: {error}")


def _is_users(file: Path) -> bool:
    """Whether a file is neither this package nor an installed library."""
    package = Path(__file__).parent
    own = file.is_relative_to(package) or file == package.parent / "cli.py"
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    standard = file.is_relative_to(sysconfig.get_path("stdlib"))
    return file.exists() and not own and not installed and not standard


def _fail_in_user_code(error: Exception, message: str) -> NoReturn:
    """Print where in user code an exception was raised, with the lines of that code, and exit."""
    from worldmodel.user_code import WORKER_NOTE, own_frames

    lines = "".join(traceback.format_list(own_frames(error)))
    for note in getattr(error, "__notes__", ()):
        if note.startswith(WORKER_NOTE):
            lines = note.removeprefix(WORKER_NOTE)
    typer.echo(f"Error: {' '.join(message.split())}\n{lines.rstrip()}", err=True)
    typer.echo("The whole traceback: the same command with --debug", err=True)
    raise typer.Exit(FAILED)


def is_worker_process() -> bool:
    """Whether a launcher started this process with a rank other than 0; without importing torch."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and os.environ.get("RANK", "0") != "0"


def fail(message: str, status: int) -> NoReturn:
    """Print an error in one line and exit.

    Of several processes, all report an error, but only the first one a mistake in the command.
    """
    if not is_worker_process():
        typer.echo("Error: " + " ".join(message.split()), err=True)
    elif status != WRONG_USAGE:
        rank = os.environ["RANK"]
        typer.echo(f"Error in process {rank}: " + " ".join(message.split()), err=True)
    raise typer.Exit(status)


def print_values(values: Mapping[str, Any], as_json: bool) -> None:
    """Print values on stdout, as YAML or as one JSON object."""
    import yaml

    text = (
        json.dumps(values, allow_nan=False)
        if as_json
        else yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).rstrip()
    )
    typer.echo(text)


def print_problems(path: Path, problems: Sequence[Problem], as_json: bool) -> None:
    """Print what a check found, as lines or as one JSON object."""
    if as_json:
        found = [{"problem": problem.what, "fix": problem.fix} for problem in problems]
        print_values({"path": str(path), "problems": found}, as_json=True)
    elif not problems:
        typer.echo(f"{path}: no damage found")
    for problem in () if as_json else problems:
        typer.echo(f"{' '.join(problem.what.split())}\n  To repair it: {problem.fix}")


def print_metrics(runs: Sequence[Metrics], as_json: bool) -> None:
    """Print the metrics of one or several runs: a table, or one JSON object."""
    from worldmodel.evaluation.tables import comparison_table, metrics_table

    if as_json:
        content = [metrics.to_dict() for metrics in runs]
        print_values(content[0] if len(content) == 1 else {"runs": content}, as_json=True)
    else:
        print_table(metrics_table(runs[0]) if len(runs) == 1 else comparison_table(runs))


def print_table(table: RenderableType) -> None:
    """Print a rich table on stdout; a narrow terminal wraps lines and crops no number."""
    from rich.console import Console

    console = Console(soft_wrap=False, highlight=False)
    console.width = max(console.width, _TABLE_WIDTH)
    console.print(table)


def report_thread_error(error: threading.ExceptHookArgs) -> None:
    """Print the traceback of an error in a thread, as Python does.

    The thread of TensorBoard's writer is left out: its error is raised again by the next call of
    the writer, where it is reported in one line.
    """
    if not type(error.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(error)
