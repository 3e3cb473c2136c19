"""`worldmodel rl compare`: agents on latents, in the dream, on pixels and on the state, alike."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from worldmodel.files import replacing
from worldmodel.interrupt import InterruptedRunError
from worldmodel.report.agents import insert_agents
from worldmodel.rl.train import Lesson, rl
from worldmodel.rl.worlds import VIEWS
from worldmodel.run import Run, read_json

REACHED = 0.9
"""Share of the state agents' final return, whose time is told."""


def compare(
    run: Path,
    lesson: Lesson,
    seeds: Sequence[int],
    *,
    pixels: bool,
    device: str,
    console: Console,
) -> dict[str, Any]:
    """Train and judge agents on every view with the same budget, and lay them side by side.

    Lessons that `rl` has finished are not repeated, so a stopped comparison goes on. Runs that
    learned from vectors have no agents on pixels.

    Args:
        run: A run directory.
        lesson: Its `on` and `seed` do not count.
        seeds: Of the agents.
        pixels: Whether there are to be agents on pixels, which take longest by far.
        device: See `worldmodel.load`.
        console: Shows progress.

    Returns:
        What is also in ``rl/compare.json`` of the run, and shown in its ``report.html``: `algo`,
        `steps`, `seeds`, `threshold` (a return), and for each of `views`: `mean` and `std` (of the
        return, over seeds), `of_state` (share of the state agents' return, None where that is not
        positive),
        `reward_a_step`, `real_steps`, `model_steps`, `seconds`, `steps_to_threshold` and
        `seconds_to_threshold` (medians over seeds, None if fewer than half got there) and
        `curve`, the mean over seeds.

    Raises:
        RunError: There is no finished run.
        ValueError: The lesson does not fit the run.
        InterruptedRunError: The user stopped it.
    """
    pixels = pixels and Run(run).config().mode != "pendulum"
    results: dict[str, list[dict[str, Any]]] = {}
    for on in VIEWS:
        if on == "pixels" and not pixels:
            continue
        lessons = [replace(lesson, on=on, seed=seed) for seed in seeds]
        try:
            results[on] = [_finished(run, each, device, console) for each in lessons]
        except InterruptedRunError as stopped:
            raise InterruptedRunError(
                f"Stopped with an agent on {on}; the same command keeps those before it"
            ) from stopped
    comparison = {
        "algo": lesson.algo,
        "steps": lesson.steps,
        "seeds": list(seeds),
        **_side_by_side(results),
    }
    with replacing(run / "rl" / "compare.json") as path:
        path.write_text(json.dumps(comparison, indent=2) + "\n", encoding="utf-8")
    insert_agents(run)
    return comparison


def comparison_of_agents(comparison: dict[str, Any]) -> Table:
    """The comparison as a table for a terminal."""
    count = len(comparison["seeds"])
    seeds = f"{count} seed" + "s" * (count > 1)
    title = f"{comparison['algo']}, {comparison['steps']} steps, {seeds}"
    table = Table(title=title, box=SIMPLE)
    first = f"{comparison['threshold']:.1f} at"
    columns = ("return", "of state", "real steps", "model's", "trained", first)
    table.add_column("on", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for on, row in comparison["views"].items():
        there = row["seconds_to_threshold"]
        table.add_row(
            on,
            f"{row['mean']:.1f}" + (f" ± {row['std']:.1f}" if count > 1 else ""),
            "" if row["of_state"] is None else f"{row['of_state']:.0%}",
            f"{row['real_steps']:,}",
            f"{row['model_steps']:,}",
            f"{row['seconds']:.0f} s",
            "never" if there is None else f"{there:.0f} s",
        )
    return table


def _finished(run: Path, lesson: Lesson, device: str, console: Console) -> dict[str, Any]:
    folder = run / "rl" / lesson.name
    path = folder / "results.json"
    if path.exists() and (folder / "agent.zip").exists():
        console.print(f"{lesson.name}: trained before")
        return read_json(path, "delete it, and the agent is trained anew")
    return rl(run, lesson, device=device, console=console)


def _side_by_side(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    state = statistics.fmean(r["real"]["mean"] for r in results["state"])
    threshold = state - (1.0 - REACHED) * abs(state)
    views = {on: _row(rows, state, threshold) for on, rows in results.items()}
    return {"threshold": threshold, "views": views}


def _row(rows: list[dict[str, Any]], state: float, threshold: float) -> dict[str, Any]:
    means = [row["real"]["mean"] for row in rows]
    mean = statistics.fmean(means)
    return {
        "mean": mean,
        "std": statistics.pstdev(means),
        "of_state": mean / state if state > 0.0 else None,
        "reward_a_step": statistics.fmean(row["real"]["reward_a_step"] for row in rows),
        "real_steps": rows[0]["real_steps"],
        "model_steps": rows[0]["model_steps"],
        "seconds": statistics.median(row["seconds"] for row in rows),
        "steps_to_threshold": _first(rows, "steps", threshold),
        "seconds_to_threshold": _first(rows, "seconds", threshold),
        "curve": _mean_curve([row["curve"] for row in rows]),
    }


def _first(rows: list[dict[str, Any]], key: str, threshold: float) -> float | None:
    """Median over seeds of where the curve first passes the threshold."""
    there = [
        next((p[key] for p in row["curve"] if p["mean"] >= threshold), float("inf")) for row in rows
    ]
    median = statistics.median(there)
    return None if median == float("inf") else median


def _mean_curve(curves: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    return [
        {key: statistics.fmean(point[key] for point in points) for key in points[0]}
        for points in zip(*curves)
    ]
