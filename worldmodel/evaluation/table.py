"""The evaluation as tables to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worldmodel.evaluation.targets import TARGETS

_LABELS = dict(zip(TARGETS, ("sinθ1", "sinθ2", "cosθ1", "cosθ2", "ω1", "ω2"), strict=True))

_COMPARED = ("5", "10", "20", "40")

Rows = list[tuple[str, dict[str, str]]]


def metrics_table(metrics: dict[str, Any]) -> RenderableType:
    """Lay out the dict that `evaluate` returns; print it with a `rich` console.

    Args:
        metrics: From `evaluate`.
    """
    known = metrics["forecast"]["angle"].get("reason")
    closing = (
        _energy(metrics["energy"], known),
        _heads(metrics["heads"]),
        _collapse(metrics["collapse"]),
    )
    return Group(
        Text(_heading(metrics)),
        _angles(metrics),
        Text(_horizon(metrics)),
        _frames(metrics["forecast"]),
        _actions(metrics["actions"]),
        _probes(metrics["probes"]),
        Text("\n" + "\n".join(line for line in closing if line)),
    )


def comparison_table(runs: Sequence[dict[str, Any]]) -> RenderableType:
    """Lay several evaluations side by side, one column a run.

    Args:
        runs: From `evaluate`, each with `run`, see `worldmodel.facts.run_facts`.
    """
    columns = [_compared(metrics) for metrics in runs]
    rows = [
        (label, {str(i): column[label] for i, column in enumerate(columns)}) for label in columns[0]
    ]
    table = Table(title="Runs compared", title_justify="left", title_style="bold")
    table.add_column("")
    for metrics in runs:
        table.add_column(metrics["run"]["name"], justify="right", overflow="fold")
    for label, cells in rows:
        table.add_row(label, *cells.values())
    return table


def _compared(metrics: dict[str, Any]) -> dict[str, str]:
    run, probes = metrics["run"], metrics["probes"]
    angle, frames = metrics["forecast"]["angle"], metrics["forecast"]["frames"]
    error, horizon = angle.get("error", {}), angle.get("horizon", {})
    return {
        "environment": run["env"],
        "policy": run["policy"],
        "objective": run["objective"],
        "seed": str(run["seed"]),
        "trajectories": str(run["trajectories"]),
        "epochs": str(run["epochs"]["phase1"]),
        "weights of the encoder": f"{run['parameters']['encoder']:,d}",
        **{f"angle error, k = {k}, rad": _maybe(error.get(k), ".3f") for k in _COMPARED},
        "horizon, s": _maybe(horizon.get("seconds"), ".2f"),
        "linear probe, worst R²": _maybe(probes.get("linear", {}).get("worst_r2"), ".3f"),
        "MLP probe, worst R²": _maybe(probes.get("mlp", {}).get("worst_r2"), ".3f"),
        "PSNR at k = 10, dB": _maybe(frames.get("psnr", {}).get("10"), ".1f"),
        "effective rank": f"{metrics['collapse']['effective_rank']:.1f}",
    }


def _maybe(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _heading(metrics: dict[str, Any]) -> str:
    data, statistics = metrics["data"], metrics["statistics"]
    first, last = data["heldout_seeds"]
    return (
        f"{data['heldout_episodes']} held-out episodes, seeds {first} to {last}; ranges are "
        f"{statistics['confidence']:.0%} intervals, bootstrap over episodes"
    )


def _angles(metrics: dict[str, Any]) -> RenderableType:
    angle, privileged = metrics["forecast"]["angle"], metrics["privileged"]
    if "reason" in angle:
        return Text(f"No angle errors: {angle['reason']}.")
    rows = [
        ("forecast", _cells(angle["error"], ".3f")),
        ("  interval, from", _cells({k: low for k, (low, _) in angle["interval"].items()}, ".3f")),
        ("  interval, to", _cells({k: high for k, (_, high) in angle["interval"].items()}, ".3f")),
        ("persistence", _cells(angle["persistence"], ".3f")),
    ]
    if "reason" not in angle["constant_velocity"]:
        rows.append(("constant velocity", _cells(angle["constant_velocity"], ".3f")))
    if "error" in privileged:
        name = f"true-state model, {privileged['updates']} updates"
        rows.append((name, _cells(privileged["error"], ".3f")))
    return _table("Open-loop forecast, k steps ahead: median angle error, rad", "k", rows)


def _frames(forecast: dict[str, Any]) -> RenderableType:
    frames, latent = forecast["frames"], forecast["latent"]
    rows: Rows = []
    if "reason" not in frames:
        rows = [
            ("PSNR, dB", _cells(frames["psnr"], ".1f")),
            ("  of persistence", _cells(frames["psnr_persistence"], ".1f")),
            ("SSIM", _cells(frames["ssim"], ".3f")),
            ("  of persistence", _cells(frames["ssim_persistence"], ".3f")),
        ]
    rows += [
        ("latent error / variance", _cells(latent["error"], ".3f", "diverged")),
        ("  of persistence", _cells(latent["persistence"], ".3f", "diverged")),
    ]
    return _table("Decoded frames and latents", "k", rows)


def _actions(actions: dict[str, Any]) -> RenderableType:
    if "reason" in actions:
        return Text(f"No driven forecasts: {actions['reason']}.")
    by_angle = "reason" not in actions["angle"]
    errors = actions["angle"] if by_angle else actions["latent"]
    unit = "median angle error, rad" if by_angle else "latent error / variance"
    rows = [(f"{name} actions", _cells(errors[name], ".3f", "diverged")) for name in errors]
    note = "" if actions["trained_on"] else "; the training data held one action only"
    return _table(f"Driven by random actions: {unit}{note}", "k", rows)


def _probes(probes: dict[str, Any]) -> RenderableType:
    if "reason" in probes:
        return Text(f"No probes: {probes['reason']}.")
    rows: Rows = []
    for name, part in (
        ("", probes),
        ("untrained, ", probes["untrained"]),
        ("input PCA, ", probes["pixels"]),
    ):
        for kind in ("linear", "mlp"):
            cells = {**_labelled(part[kind]["r2"]), "worst": part[kind]["worst_r2"]}
            rows.append((name + kind, _cells(cells, ".3f")))
    rows.append(("mlp, RMSE", _cells(_labelled(probes["mlp"]["rmse"]), ".3f")))
    unit = " (RMSE of ω in rad/s, of energy in J)" if "energy" in probes["mlp"]["r2"] else ""
    return _table(f"Probes, R² on held-out episodes{unit}", "probe", rows)


def _labelled(values: dict[str, float]) -> dict[str, float]:
    return {_LABELS.get(name, name): value for name, value in values.items()}


def _cells(values: Mapping[str, float | None], form: str, without: str = "exact") -> dict[str, str]:
    return {k: without if value is None else format(value, form) for k, value in values.items()}


def _table(title: str, corner: str, rows: Rows) -> RenderableType:
    """Whole numbers and whole words: where it is too narrow, the names of the rows wrap first."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.padding, table.show_edge, table.pad_edge = (0, 1, 0, 0), False, False
    words = [word for name, _ in rows for word in name.split()]
    table.add_column(corner, min_width=max(map(len, words)))
    columns = list(rows[0][1])
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, cells in rows:
        table.add_row(name, *(cells.get(column, "") for column in columns))
    return Padding(table, (1, 0, 0, 0), expand=False)


def _horizon(metrics: dict[str, Any]) -> str:
    angle, lyapunov = metrics["forecast"]["angle"], metrics["lyapunov"]
    if "horizon" not in angle:
        return ""
    horizon = angle["horizon"]
    low, high = horizon["interval_steps"]
    bound = ", the longest measured" if horizon["lower_bound"] else ""
    text = (
        f"Horizon (median below {horizon['threshold_rad']} rad): {horizon['steps']} steps{bound} "
        f"[{low:.0f} to {high:.0f}], {horizon['seconds']:.2f} s"
    )
    if horizon["lyapunov_times"] is None:
        return text
    return (
        f"{text}, {horizon['lyapunov_times']:.1f} Lyapunov times (exponent "
        f"{lyapunov['exponent_per_second']:.2f} ± {lyapunov['standard_error']:.2f} per second)"
    )


def _energy(energy: dict[str, Any], known: str | None) -> str:
    """`known` is a reason that has been told and need not be again."""
    if "reason" in energy and energy["reason"] == known:
        return ""
    if "reason" in energy:
        return f"No energy: {energy['reason']}."
    k, drift = list(energy["drift"].items())[-1]
    low, high = energy["drift_interval"][k]
    if drift is None or low is None or high is None:
        return f"Energy of passive dreams: diverged after {k} steps."
    return (
        f"Energy of passive dreams: median drift {drift:+.2f} J [{low:+.2f} {high:+.2f}] after "
        f"{k} steps, read to {energy['read_rmse']:.2f} J; it varies by {energy['true_std']:.1f} J "
        "between episodes"
    )


def _collapse(collapse: dict[str, Any]) -> str:
    std = collapse["std"]
    return (
        f"Latent of {collapse['dimensions']}: effective rank {collapse['effective_rank']:.1f}, "
        f"RankMe {collapse['rankme']:.1f}, standard deviation {std['min']:.2g} to {std['max']:.2g}"
    )


def _heads(heads: dict[str, Any]) -> str:
    reward, end = heads["reward"], heads["termination"]
    text = f"Reward of a dreamed step: RMSE {_maybe(reward['rmse'], '.3g')}"
    if reward["r2"] is not None:
        text += f", R² {reward['r2']:.3f}"
    if end["found"] is None:
        return f"{text}; no held-out episode ends by termination"
    text += f"; {end['found']:.0%} of {end['endings']} endings found"
    if end["false_alarms"] is None:
        return text
    return f"{text}, {end['false_alarms']:.2%} false alarms"
