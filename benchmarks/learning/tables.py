"""The table and the plot of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from experiments import REFINED, Experiment
from matplotlib.figure import Figure

from worldmodel.files import replacing, write_text

Row = dict[str, Any]


def value_at(row: Row, path: str) -> float | None:
    """Look up a value by a path such as ``error.20``; None where it is undefined."""
    value: Any = row
    for key in path.split("."):
        value = value[key]
    return value


def rows_by_label(result: dict[str, Any]) -> dict[str, list[Row]]:
    """Group the rows of a result by configuration."""
    labels: dict[str, list[Row]] = {}
    for row in result["rows"]:
        labels.setdefault(row["label"], []).append(row)
    return labels


def markdown_table(experiment: Experiment, result: dict[str, Any]) -> str:
    """Format mean and standard deviation over seeds as Markdown."""
    refined = any("refined" in row for row in result["rows"])
    columns = experiment.columns | (REFINED if refined else {})
    titles = ["", *(title for title, _ in columns.values())]
    lines = ["| " + " | ".join(titles) + " |", "| " + " | ".join("---" for _ in titles) + " |"]
    for label, rows in rows_by_label(result).items():
        cells = [label]
        for path, (_, form) in columns.items():
            values = [value for row in rows if (value := value_at(row, path)) is not None]
            cells.append(_cell(values, len(rows), form))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float], seeds: int, form: str) -> str:
    if not values:
        return "none"
    spread = f" ± {np.std(values):{form}}" if len(values) > 1 else ""
    partial = f" ({len(values)} of {seeds} seeds)" if len(values) < seeds else ""
    return f"{np.mean(values):{form}}{spread}{partial}"


def write_table(name: str, experiment: Experiment, result: dict[str, Any], page: Path) -> str:
    """Write the table between its markers in a page, which is created if it does not exist.

    Returns:
        The table.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = page.read_text() if page.exists() else ""
    if begin not in text:
        text += f"\n{begin}\n{end}\n"
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    table = markdown_table(experiment, result)
    seeds = sorted({row["seed"] for row in result["rows"]})
    budget = " and ".join(f"{amount:g} {unit}" for unit, amount in result["budget"].items())
    note = f"{budget}, seeds {', '.join(map(str, seeds))}; validation episodes."
    write_text(page, f"{before}{begin}\n{table}\n\n{note}\n{end}{after}")
    return table


def write_plot(result: dict[str, Any], path: Path) -> None:
    """Plot forecast errors against steps ahead and, if there are any, against training time.

    Lines are means over seeds, dashed after refinement. The errors against minutes of training are
    those at k = 20 of models that were evaluated during training.
    """
    has_curves = any(len(row["curve"]) > 1 for row in result["rows"])
    figure = Figure(figsize=(11.0 if has_curves else 7.0, 3.6), layout="constrained")
    ahead, *trained = figure.subplots(1, 2 if has_curves else 1, squeeze=False)[0]
    for label, rows in rows_by_label(result).items():
        (line,) = ahead.plot(_mean_error(rows), label=label)
        if all("refined" in row for row in rows):
            refined = [row["refined"] for row in rows]
            ahead.plot(_mean_error(refined), "--", color=line.get_color())
        minutes = np.mean([[p["seconds"] / 60 for p in row["curve"]] for row in rows], axis=0)
        at_20 = np.mean([[p["error"]["20"] for p in row["curve"]] for row in rows], axis=0)
        for axes in trained:
            axes.plot(minutes, at_20, marker="o", markersize=3, label=label)
    ylabel = "median angle error, rad"
    ahead.set(xlabel="steps ahead", ylabel=ylabel, xlim=(0, None), yscale="log")
    figure.legend(*ahead.get_legend_handles_labels(), loc="outside right center", frameon=False)
    for axes in trained:
        axes.set(xlabel="minutes of training", ylabel="at k = 20, rad", yscale="log")
    for axes in (ahead, *trained):
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _mean_error(rows: list[Row]) -> np.ndarray:
    return np.mean([row["error_by_step"] for row in rows], axis=0)
