"""Progress on a stream: live bars on a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Advance(Protocol):
    """Tells a bar how far its task is, with a short remark."""

    def __call__(self, done: int, remark: str = "") -> None: ...


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class _Lines:
    """A line whenever another tenth is done."""

    def __init__(self, console: Console, name: str, total: int, start: int) -> None:
        self.console, self.name, self.total, self.start = console, name, total, start
        self.begun = time.monotonic()
        self.tenth = 10 * start // total

    def __call__(self, done: int, remark: str = "") -> None:
        tenth = 10 * done // self.total
        if tenth == self.tenth:
            return
        self.tenth = tenth
        elapsed = time.monotonic() - self.begun
        rate = (done - self.start) / max(elapsed, 1e-9)
        left = _duration((self.total - done) / max(rate, 1e-9))
        self.console.print(
            f"{self.name}: {done}/{self.total}, {rate:.1f}/s, {left} left"
            + (f", {remark}" if remark else "")
        )


@contextmanager
def progress_bar(console: Console, name: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Show how far a task is, with rate and time left.

    Args:
        console: where to show it.
        name: what is being done.
        total: units of the whole task.
        start: units done before.
    """
    if not console.is_terminal:
        yield _Lines(console, name, total, start)
        return
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[remark]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(name, total=total, completed=start, remark="", rate="")
        begun = time.monotonic()

        def advance(done: int, remark: str = "") -> None:
            rate = (done - start) / max(time.monotonic() - begun, 1e-9)
            bars.update(task, completed=done, remark=remark, rate=f"{rate:,.1f}/s")

        yield advance
