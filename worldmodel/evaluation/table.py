"""The evaluation as tables to read."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from worldmodel.evaluation.probes import TARGETS

_LABELS = dict(zip(TARGETS, ("sin θ1", "sin θ2", "cos θ1", "cos θ2", "ω1", "ω2"), strict=True))


def metrics_table(metrics: dict[str, Any]) -> RenderableType:
    """Lay out the dict that `evaluate` returns; print it with a `rich` console.

    Args:
        metrics: From `evaluate`.
    """
    return Group(
        Text(_heading(metrics["data"])),
        _forecast(metrics),
        Text(_horizon(metrics["forecast"]["angle"])),
        _probes(metrics["probes"]),
        Text(_collapse(metrics["collapse"])),
    )


def _heading(data: dict[str, Any]) -> str:
    first, last = data["heldout_seeds"]
    return f"{data['heldout_episodes']} held-out episodes, seeds {first} to {last}"


def _forecast(metrics: dict[str, Any]) -> RenderableType:
    angle, frames = metrics["forecast"]["angle"], metrics["forecast"]["frames"]
    rows: dict[str, tuple[dict[str, float | None], str]] = {}
    if "error" in angle:
        rows["median angle error, rad"] = (angle["error"], ".3f")
        rows["  of persistence"] = (angle["persistence"], ".3f")
    if "error" in metrics["privileged"]:
        rows["  of the privileged reference"] = (metrics["privileged"]["error"], ".3f")
    if "psnr" in frames:
        rows["PSNR, dB"] = (frames["psnr"], ".1f")
        rows["  of persistence, dB"] = (frames["psnr_persistence"], ".1f")
    if not rows:
        return Text(f"No forecast figures: {angle['reason']}; {frames['reason']}.")
    return _table("Open-loop forecast, k steps ahead", "k", rows)


def _probes(probes: dict[str, Any]) -> RenderableType:
    if "reason" in probes:
        return Text(f"No probes: {probes['reason']}.")
    rows = {
        name: ({**_labelled(probes[name]["r2"]), "worst": probes[name]["worst_r2"]}, ".3f")
        for name in ("linear", "mlp")
    }
    rows["mlp, RMSE"] = (_labelled(probes["mlp"]["rmse"]), ".3f")
    return _table("Probes, R² on held-out episodes (RMSE of ω in rad/s)", "probe", rows)


def _labelled(values: dict[str, float]) -> dict[str, float]:
    return {_LABELS[name]: value for name, value in values.items()}


def _table(title: str, corner: str, rows: dict[str, tuple[dict[str, Any], str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(corner)
    columns = list(next(iter(rows.values()))[0])
    for column in columns:
        table.add_column(column, justify="right")
    for name, (values, form) in rows.items():
        table.add_row(name, *(_cell(values, column, form) for column in columns))
    return table


def _cell(values: dict[str, Any], column: str, form: str) -> str:
    if column not in values:
        return ""
    value = values[column]
    return "exact" if value is None else format(value, form)


def _horizon(angle: dict[str, Any]) -> str:
    if "horizon" not in angle:
        return f"No horizon: {angle['reason']}."
    horizon = angle["horizon"]
    bound = "at least " if horizon["lower_bound"] else ""
    return (
        f"Horizon (median below {horizon['threshold_rad']} rad): "
        f"{bound}{horizon['steps']} steps, {horizon['seconds']:.2f} s\n"
    )


def _collapse(collapse: dict[str, Any]) -> str:
    std = collapse["std"]
    return (
        f"\nLatent of {collapse['dimensions']}: effective rank {collapse['effective_rank']:.1f}, "
        f"RankMe {collapse['rankme']:.1f}, standard deviation {std['min']:.2g} to {std['max']:.2g}"
    )
