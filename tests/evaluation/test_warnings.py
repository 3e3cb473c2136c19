"""Warnings: each part that failed is named, with its value and a suggested fix."""

import re
from dataclasses import replace

import numpy as np
import pytest

from worldmodel.evaluation.tables import metrics_table
from worldmodel.evaluation.warnings import find_warnings
from worldmodel.terminal import print_table
from worldmodel.viz.report import write_report


@pytest.fixture(scope="module")
def good(tiny_report):
    """The report of a good run: every part learned, on enough data."""
    run = tiny_report
    data = replace(
        run.metrics.data, train_episodes=10_000, train_steps=300_000, several_outcomes=True
    )
    updates = {"phase1": 1563, "refinement": 600, "phase2": 469}
    frames = replace(run.metrics.forecast.frames, psnr_mean_frame=15.0, psnr={"0": 30.0})
    forecast = replace(run.metrics.forecast, frames=frames)
    heads = replace(run.metrics.heads, reward=replace(run.metrics.heads.reward, r2=0.9))
    metrics = replace(
        run.metrics,
        data=data,
        run=replace(run.metrics.run, updates=updates),
        forecast=forecast,
        heads=heads,
    )
    return replace(run, metrics=metrics)


def change(value, path, leaf):
    """A copy of nested dataclasses with one leaf replaced."""
    first, _, rest = path.partition(".")
    inner = change(getattr(value, first), rest, leaf) if rest else leaf
    return replace(value, **{first: inner})


def shuffled(metrics, ratio):
    errors = metrics.actions.latent
    wrong = {k: None if v is None else ratio * v for k, v in errors.true.items()}
    moved = change(metrics, "actions.latent", replace(errors, shuffled=wrong))
    return change(moved, "data.several_actions", True)


def test_a_good_run_has_no_warnings(good):
    assert find_warnings(good.metrics) == []
    assert find_warnings(shuffled(good.metrics, 1.5)) == []
    assert find_warnings(replace(good.metrics, run=None)) == []


@pytest.mark.parametrize(
    ("path", "value", "name", "shown"),
    [
        ("collapse.effective_rank", 1.25, "collapse", "1.25 of"),
        ("data.heldout_episodes", 1, "heldout", "from 1 held-out episode only"),
        ("forecast.latent.error", {"0": 0.0}, "short_episodes", "one observation only"),
        ("forecast.frames.psnr", {"0": 14.9}, "decoder", "14.9 dB at k = 0.*15.0 dB"),
        ("forecast.latent.error", {"0": 0.0, "5": 0.1, "10": 9.5}, "forecast", "10 steps.* 9.50"),
        ("forecast.latent.error", {"0": 0.0, "5": None}, "forecast", "diverges"),
        ("heads.reward.r2", 0.02, "reward", "R² of 0.02"),
        ("heads.reward.r2", None, "reward", "not finite"),
        ("heads.termination.recall", 0.25, "termination", "25% of 40"),
        ("heads.termination.false_positive_rate", 0.2, "false_terminations", "20%"),
        ("data.several_outcomes", False, "one_outcome", "one reward only and no termination"),
        ("data.train_steps", 900, "data", "900 steps"),
        ("data.train_episodes", 5, "data", "5 episodes"),
        ("run.updates", {"phase1": 29, "phase2": 469}, "updates", "29 in phase1\\."),
        ("run.updates", {"phase1": 1563, "phase2": 29}, "updates", "29 in phase2\\."),
    ],
)
def test_what_failed_is_named_with_its_value(good, path, value, name, shown):
    metrics = change(good.metrics, "heads.termination.terminations", 40)
    metrics = change(metrics, "heads.termination.recall", 0.9)
    metrics = change(metrics, "heads.reward.std", 1.0)
    assert find_warnings(metrics) == []
    (warning,) = find_warnings(change(metrics, path, value))
    assert warning.name == name
    assert re.search(shown, warning.message), warning.message
    assert "--" in warning.fix


def test_actions_without_effect_are_reported(good):
    (warning,) = find_warnings(shuffled(good.metrics, 1.01))
    assert warning.name == "actions"
    assert "1.01 times" in warning.message


def test_one_outcome_is_no_failure_of_own_data(good):
    metrics = change(good.metrics, "data.several_outcomes", False)
    assert [warning.name for warning in find_warnings(metrics)] == ["one_outcome"]
    assert find_warnings(change(metrics, "run.own_data", True)) == []


def test_one_action_is_reported_unless_the_environment_moves_by_itself(good):
    still = replace(good.metrics, energy=None)
    assert not still.data.several_actions
    (warning,) = find_warnings(still)
    assert warning.name == "one_action"


def test_rewards_that_never_change_and_rare_terminations_are_not_reported(good):
    metrics = change(
        good.metrics, "heads.reward", replace(good.metrics.heads.reward, std=0, r2=None)
    )
    metrics = change(metrics, "heads.termination.recall", 0.0)
    metrics = change(metrics, "heads.termination.terminations", 3)
    assert find_warnings(metrics) == []


def test_warnings_lead_the_table_and_the_report(good, tmp_path, capsys):
    metrics = change(good.metrics, "data.train_steps", 900)
    metrics = replace(metrics, warnings=find_warnings(metrics))
    print_table(metrics_table(metrics))
    assert capsys.readouterr().out.startswith("Warning: The model was trained on")
    write_report(tmp_path / "report.html", [replace(good, metrics=metrics)])
    page = (tmp_path / "report.html").read_text()
    assert page.index(metrics.warnings[0].message) < page.index("held-out episodes")
    write_report(tmp_path / "good.html", [good])
    assert 'class="warnings"' not in (tmp_path / "good.html").read_text()


def test_a_hardly_trained_run_says_so(run):
    names = {warning.name for warning in run.metrics.warnings}
    assert names >= {"updates", "data"}
    errors = run.metrics.forecast.latent
    k = str(max(int(k) for k in errors.error if int(k) <= 10))
    better = errors.error[k] < errors.persistence[k]
    assert ("forecast" in names) != better
    assert np.isfinite(errors.error[k])
