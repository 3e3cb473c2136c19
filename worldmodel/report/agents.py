"""The report's section on agents, put into a page that is there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from worldmodel.files import replacing
from worldmodel.report.templates import template
from worldmodel.run import read_json

BEGIN, END = "<!-- agents -->", "<!-- /agents -->"

_WIDTH, _HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 44
_TICKS = 5


def insert_agents(run: Path) -> None:
    """Put what ``rl/compare.json`` of a run says into its ``report.html``, if both are there.

    Raises:
        RunError: ``rl/compare.json`` is damaged.
    """
    figures, page = run / "rl" / "compare.json", run / "report.html"
    if not (figures.exists() and page.exists()):
        return
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    section = _render(read_json(figures, f"`worldmodel rl compare {run}` writes it anew"))
    with replacing(page) as path:
        path.write_text(before + BEGIN + section + END + after, encoding="utf-8")


def _render(comparison: dict[str, Any]) -> str:
    views = comparison["views"]
    real = {on: row["curve"] for on, row in views.items() if row["real_steps"]}
    dreamed = {
        on: {"steps": row["model_steps"], "mean": row["mean"]}
        for on, row in views.items()
        if not row["real_steps"]
    }
    every = {on: row["curve"] for on, row in views.items()}
    charts = [
        _chart(real, "steps", 1000, "real steps, thousands", dreamed),
        _chart(every, "seconds", 60, "minutes", {}),
    ]
    return template("agents.html").render(
        comparison=comparison, charts=charts, colours={on: i for i, on in enumerate(views)}
    )


def _chart(
    curves: dict[str, list[dict[str, float]]],
    key: str,
    unit: float,
    title: str,
    marks: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """Lines and single points in the units of an SVG, with ticks."""
    points = [*(point for curve in curves.values() for point in curve), *marks.values()]
    right = max(point[key] / unit for point in points)
    xs = _ticks(0.0, right)
    ys = _ticks(min(0.0, *(p["mean"] for p in points)), max(0.0, *(p["mean"] for p in points)))

    def x(value: float) -> float:
        return _LEFT + (value - xs[0]) / (xs[-1] - xs[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share = (value - ys[0]) / (ys[-1] - ys[0])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "title": title,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "bottom": _HEIGHT - _BOTTOM,
        "x": [(f"{value:g}", round(x(value), 1)) for value in xs],
        "y": [(f"{value:g}", round(y(value), 1)) for value in ys],
        "lines": {
            on: " ".join(f"{x(p[key] / unit):.1f},{y(p['mean']):.1f}" for p in curve)
            for on, curve in curves.items()
        },
        "marks": {on: (x(p[key] / unit), y(p["mean"])) for on, p in marks.items()},
    }


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose an interval."""
    raw = max(high - low, 1e-9) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
