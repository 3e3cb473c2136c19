"""What all parts share: turns of measuring, rows of the table, and the run that is measured."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.machine import describe_machine
from worldmodel import Run

Functions = dict[str, Callable[[], object]]
CLOCKS = {
    "wall": (time.perf_counter, "wall clock"),
    "cpu": (time.process_time, "CPU time of the process"),
}
HEADINGS = ("part", "work", "figure", "unit", "beside it", "its figure", "ratio", "repeats")


@dataclass(frozen=True)
class Row:
    """One figure, and the peer or the limit beside it.

    Attributes:
        part: part of the suite.
        work: what is measured.
        figure: median over the repeats.
        unit: of both figures.
        peer: what the figure is compared with; empty for nothing.
        peer_figure: the median of the peer, measured in turns or published.
        ratio: `figure` / `peer_figure`; where both were measured, the median of the quotients of
            the repeats, which other load on the machine changes little.
        repeats: number of repeats.
    """

    part: str
    work: str
    figure: float
    unit: str
    peer: str = ""
    peer_figure: float | None = None
    ratio: float | None = None
    repeats: int = 1


@dataclass(frozen=True)
class Context:
    """What a part needs to know.

    Attributes:
        folder: temporary directory for data and runs.
        repeats: number of repeats.
        smoke: measure everything in a tiny form; the figures mean nothing.
        run_path: directory of the run to measure; None to train one with the preset smoke.
        clock: returns seconds: `time.perf_counter`, or `time.process_time`, which does not count
            the waiting for a busy machine.
    """

    folder: Path
    repeats: int
    smoke: bool = False
    run_path: Path | None = None
    clock: Callable[[], float] = time.perf_counter

    def size(self, full: int, tiny: int) -> int:
        """Return a size, or a tiny one for ``--smoke``."""
        return tiny if self.smoke else full

    @cached_property
    def run(self) -> Run:
        """The run to measure."""
        if self.run_path is None:
            train_smoke(self.folder / "run", self.folder / "data")
            return Run(next((self.folder / "run").iterdir()), trust=True)
        return Run(self.run_path)

    def measure(self, functions: Functions, factor: int = 1) -> dict[str, list[float]]:
        """Measure the seconds per call of functions that take turns, after one call of each.

        Other load on the machine then affects all of them.

        Args:
            functions: by name.
            factor: how many times as many repeats, for fast functions.
        """
        for function in functions.values():
            function()
        times: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(factor * self.repeats):
            for name, function in functions.items():
                start = self.clock()
                function()
                times[name].append(self.clock() - start)
        return times


def train_smoke(results: Path, data: Path) -> None:
    """Train a run with the preset smoke, in a process of its own."""
    command = [sys.executable, "-m", "worldmodel", "train", "--preset", "smoke"]
    command += ["--policy", "random", "--output-dir", str(results), "--set", f"data.dir={data}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def rate(
    part: str,
    work: str,
    times: Sequence[float],
    count: float,
    unit: str,
    peer: str = "",
    peer_times: Sequence[float] = (),
    peer_count: float | None = None,
) -> Row:
    """Make a row of a rate, `count` per call; the peer does `peer_count`, by default as many."""
    figures = [count / seconds for seconds in times]
    others = [(peer_count or count) / seconds for seconds in peer_times]
    return _row(part, work, figures, unit, peer, others)


def duration(
    part: str,
    work: str,
    times: Sequence[float],
    peer: str = "",
    peer_times: Sequence[float] = (),
    count: float = 1.0,
) -> Row:
    """Make a row of milliseconds; a call does the work `count` times, and so does the peer."""
    figures, others = ([1e3 * t / count for t in each] for each in (times, peer_times))
    return _row(part, work, figures, "ms", peer, others)


def _row(
    part: str,
    work: str,
    figures: Sequence[float],
    unit: str,
    peer: str,
    others: Sequence[float],
) -> Row:
    middle = statistics.median(figures)
    if not others:
        return Row(part, work, middle, unit, peer, repeats=len(figures))
    ratio = statistics.median(a / b for a, b in zip(figures, others, strict=True))
    return Row(part, work, middle, unit, peer, statistics.median(others), ratio, len(figures))


def published(row: Row, peer: str, figure: float) -> Row:
    """Put a published figure beside a row."""
    return Row(
        row.part, row.work, row.figure, row.unit, peer, figure, row.figure / figure, row.repeats
    )


def markdown(rows: Iterable[Row]) -> str:
    """Format rows as a Markdown table."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    for row in rows:
        cells = [_text(value) for value in asdict(row).values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(path: Path, rows: Sequence[Row], clock: str) -> None:
    """Write the rows as `path`.md and `path`.json, below the machine, versions and command."""
    machine = f"{describe_machine()}\nseconds: {CLOCKS[clock][1]}"
    note = "Ratio: figure / figure beside it, the median over repeats that take turns.\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"```\n{machine}\n```\n\n{note}\n{markdown(rows)}"
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    content = {"machine": machine.splitlines(), "rows": [asdict(row) for row in rows]}
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
