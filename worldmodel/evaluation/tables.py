"""Metrics as tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worldmodel.evaluation.forecast_metrics import (
    ACTION_LABELS,
    ActionMetrics,
    EnergyMetrics,
    ForecastMetrics,
)
from worldmodel.evaluation.metrics import (
    CollapseMetrics,
    HeadMetrics,
    Metrics,
    ProbeMetrics,
    ReturnMetrics,
    RunWarning,
)

_COMPARED_STEPS = ("5", "10", "20", "40")

Rows = list[tuple[str, dict[str, str]]]
"""Name of a row -> its cells by column."""


def metrics_table(metrics: Metrics) -> RenderableType:
    """Lay out an evaluation; print the result with a rich console."""
    closing = (
        _energy(metrics.energy) if metrics.energy else "",
        _heads(metrics.heads),
        _returns(metrics.returns),
        _collapse(metrics.collapse),
    )
    actions, probes, reasons = metrics.actions, metrics.probes, metrics.reasons
    return Group(
        *map(_warning, metrics.warnings),
        Text(_heading(metrics)),
        _angles(metrics),
        Text(_horizon(metrics)),
        _frames(metrics.forecast),
        _actions(actions)
        if actions
        else Text(f"No forecasts under other actions: {reasons['actions']}."),
        _probes(probes, metrics.data.kind) if probes else Text(f"No probes: {reasons['probes']}."),
        Text("\n" + "\n".join(line for line in closing if line)),
    )


def comparison_table(runs: Sequence[Metrics]) -> RenderableType:
    """Lay out several evaluations of runs side by side, one column per run."""
    columns = [_column(metrics) for metrics in runs]
    table = Table(title="Comparison of runs", title_justify="left", title_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(column["name"], justify="right", overflow="fold")
    for label in list(columns[0])[1:]:
        table.add_row(label, *(column[label] for column in columns))
    return table


def _column(metrics: Metrics) -> dict[str, str]:
    run, probes, angle = metrics.run, metrics.probes, metrics.forecast.angle
    if run is None:
        raise ValueError("metrics without a run cannot be compared; use those of evaluate_run")
    frames = metrics.forecast.frames
    error = angle.error if angle else {}
    return {
        "name": run.name,
        "environment": run.env or "–",
        "policy": run.policy,
        "objective": run.objective,
        "seed": str(run.seed),
        "trajectories": str(run.trajectories),
        "updates of phase 1": f"{run.updates['phase1']:,d}",
        "parameters of the encoder": f"{run.parameters['encoder']:,d}",
        **{f"angle error, k = {k}, rad": _maybe(error.get(k), ".3f") for k in _COMPARED_STEPS},
        "horizon, s": _maybe(angle.horizon.seconds if angle else None, ".2f"),
        "linear probe, worst R²": _maybe(probes.linear.worst_r2 if probes else None, ".3f"),
        "MLP probe, worst R²": _maybe(probes.mlp.worst_r2 if probes else None, ".3f"),
        "PSNR at k = 10, dB": _maybe(frames.psnr.get("10") if frames else None, ".1f"),
        "effective rank": f"{metrics.collapse.effective_rank:.1f}",
    }


def _warning(warning: RunWarning) -> RenderableType:
    return Text.assemble(("Warning: ", "bold yellow"), warning.message, " ", warning.fix, "\n")


def _heading(metrics: Metrics) -> str:
    data, statistics = metrics.data, metrics.statistics
    seeds = "" if data.heldout_seeds is None else ", seeds {} to {}".format(*data.heldout_seeds)
    return (
        f"{data.heldout_episodes} {data.kind} episode{'s' * (data.heldout_episodes != 1)}{seeds}; "
        f"{statistics.confidence:.0%} intervals by bootstrap over episodes"
    )


def _angles(metrics: Metrics) -> RenderableType:
    angle, reference = metrics.forecast.angle, metrics.reference
    if angle is None:
        return Text(f"No angle errors: {metrics.reasons['forecast.angle']}.")
    rows = [
        ("forecast", _cells(angle.error, ".3f")),
        ("  interval, low", _cells({k: low for k, (low, _) in angle.interval.items()}, ".3f")),
        ("  interval, high", _cells({k: high for k, (_, high) in angle.interval.items()}, ".3f")),
        ("persistence", _cells(angle.persistence, ".3f")),
    ]
    if angle.constant_velocity is not None:
        rows.append(("constant velocity", _cells(angle.constant_velocity, ".3f")))
    if reference is not None:
        name = f"model of the true state, {reference.updates} updates"
        rows.append((name, _cells(reference.error, ".3f")))
    return _table("Open-loop forecast after k steps: median angle error in rad", "k", rows)


def _frames(forecast: ForecastMetrics) -> RenderableType:
    frames, latent = forecast.frames, forecast.latent
    rows: Rows = []
    if frames is not None:
        rows = [
            ("PSNR, dB", _cells(frames.psnr, ".1f", "exact")),
            ("  of persistence", _cells(frames.psnr_persistence, ".1f", "exact")),
            ("SSIM", _cells(frames.ssim, ".3f")),
            ("  of persistence", _cells(frames.ssim_persistence, ".3f")),
        ]
    rows += [
        ("latent error / variance", _cells(latent.error, ".3f")),
        ("  of persistence", _cells(latent.persistence, ".3f")),
    ]
    return _table("Decoded frames and latents", "k", rows)


def _actions(actions: ActionMetrics) -> RenderableType:
    errors = actions.angle or actions.latent
    unit = "median angle error in rad" if actions.angle else "latent error / variance"
    rows: Rows = [
        (ACTION_LABELS[name], _cells(values, ".3f"))
        for name, values in vars(errors).items()
        if values is not None
    ]
    note = "" if actions.varied_in_training else "; the training data has one action only"
    return _table(f"Under recorded and under wrong actions: {unit}{note}", "k", rows)


def _probes(probes: ProbeMetrics, kind: str) -> RenderableType:
    rows: Rows = []
    for name, part in (
        ("", probes),
        ("untrained, ", probes.untrained),
        ("input PCA, ", probes.pixels),
    ):
        for probe, score in (("linear", part.linear), ("MLP", part.mlp)):
            cells = {**_labelled(score.r2), "worst": score.worst_r2}
            rows.append((name + probe, _cells(cells, ".3f")))
    rows.append(("MLP, RMSE", _cells(_labelled(probes.mlp.rmse), ".3f")))
    by_unit: dict[str, list[str]] = {}
    for name, unit in probes.units.items():
        by_unit.setdefault(unit, []).append(_label(name))
    units = [f"{', '.join(names)} in {unit}" for unit, names in by_unit.items() if unit]
    note = f"; RMSE of {', of '.join(units)}" if units else ""
    return _table(f"Probes: R² on {kind} episodes{note}", "probe", rows)


def _labelled(values: Mapping[str, float]) -> dict[str, float]:
    return {_label(name): value for name, value in values.items()}


def _label(name: str) -> str:
    """Shorten the name of a target for a narrow column: ``sin_theta1`` becomes ``sinθ1``."""
    return re.sub("_(?=θ)", "", name.replace("theta", "θ").replace("omega", "ω"))


def _cells(
    values: Mapping[str, float | None], form: str, absent: str = "diverged"
) -> dict[str, str]:
    return {k: _maybe(value, form, absent) for k, value in values.items()}


def _maybe(value: float | None, form: str, absent: str = "–") -> str:
    return absent if value is None else format(value, form)


def _table(title: str, corner: str, rows: Rows) -> RenderableType:
    """Lay out rows as a table; if it is too wide, names of rows wrap and numbers stay whole."""
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


def _horizon(metrics: Metrics) -> str:
    angle, lyapunov = metrics.forecast.angle, metrics.lyapunov
    if angle is None:
        return ""
    horizon = angle.horizon
    low, high = horizon.interval_steps
    bound = ", the longest measured" if horizon.lower_bound else ""
    text = (
        f"Horizon (median error below {horizon.threshold_rad} rad): {horizon.steps} steps{bound} "
        f"[{low:.0f} to {high:.0f}], {horizon.seconds:.2f} s"
    )
    if horizon.lyapunov_times is None or lyapunov is None:
        return text
    return (
        f"{text}, {horizon.lyapunov_times:.1f} Lyapunov times (exponent "
        f"{lyapunov.exponent_per_second:.2f} ± {lyapunov.standard_error:.2f} per second)"
    )


def _energy(energy: EnergyMetrics) -> str:
    k, drift = list(energy.drift.items())[-1]
    low, high = energy.drift_interval[k]
    if drift is None or low is None or high is None:
        return f"Energy of imagined passive trajectories: diverged after {k} steps"
    unit = energy.unit
    return (
        f"Energy of imagined passive trajectories: median drift {drift:+.2f} {unit} "
        f"[{low:+.2f} {high:+.2f}] after {k} steps; readout RMSE {energy.readout_rmse:.2f} {unit}, "
        f"standard deviation over episodes {energy.true_std:.1f} {unit}"
    )


def _collapse(collapse: CollapseMetrics) -> str:
    std = collapse.std
    return (
        f"Latent of {collapse.dimensions} dimensions: effective rank "
        f"{collapse.effective_rank:.1f}, RankMe {collapse.rankme:.1f}, standard deviation "
        f"{std.min:.2g} to {std.max:.2g}"
    )


def _returns(returns: ReturnMetrics | None) -> str:
    if returns is None:
        return ""
    known = {k: value for k, value in returns.rank_correlation.items() if value is not None}
    values = ", ".join(f"{value:.2f} (k = {k})" for k, value in known.items())
    return f"Rank correlation of imagined and real returns of k actions: {values}"


def _heads(heads: HeadMetrics) -> str:
    reward, end = heads.reward, heads.termination
    text = f"Imagined steps: reward RMSE {_maybe(reward.rmse, '.3g')}"
    if reward.r2 is not None:
        text += f", R² {reward.r2:.3f}"
    if end.recall is None:
        return f"{text}; no held-out episode terminates"
    text += f"; terminations: recall {end.recall:.0%} of {end.terminations}"
    if end.false_positive_rate is None:
        return text
    return f"{text}, false positive rate {end.false_positive_rate:.2%}"
