"""The tables of an evaluation, and of the comparison of several runs."""

from dataclasses import replace

import pytest
from reported import printed
from rich.console import Console

from worldmodel.evaluation import RunSummary, comparison_table, metrics_table
from worldmodel.evaluation.metrics import ReturnMetrics, TerminationMetrics
from worldmodel.terminal import print_table


@pytest.fixture
def metrics(tiny_report):
    return replace(tiny_report.metrics, run=None)


def test_the_table_shows_the_metrics(metrics):
    text = printed(metrics)
    angle = metrics.forecast.angle
    for k in ("0", "20", "40"):
        assert f"{angle.error[k]:.3f}" in text
    assert f"{metrics.probes.linear.r2['omega2']:.3f}" in text
    assert f"{angle.horizon.steps} steps" in text
    assert "model of the true state, 20 updates" in text
    assert "exact" in text
    for end in angle.interval["20"]:
        assert f"{end:.3f}" in text
    assert f"{metrics.actions.angle.midpoint['20']:.3f}" in text
    assert f"{metrics.forecast.frames.ssim['20']:.3f}" in text
    assert f"{metrics.energy.drift['40']:+.2f} J" in text
    assert f"{angle.horizon.lyapunov_times:.1f} Lyapunov times" in text
    assert "sinθ1" in text
    assert "ω1, ω2 in rad/s, of energy in J" in " ".join(text.split())
    assert "no held-out episode terminates" in text
    header = next(line for line in text.splitlines() if line.startswith("probe"))
    assert header.split()[-1] == "worst"
    assert "Probes: R² on held-out episodes; RMSE of" in " ".join(text.split())
    assert f"{metrics.probes.mlp.worst_r2:.3f}" in text


def test_the_table_leaves_out_units_and_values_that_are_unknown(metrics):
    probes = replace(metrics.probes, units=dict.fromkeys(metrics.probes.units, ""))
    reward = replace(metrics.heads.reward, rmse=None)
    text = printed(replace(metrics, probes=probes, heads=replace(metrics.heads, reward=reward)))
    assert "RMSE of" in " ".join(printed(metrics).split())
    assert "RMSE of" not in " ".join(text.split())
    assert "reward RMSE –" in text


def test_the_table_shows_recall_and_rank_correlations(metrics):
    returns = ReturnMetrics(7, {"5": 0.71, "10": None}, {"5": (0.6, 0.8), "10": None})
    assert "real returns of k actions: 0.71 (k = 5)\n" in printed(replace(metrics, returns=returns))
    terminations = TerminationMetrics(35, 30 / 35, 0.0012)
    text = printed(replace(metrics, heads=replace(metrics.heads, termination=terminations)))
    assert "terminations: recall 86% of 35, false positive rate 0.12%" in text


def test_a_narrow_terminal_crops_no_number_and_breaks_no_word(metrics, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    print_table(metrics_table(metrics))
    narrow = capsys.readouterr().out.replace("─", "").split()
    assert narrow == printed(metrics).replace("─", "").split()


def test_runs_are_compared_row_by_row(metrics):
    summary = RunSummary(
        name="first_of_two_runs",
        env="Hands-v0",
        observation="pixels",
        policy="passive",
        objective="sigreg",
        seed=3,
        latent_dim=8,
        trajectories=90,
        updates={"phase1": 7, "refinement": 4, "phase2": 2},
        parameters={"encoder": 1200},
    )
    runs = [
        replace(metrics, run=replace(summary, name=name))
        for name in ("first_of_two_runs", "second_of_two_runs")
    ]
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison_table(runs))
    text = console.export_text()
    for value in ("sigreg", "1,200", f"{metrics.forecast.angle.error['10']:.3f}"):
        (row,) = (line for line in text.splitlines() if value in line)
        assert row.count(value) == 2
    assert "first_of_two_runs" in text
    with pytest.raises(ValueError, match="metrics without a run cannot be compared"):
        comparison_table([metrics])
