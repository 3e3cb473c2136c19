"""Comparison of agents on latents, in the dream, on pixels and on the true state."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from pydantic import Field, FiniteFloat
from rich.box import SIMPLE
from rich.table import Table
from typing_extensions import TypedDict

from worldmodel.agent_config import AgentConfig
from worldmodel.callbacks import Callback, CallbackList
from worldmodel.errors import InterruptedRunError
from worldmodel.files import read_record, write_json
from worldmodel.rl.agents import DREAM_ONLY, check_consistent, results_folder, train_agent
from worldmodel.rl.envs import VIEWS, View
from worldmodel.rl.evaluation import CurvePoint
from worldmodel.rl.tuned import resolve_agent
from worldmodel.run import Run
from worldmodel.viz.report import insert_agents

THRESHOLD = 0.9
"""Fraction of the state agents' return that defines the threshold of learning speed."""


class _Real(TypedDict):
    mean: FiniteFloat
    reward_per_step: FiniteFloat


class AgentResults(TypedDict):
    """What a comparison reads of the ``results.json`` of an agent; see `train_agent`."""

    config: NotRequired[dict[str, Any]]
    real: _Real
    real_steps: int
    model_data_steps: int
    seconds: FiniteFloat
    curve: list[CurvePoint]


class _MeanPoint(TypedDict):
    steps: FiniteFloat
    seconds: FiniteFloat
    mean: FiniteFloat
    reward_per_step: FiniteFloat


class ComparedView(TypedDict):
    """The agents on one view, over all seeds; see `compare_agents`."""

    mean: FiniteFloat
    std: FiniteFloat
    fraction_of_state: FiniteFloat | None
    reward_per_step: FiniteFloat
    real_steps: int
    model_data_steps: int
    seconds: FiniteFloat
    steps_to_threshold: FiniteFloat | None
    seconds_to_threshold: FiniteFloat | None
    curve: Annotated[list[_MeanPoint], Field(min_length=1)]


class Comparison(TypedDict):
    """Content of ``rl/compare.json``; see `compare_agents`."""

    algo: str
    steps: int
    seeds: list[int]
    threshold: FiniteFloat
    views: Annotated[dict[View, ComparedView], Field(min_length=1)]


def compare_agents(
    run: Run,
    config: AgentConfig,
    seeds: Sequence[int] = range(3),
    pixels: bool = True,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train and evaluate agents on every view with the same budget, and compare them.

    Agents that `train_agent` has finished with the same configuration are reused, so a stopped
    comparison can be continued.
    Runs that were trained on vectors have no agents on pixels.

    Args:
        run: A finished run.
        config: Configuration of the agents; its `on` and `seed` are replaced.
        seeds: Random seeds of the agents.
        pixels: Whether to include agents on pixels, which take longest by far.
        callbacks: Callbacks that show progress and messages.

    Returns:
        The content of ``rl/compare.json`` of the run, which its ``report.html`` shows: `algo`,
        `steps`, `seeds`, `threshold` (a return), and for each of `views`: `mean` and `std` (of the
        return, over seeds), `fraction_of_state` (of the state agents' return; None unless that is
        positive), `reward_per_step`, `real_steps`, `model_data_steps`, `seconds`,
        `steps_to_threshold` and `seconds_to_threshold` (medians over seeds; None if fewer than
        half reached it) and `curve`, the mean over seeds.

    Raises:
        RunError: If the run is not finished, or a file is damaged.
        ValueError: If the configuration does not fit the run, is inconsistent or has loop rounds.
        InterruptedRunError: If the user stopped it.
    """
    if config.loop.rounds:
        raise ValueError(
            f"loop.rounds is {config.loop.rounds}, and a comparison trains every agent once; "
            "set it to 0, or train with the loop alone"
        )
    check_consistent(config.model_copy(update={"on": "dream"}))
    pixels = pixels and run.config.observation == "pixels"
    watching = CallbackList(callbacks)
    results: dict[str, list[dict[str, Any]]] = {}
    for on in VIEWS:
        if on == "pixels" and not pixels:
            continue
        try:
            results[on] = [
                _reuse_or_train(run, _on_view(config, on, seed), watching) for seed in seeds
            ]
        except InterruptedRunError as stopped:
            raise InterruptedRunError(
                f"Stopped with an agent on {on}; the same command keeps the finished ones"
            ) from stopped
    comparison = {
        "algo": config.algo,
        "steps": config.steps,
        "seeds": list(seeds),
        **_side_by_side(results),
    }
    write_json(run.path / "rl" / "compare.json", comparison)
    insert_agents(run.path)
    return comparison


def comparison_table(comparison: dict[str, Any]) -> Table:
    """Lay out a comparison as a table for a terminal."""
    count = len(comparison["seeds"])
    seeds = f"{count} seed" + "s" * (count > 1)
    title = f"{comparison['algo']}, {comparison['steps']} steps, {seeds}"
    table = Table(title=title, box=SIMPLE)
    threshold = f"{comparison['threshold']:.1f} at"
    columns = ("return", "of state", "real steps", "model's", "trained", threshold)
    table.add_column("on", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for on, row in comparison["views"].items():
        fraction, reached = row["fraction_of_state"], row["seconds_to_threshold"]
        table.add_row(
            on,
            f"{row['mean']:.1f}" + (f" ± {row['std']:.1f}" if count > 1 else ""),
            "" if fraction is None else f"{fraction:.0%}",
            f"{row['real_steps']:,}",
            f"{row['model_data_steps']:,}",
            f"{row['seconds']:.0f} s",
            "never" if reached is None else f"{reached:.0f} s",
        )
    return table


def _on_view(config: AgentConfig, on: View, seed: int) -> AgentConfig:
    defaults = {} if on == "dream" else DREAM_ONLY
    return config.model_copy(update={"on": on, "seed": seed, **defaults})


def _reuse_or_train(run: Run, config: AgentConfig, callbacks: CallbackList) -> dict[str, Any]:
    folder = results_folder(run, config)
    if (folder / "results.json").exists() and (folder / "agent.zip").exists():
        hint = "delete it to train the agent again"
        results = read_record(folder / "results.json", AgentResults, hint)
        resolved = resolve_agent(config, run.config.env.id)
        if results.get("config") == resolved.to_json():
            callbacks.on_message(f"{folder.name}: trained before")
            return dict(results)
    return train_agent(run, config, [callbacks])


def _side_by_side(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    state = statistics.fmean(r["real"]["mean"] for r in results["state"])
    threshold = state - (1.0 - THRESHOLD) * abs(state)
    views = {on: _row(rows, state, threshold) for on, rows in results.items()}
    return {"threshold": threshold, "views": views}


def _row(rows: list[dict[str, Any]], state: float, threshold: float) -> dict[str, Any]:
    means = [row["real"]["mean"] for row in rows]
    mean = statistics.fmean(means)
    return {
        "mean": mean,
        "std": statistics.pstdev(means),
        "fraction_of_state": mean / state if state > 0.0 else None,
        "reward_per_step": statistics.fmean(row["real"]["reward_per_step"] for row in rows),
        "real_steps": rows[0]["real_steps"],
        "model_data_steps": rows[0]["model_data_steps"],
        "seconds": statistics.median(row["seconds"] for row in rows),
        "steps_to_threshold": _median_at_threshold(rows, "steps", threshold),
        "seconds_to_threshold": _median_at_threshold(rows, "seconds", threshold),
        "curve": _mean_curve([row["curve"] for row in rows]),
    }


def _median_at_threshold(rows: list[dict[str, Any]], key: str, threshold: float) -> float | None:
    """Median over seeds of the point at which the curve first reaches the threshold."""
    reached = [
        next((p[key] for p in row["curve"] if p["mean"] >= threshold), float("inf")) for row in rows
    ]
    median = statistics.median(reached)
    return None if median == float("inf") else median


def _mean_curve(curves: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    return [
        {key: statistics.fmean(point[key] for point in points) for key in points[0]}
        for points in zip(*curves)
    ]
