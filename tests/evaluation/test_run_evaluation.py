"""The evaluation of run directories: what it writes, repeats and rejects."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from worldmodel import Run
from worldmodel.callbacks import Callback
from worldmodel.errors import RunError
from worldmodel.evaluation import evaluate_runs

FILES = ("metrics.json", "report.html", "forecast.png", "forecast.mp4", "reconstruction.png")

FAST = {
    "data": {"heldout_size": 4},
    "evaluation": {
        "resamples": 20,
        "steps": 21,
        "probe": {"updates": 20, "baseline_observations": 500},
        "reference": {"updates": 5},
    },
}
"""For what does not depend on how well anything is fitted."""


class Messages(Callback):
    """Keeps all messages."""

    def __init__(self):
        self.texts = []

    def on_message(self, text, *, warning=False):
        self.texts.append(text)


def test_evaluating_a_run_again_rewrites_its_files_with_the_same_metrics(run):
    before = run.metrics
    for name in (*FILES, "models/probe.pt", "models/imagination.pt"):
        (run.path / name).unlink()
    again = Run(run.path, device="cpu")
    metrics = again.evaluate(reference_updates=0)
    assert replace(metrics, run=before.run) == before
    assert all((run.path / name).is_file() for name in FILES)
    reopened = Run(run.path, device="cpu")
    assert reopened.metrics == metrics
    assert reopened.probe is not None
    assert reopened.starts.shape[1] == 8
    assert torch.equal(reopened.starts, run.starts)
    summary = reopened.metrics.run
    assert summary.name == run.path.name
    assert summary.policy == "random"
    assert summary.parameters["encoder"] > 0


def test_a_run_can_be_evaluated_with_a_reference_model(run):
    metrics = run.with_settings(FAST).evaluate()
    assert metrics.reference.updates == 5
    content = json.loads((run.path / "metrics.json").read_text())
    assert content["reference"]["updates"] == 5


def test_a_run_can_be_evaluated_on_validation_episodes(run):
    validation = {"evaluation": {**FAST["evaluation"], "split": "validation"}}
    metrics = run.with_settings({**FAST, **validation}).evaluate(reference_updates=0)
    assert metrics.data.split == "validation"
    assert metrics.data.heldout_seeds == (10_000, 10_003)
    page = (run.path / "report.html").read_text()
    for text in (
        "from 4 validation episodes",
        "R² on validation episodes",
        "</span> validation",
    ):
        assert text in page


def test_several_runs_are_compared_in_one_report(run, tmp_path):
    other = Run(shutil.copytree(run.path, tmp_path / "other"), device="cpu")
    messages = Messages()
    path = tmp_path / "both.html"
    runs = [run.with_settings(FAST), other.with_settings(FAST)]
    first, second = evaluate_runs(runs, comparison=path, callbacks=[messages])
    assert first.run.name == "run"
    assert second.run.name == "other"
    assert first.forecast == second.forecast
    assert path.is_file()
    assert f"Comparison: {path}" in messages.texts


@pytest.mark.parametrize(
    ("count", "comparison", "message"),
    [
        (2, None, "named twice"),
        (1, "both.html", "one run has its report.html"),
        (1, None, None),
    ],
)
def test_run_lists_that_make_no_sense_are_rejected(tmp_path, count, comparison, message):
    runs = [Run(tmp_path / "run")] * count
    path = tmp_path / comparison if comparison else None
    with pytest.raises((ValueError, RunError), match=message):
        evaluate_runs(runs, comparison=path)


def test_a_comparison_that_cannot_be_written_is_rejected_before_anything_is_evaluated(tmp_path):
    runs = [Run(tmp_path / "a"), Run(tmp_path / "b")]
    for path in (tmp_path, tmp_path / "missing" / "both.html"):
        with pytest.raises(ValueError, match="existing directory"):
            evaluate_runs(runs, comparison=path)


def test_metrics_of_an_older_version_are_rejected_with_a_hint(run):
    path = run.path / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    with pytest.raises(RunError, match=r"schema version 2.*`worldmodel evaluate "):
        _ = run.metrics


def test_a_damaged_probe_is_reported_with_a_hint(tmp_path):
    (tmp_path / "models").mkdir()
    assert Run(tmp_path).probe is None
    torch.save({"net": {}}, tmp_path / "models" / "probe.pt")
    with pytest.raises(RunError, match=r"probe\.pt is damaged.*`worldmodel evaluate "):
        _ = Run(tmp_path).probe
