"""The results of a sweep: a row per variant, as JSON, Markdown, a rich table and a plot."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from worldmodel.viz.figures import save_figure

Status = Literal["finished", "failed", "unfinished"]

_STEPPED = {
    "forecast.angle.error": "angle error at k = {}, rad",
    "forecast.angle.persistence": "angle error of persistence at k = {}, rad",
    "forecast.latent.error": "latent error at k = {}",
    "forecast.latent.persistence": "latent error of persistence at k = {}",
    "forecast.frames.psnr": "PSNR at k = {}, dB",
    "forecast.frames.ssim": "SSIM at k = {}",
    "probes.linear.r2": "linear R² of {}",
    "probes.mlp.r2": "MLP R² of {}",
    "returns.rank_correlation": "rank correlation of returns at k = {}",
}
_TITLES = {
    "probes.linear.worst_r2": "linear R²",
    "probes.mlp.worst_r2": "MLP R²",
    "collapse.effective_rank": "effective rank",
    "collapse.std.median": "median σ",
    "forecast.angle.horizon.seconds": "horizon, s",
}
_NAME, _WIDTH, _COLUMNS = 24, 15, 3
"""Characters of a variant's name and of a column, and columns per part, in the terminal."""
_LABEL, _PANELS = 26, 3
"""Characters per line of a variant's name, and panels per row, in the plot."""
_INK, _FAINT, _POINT, _MEAN = "#23262f", "#6f7583", "#2b7bb9", "#d9482b"


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Attributes:
        name: name of its run directory.
        variant: name of the variant.
        seed: seed of the training.
        status: ``finished``, ``failed``, or ``unfinished``.
        minutes: time of training and evaluation, of all attempts; None before the first.
        metrics: dotted path -> value; None where there is none.
        error: why it failed.
    """

    name: str
    variant: str
    seed: int
    status: Status
    minutes: float | None
    metrics: dict[str, float | None]
    error: str | None = None


@dataclass(frozen=True)
class Summary:
    """A metric over the seeds of a variant.

    Attributes:
        mean: mean.
        std: population standard deviation.
        min: minimum.
        max: maximum.
        seeds: number of seeds that have a value.
    """

    mean: float
    std: float
    min: float
    max: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary | None:
        """Summarize values; None if there are none."""
        if not values:
            return None
        mean, std = float(np.mean(values)), float(np.std(values))
        return cls(mean, std, min(values), max(values), len(values))


@dataclass(frozen=True)
class Row:
    """A variant in the table.

    Attributes:
        variant: name of the variant.
        seeds: number of finished trials.
        minutes: mean time of a trial; None if none is finished.
        metrics: dotted path -> summary over the seeds; None where there is no value.
    """

    variant: str
    seeds: int
    minutes: float | None
    metrics: dict[str, Summary | None]


@dataclass(frozen=True)
class SweepResult:
    """The results of a sweep.

    Attributes:
        path: the output directory.
        evaluated_on: ``validation`` or ``heldout``.
        metrics: dotted paths of the columns.
        trials: all trials, in the order of the sweep.
    """

    path: Path
    evaluated_on: str
    metrics: tuple[str, ...]
    trials: tuple[TrialResult, ...]

    @property
    def failures(self) -> dict[str, str]:
        """Name of each failed trial -> why it failed."""
        return {trial.name: trial.error or "" for trial in self.trials if trial.status == "failed"}

    @property
    def rows(self) -> list[Row]:
        """A row per variant, in the order of the sweep."""
        rows = []
        for variant in dict.fromkeys(trial.variant for trial in self.trials):
            done = [t for t in self.trials if t.variant == variant and t.status == "finished"]
            metrics = {
                path: Summary.of([v for t in done if (v := t.metrics[path]) is not None])
                for path in self.metrics
            }
            times = Summary.of([trial.minutes for trial in done if trial.minutes is not None])
            rows.append(Row(variant, len(done), times.mean if times else None, metrics))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "path": str(self.path),
            "evaluated_on": self.evaluated_on,
            "metrics": {path: metric_title(path) for path in self.metrics},
            "variants": [asdict(row) for row in self.rows],
            "trials": [asdict(trial) for trial in self.trials],
        }


def metric_title(path: str) -> str:
    """Name a metric in tables and plots; one without a title has its path."""
    head, _, k = path.rpartition(".")
    return _STEPPED[head].format(k) if head in _STEPPED else _TITLES.get(path, path)


def value_at(content: Mapping[str, Any], path: str) -> float | None:
    """Look up a number in the content of metrics.json by its dotted path; None without one."""
    value: Any = content
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)] if int(key) < len(value) else None
        elif isinstance(value, Mapping):
            value = value.get(key)
        else:
            return None
    return None if value is None else float(value)


def known_metrics(paths: Sequence[str], contents: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Leave out the metrics of which no run has a value; all of them before the first run."""
    known = [path for path in paths if any(value_at(each, path) is not None for each in contents)]
    return tuple(known or paths)


def markdown_table(result: SweepResult) -> str:
    """Lay out the table in Markdown, with a line on what it shows."""
    header, rows = _cells(result)
    rows = [[name.replace("|", "\\|"), *cells] for name, *cells in rows]
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{_caption(result)}\n"


def rich_table(result: SweepResult) -> RenderableType:
    """Lay out the table for the terminal, in parts that fit into 80 characters."""
    header, rows = _cells(result)
    parts: list[RenderableType] = []
    for first in range(1, len(header), _COLUMNS):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        table.add_column(header[0], min_width=_NAME, max_width=_NAME, overflow="fold")
        chosen = slice(first, first + _COLUMNS)
        for title in header[chosen]:
            table.add_column(title, justify="right", max_width=_WIDTH, overflow="fold")
        for row in rows:
            table.add_row(row[0], *row[chosen])
        parts += [table, ""]
    return Group(*parts, _caption(result))


def _caption(result: SweepResult) -> str:
    kind = "held-out" if result.evaluated_on == "heldout" else result.evaluated_on
    return f"Mean over the seeds ± (population) standard deviation; {kind} episodes."


def _cells(result: SweepResult) -> tuple[list[str], list[list[str]]]:
    header = ["variant", *map(metric_title, result.metrics), "seeds", "minutes"]
    forms = {path: _form(result, path) for path in result.metrics}
    rows = []
    for row in result.rows:
        cells = [_cell(row, path, forms[path]) for path in result.metrics]
        minutes = "–" if row.minutes is None else f"{row.minutes:.1f}"
        rows.append([row.variant, *cells, str(row.seeds), minutes])
    return header, rows


def _form(result: SweepResult, path: str) -> str:
    """Choose decimals that show about three digits of the largest mean."""
    means = [abs(summary.mean) for row in result.rows if (summary := row.metrics[path])]
    largest = max(means, default=0.0)
    decimals = 3 if largest <= 0.0 else 2 - math.floor(math.log10(largest))
    return f".{min(max(decimals, 0), 4)}f"


def _cell(row: Row, path: str, form: str) -> str:
    summary = row.metrics[path]
    if summary is None:
        return "–"
    spread = f" ± {summary.std:{form}}" if summary.seeds > 1 else ""
    partial = f" ({summary.seeds} of {row.seeds} seeds)" if summary.seeds < row.seeds else ""
    return f"{summary.mean:{form}}{spread}{partial}"


def sweep_plot(result: SweepResult, path: Path) -> None:
    """Write a PNG: a panel per metric, a line per variant, a point per seed, a mark at the mean.

    Args:
        result: the results; at least one trial is finished.
        path: path of the PNG.
    """
    rows = result.rows
    names = [textwrap.fill(row.variant, _LABEL) for row in rows]
    columns = min(len(result.metrics), _PANELS)
    lines = -(-len(result.metrics) // columns)
    heights = [0.16 + 0.19 * (1 + name.count("\n")) for name in names]
    size = (2.2 + 2.7 * columns, lines * (0.85 + sum(heights)) + 0.35)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, hspace=0.06)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flat
    centers = [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
    for axes, metric in zip(panels, result.metrics):
        for row, y in zip(rows, centers):
            _draw_row(axes, result, row, metric, y)
        axes.set_title(textwrap.fill(metric_title(metric), 34), size=10, color=_INK, loc="left")
        axes.set_yticks(centers, names)
        axes.set_ylim(sum(heights), 0.0)
        axes.grid(axis="y", color="#e6e8ee", linewidth=0.8)
        axes.locator_params(axis="x", nbins=4)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(colors=_FAINT, labelcolor=_INK, labelsize=9)
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
    for axes in panels[len(result.metrics) :]:
        axes.set_visible(False)
    figure.supxlabel("point: one seed; bar: mean over the seeds", size=8.5, color=_FAINT)
    save_figure(figure, path)


def _draw_row(axes: Any, result: SweepResult, row: Row, metric: str, y: float) -> None:
    summary = row.metrics[metric]
    if summary is None:
        place = {"transform": axes.get_yaxis_transform(), "va": "center"}
        axes.text(0.02, y, "none", size=8.5, color=_FAINT, backgroundcolor="white", **place)
        return
    done = [t for t in result.trials if t.variant == row.variant and t.status == "finished"]
    values = [value for trial in done if (value := trial.metrics[metric]) is not None]
    axes.plot([summary.mean], [y], "|", color=_MEAN, markersize=15, markeredgewidth=2)
    axes.plot(values, [y] * len(values), "o", color=_POINT, markersize=5, alpha=0.75)
