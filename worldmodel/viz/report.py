"""The report: one offline HTML page on one run or several, built from their metrics and media.

``assets/report.html`` places numbers by their dotted path in ``metrics.json``, e.g.
``show(i, "forecast.angle.horizon.seconds", ".2f")``. To show a new metric, define it in
``evaluation/metrics.py`` or ``forecast_metrics.py``, compute it in ``evaluation/evaluate.py`` or
``dynamics.py``, and place it in ``assets/report.html``; this module needs no change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Template
from markupsafe import Markup, escape

from worldmodel.evaluation.forecast_metrics import ACTION_LABELS
from worldmodel.evaluation.metrics import Metrics
from worldmodel.files import read_record, write_text
from worldmodel.viz.media import Media, readable
from worldmodel.viz.page import asset, load_template, source_hash, to_json

AGENTS_START, AGENTS_END = "<!-- agents -->", "<!-- /agents -->"
"""Where `insert_agents` puts its section."""

DREAM = "dream.html"
"""Name of an exported page in a run directory that the report links to."""

_DREAM_START, _DREAM_END = "<!-- dream -->", "<!-- /dream -->"

_PACKAGE = "worldmodel.viz"
_CHART_WIDTH, _CHART_HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 44
"""Margins of a chart of agents, in the units of its SVG."""
_TICKS = 5


@dataclass(frozen=True)
class ReportRun:
    """One run in a report.

    Attributes:
        name: name of the run directory.
        metrics: metrics of the run.
        media: result of `gather_media`; None leaves out the player and the map of the latent
            space.
    """

    name: str
    metrics: Metrics
    media: Media | None = None


def write_report(path: str | Path, runs: Sequence[ReportRun]) -> None:
    """Write one HTML file that needs no network and no other file.

    The same runs give the same bytes. The file is written completely or not at all.

    Args:
        path: path of the HTML file.
        runs: one run or more; with several, the report starts with a comparison.

    Raises:
        ValueError: If there are no runs.
        OSError: If the file cannot be written.
    """
    if not runs:
        raise ValueError("there is no run to report on; give at least one")
    write_text(Path(path), _render(runs))


def insert_agents(run: Path) -> None:
    """Insert the comparison in ``rl/compare.json`` of a run into its ``report.html``.

    Does nothing if either file is missing.

    Args:
        run: path of a run directory.

    Raises:
        RunError: If ``rl/compare.json`` is damaged.
    """
    from worldmodel.rl.compare import Comparison

    comparison, page = run / "rl" / "compare.json", run / "report.html"
    if not (comparison.exists() and page.exists()):
        return
    hint = f"`worldmodel rl compare {run}` rewrites it"
    agents = _render_agents(dict(read_record(comparison, Comparison, hint)))
    _insert(page, AGENTS_START, agents, AGENTS_END)


def link_dream(run: Path) -> None:
    """Link the ``report.html`` of a run to its ``dream.html``.

    Does nothing if either file is missing.

    Args:
        run: path of a run directory.
    """
    page = run / "report.html"
    if page.exists() and (run / DREAM).exists():
        link = f'<p><a href="{DREAM}">Drive this model in the browser</a></p>'
        _insert(page, _DREAM_START, link, _DREAM_END)


def _insert(page: Path, start: str, content: str, end: str) -> None:
    """Replace what is between two marks of a page; a page without them stays as it is."""
    before, mark, rest = page.read_text(encoding="utf-8").partition(start)
    if mark:
        write_text(page, before + start + content + end + rest.partition(end)[2])


def _render(runs: Sequence[ReportRun]) -> str:
    script, style = asset(_PACKAGE, "report.js"), asset(_PACKAGE, "report.css")
    metrics = [run.metrics.to_dict() for run in runs]
    data = [
        {"name": run.name, "metrics": content, **(asdict(run.media) if run.media else {})}
        for run, content in zip(runs, metrics, strict=True)
    ]
    return _template("report.html").render(
        runs=[
            {"name": run.name, "m": content, "media": run.media}
            for run, content in zip(runs, metrics, strict=True)
        ],
        data=to_json(data),
        script=Markup(script),
        style=Markup(style),
        script_hash=source_hash(script),
        style_hash=source_hash(style),
        show=partial(_show, metrics),
        action_labels=ACTION_LABELS,
    )


def _template(name: str) -> Template:
    return load_template(_PACKAGE, name, readable=readable, unbroken_options=_unbroken_options)


def _unbroken_options(text: str) -> Markup:
    """Keep the names of command-line options on one line: browsers break after hyphens."""
    return Markup(re.sub(r"(--[\w-]+)", r"<code>\1</code>", str(escape(text))))


def _show(
    metrics: Sequence[dict[str, Any]],
    index: int,
    path: str,
    form: str,
    unit: str = "",
    absent: str = "–",
) -> Markup:
    """Format one number of metrics.json, marked with its place there.

    Args:
        metrics: metrics of all runs.
        index: index of the run.
        path: keys and list indices, joined by dots.
        form: format specification; ``s`` for texts.
        unit: unit that is written behind the number.
        absent: text that is written if there is no number.
    """
    value: Any = metrics[index]
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)]
        elif isinstance(value, dict):
            value = value.get(key)
    text = absent if value is None else str(value) if form == "s" else format(value, form)
    suffix = "\u202f" + unit if unit and value is not None else ""
    return Markup('<span data-metric="{}" data-form="{}">{}</span>{}').format(
        path, form, text, suffix
    )


def _render_agents(comparison: dict[str, Any]) -> str:
    views = comparison["views"]
    real = {on: row["curve"] for on, row in views.items() if row["real_steps"]}
    imagined = {
        on: {"steps": row["model_data_steps"], "mean": row["mean"]}
        for on, row in views.items()
        if not row["real_steps"]
    }
    every = {on: row["curve"] for on, row in views.items()}
    charts = [
        _chart(real, "steps", 1000, "real steps, thousands", imagined),
        _chart(every, "seconds", 60, "training time, minutes", {}),
    ]
    return _template("agents.html").render(
        comparison=comparison, charts=charts, colors={on: i for i, on in enumerate(views)}
    )


def _chart(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    key: str,
    scale: float,
    title: str,
    marks: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Lay out returns against `key` as lines, marks and ticks in the units of an SVG.

    Args:
        curves: name -> points with `key` and `mean`.
        key: key of the horizontal axis.
        scale: divisor of the values of `key`.
        title: title of the horizontal axis.
        marks: name -> a single point.
    """
    points = [*(point for curve in curves.values() for point in curve), *marks.values()]
    means = [point["mean"] for point in points]
    xs = _ticks(0.0, max(point[key] / scale for point in points))
    ys = _ticks(min(0.0, *means), max(0.0, *means))

    def x(value: float) -> float:
        return _LEFT + (value - xs[0]) / (xs[-1] - xs[0]) * (_CHART_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        fraction = (value - ys[0]) / (ys[-1] - ys[0])
        return _CHART_HEIGHT - _BOTTOM - fraction * (_CHART_HEIGHT - _TOP - _BOTTOM)

    return {
        "width": _CHART_WIDTH,
        "height": _CHART_HEIGHT,
        "title": title,
        "left": _LEFT,
        "right": _CHART_WIDTH - _RIGHT,
        "bottom": _CHART_HEIGHT - _BOTTOM,
        "x": [(f"{value:g}", round(x(value), 1)) for value in xs],
        "y": [(f"{value:g}", round(y(value), 1)) for value in ys],
        "lines": {
            on: " ".join(f"{x(p[key] / scale):.1f},{y(p['mean']):.1f}" for p in curve)
            for on, curve in curves.items()
        },
        "marks": {on: (x(p[key] / scale), y(p["mean"])) for on, p in marks.items()},
    }


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers that enclose an interval."""
    raw = max(high - low, 1e-9) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
