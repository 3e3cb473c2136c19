"""The table and the plot of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from experiments import REFINED, Experiment
from matplotlib.figure import Figure

from worldmodel.files import replacing


def figure_of(row: dict[str, Any], path: str) -> float | None:
    """The figure at a path such as ``error.20``."""
    value: Any = row
    for key in path.split("."):
        value = value[key]
    return value


def by_label(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each configuration."""
    labels: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        labels.setdefault(row["label"], []).append(row)
    return labels


def table(experiment: Experiment, result: dict[str, Any]) -> str:
    """Mean and spread over seeds, as Markdown."""
    refined = any("refined" in row for row in result["rows"])
    columns = experiment.columns | (REFINED if refined else {})
    heads = ["", *(title for title, _ in columns.values())]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for label, rows in by_label(result).items():
        cells = [label]
        for path, (_, form) in columns.items():
            values = [value for row in rows if (value := figure_of(row, path)) is not None]
            cells.append(_told(values, len(rows), form))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _told(values: list[float], seeds: int, form: str) -> str:
    if not values:
        return "none"
    spread = f" ± {np.std(values):{form}}" if len(values) > 1 else ""
    partial = f" ({len(values)} of {seeds} seeds)" if len(values) < seeds else ""
    return f"{np.mean(values):{form}}{spread}{partial}"


def write_table(name: str, experiment: Experiment, result: dict[str, Any], page: Path) -> str:
    """Put the table between its markers on a page, which is made if it is missing."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = page.read_text() if page.exists() else ""
    if begin not in text:
        text += f"\n{begin}\n{end}\n"
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    made = table(experiment, result)
    seeds = sorted({row["seed"] for row in result["rows"]})
    budget = " and ".join(f"{amount:g} {unit}" for unit, amount in result["budget"].items())
    note = f"{budget}, seeds {', '.join(map(str, seeds))}; validation episodes."
    with replacing(page) as path:
        path.write_text(f"{before}{begin}\n{made}\n\n{note}\n{end}{after}")
    return made


def write_plot(result: dict[str, Any], path: Path) -> None:
    """Error against steps ahead, dashed after refinement, and, if models were judged while they
    trained, at k = 20 against minutes of training; means over seeds.
    """
    watched = any(len(row["curve"]) > 1 for row in result["rows"])
    figure = Figure(figsize=(11.0 if watched else 7.0, 3.6), layout="constrained")
    ahead, *trained = figure.subplots(1, 2 if watched else 1, squeeze=False)[0]
    for label, rows in by_label(result).items():
        (line,) = ahead.plot(_by_step(rows), label=label)
        if all("refined" in row for row in rows):
            ahead.plot(_by_step([row["refined"] for row in rows]), "--", color=line.get_color())
        minutes = np.mean([[p["seconds"] / 60 for p in row["curve"]] for row in rows], axis=0)
        at_20 = np.mean([[p["error"]["20"] for p in row["curve"]] for row in rows], axis=0)
        for axes in trained:
            axes.plot(minutes, at_20, marker="o", markersize=3, label=label)
    told = "median angle error, rad"
    ahead.set(xlabel="steps ahead", ylabel=told, xlim=(0, None), yscale="log")
    figure.legend(*ahead.get_legend_handles_labels(), loc="outside right center", frameon=False)
    for axes in trained:
        axes.set(xlabel="minutes of training", ylabel="at k = 20, rad", yscale="log")
    for axes in (ahead, *trained):
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _by_step(judged: list[dict[str, Any]]) -> np.ndarray:
    return np.mean([each["error_by_step"] for each in judged], axis=0)
