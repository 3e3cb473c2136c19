"""`benchmarks/learning` trains, evaluates, reuses saved results and writes tables."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from tiny_training import new_model, tiny_buffer, tiny_config

from worldmodel.evaluation import probes
from worldmodel.hyperparameters import Probe

ROOT = Path(__file__).parents[1]
LEARNING = ROOT / "benchmarks" / "learning"
RESULTS = sorted((ROOT / "docs" / "learning").glob("*.json"))
TINY = ["--updates", "4", "--seeds", "0", "--size", "40", "--episodes", "8", "--points", "1"]


@pytest.fixture
def run_experiment(monkeypatch, capsys):
    """Runs `benchmarks/learning NAME` in this process; returns what it prints."""
    monkeypatch.syspath_prepend(LEARNING)
    fit, few = probes.fit_mlp_probe, Probe(updates=20)
    monkeypatch.setattr(probes, "fit_mlp_probe", lambda x, y, _, *, seed: fit(x, y, few, seed=seed))

    def run(name, folder, *options):
        paths = ["--image-size", "16", "--data-dir", str(folder / "data"), "--out", str(folder)]
        monkeypatch.setattr(sys, "argv", [str(LEARNING), name, *TINY, *paths, *options])
        runpy.run_path(str(LEARNING / "__main__.py"), run_name="__main__")
        return capsys.readouterr()

    return run


def test_saved_results_are_reused_and_the_table_is_written_between_its_markers(
    run_experiment, tmp_path
):
    page = tmp_path / "phenomena.md"
    page.write_text("# Before\n\n<!-- blindness -->\nold\n<!-- /blindness -->\n\nAfter.\n")
    first = run_experiment("blindness", tmp_path)
    text = page.read_text()
    assert first.out.strip() in text
    assert text.startswith("# Before\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    assert re.findall(r"^\| (identity|residual) \|", text, re.M) == ["identity", "residual"]
    path = tmp_path / "learning" / "blindness.json"
    saved = json.loads(path.read_text())
    assert saved["budget"] == {"updates": 4}
    identity, residual = saved["rows"]
    assert identity["latent_error"] == pytest.approx(1.0)
    assert residual["latent_error"] != pytest.approx(1.0, abs=1e-6)
    assert [point["updates"] for point in residual["curve"]] == [2, 4]
    assert residual["curve"][-1]["error"] == residual["error"]
    assert path.with_suffix(".png").stat().st_size > 5000

    saved["rows"] = [{**residual, "recipe": "of another configuration"}, identity]
    path.write_text(json.dumps(saved))
    again = run_experiment("blindness", tmp_path)
    assert "identity" not in again.err
    assert "residual, seed 0" in again.err
    rows = json.loads(path.read_text())["rows"]
    assert [row["label"] for row in rows] == ["identity", "residual"]
    assert rows[1]["error"] == residual["error"]

    before = path.read_bytes()
    with pytest.raises(SystemExit) as stopped:
        run_experiment("blindness", tmp_path, "--updates", "2")
    assert "remove the file to train all models again" in str(stopped.value)
    assert path.read_bytes() == before


def test_refined_models_are_evaluated_before_and_after(run_experiment, tmp_path):
    first = run_experiment("decay", tmp_path, "--refine", "2")
    saved = json.loads((tmp_path / "learning" / "decay.json").read_text())
    assert saved["budget"] == {"updates": 4, "updates of refinement": 2}
    for row in saved["rows"]:
        assert row["refined"]["error"] != row["error"]
        assert row["refined"]["linear"] == row["linear"]
        assert f"{row['refined']['error']['30']:.3f} |" in first.out
    assert "4 updates and 2 updates of refinement" in (tmp_path / "learning.md").read_text()


@pytest.fixture
def learning(monkeypatch):
    monkeypatch.syspath_prepend(LEARNING)
    return runpy.run_path(str(LEARNING / "__main__.py"))


def test_schedules_end_at_the_last_update_of_the_budget(learning, tmp_path, monkeypatch):
    config = tiny_config()
    momenta = []
    make_phase = learning["make_phase"]
    monkeypatch.setitem(make_phase.__globals__, "update_target", lambda *args: momenta.append(args))
    with tiny_buffer(tmp_path / "buffer", config) as buffer:
        phase = make_phase(new_model(config), buffer, config, 7)
        assert phase.updates == 7
        for update in (0, 7):
            phase.after_update(update)
    expected = [config.phase1.ema_start, config.phase1.ema_end]
    assert [momentum for _, _, momentum in momenta] == pytest.approx(expected)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_in_the_docs_have_the_configurations_of_today(learning, path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["learning", path.stem])
    options = learning["parse_options"]()
    experiment = learning["EXPERIMENTS"][path.stem]
    saved = json.loads(path.read_text())
    assert saved["budget"].get("updates of refinement", 0) == options.refine
    assert saved["budget"]["updates"] == options.updates
    assert {row["label"] for row in saved["rows"]} == set(experiment.configurations)
    for row in saved["rows"]:
        config = learning["configuration"](experiment, row["label"], row["seed"], options)
        recipe = learning["recipe"](config, options)
        assert row["recipe"] == recipe, (
            f"{path.name} has no valid result of {row['label']!r}: train it again or, if keys of "
            f"the configuration were added or renamed without effect, set its recipe to {recipe}"
        )


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_in_the_docs_show_the_saved_results(path):
    saved = json.loads(path.read_text())
    pages = [(ROOT / "docs" / page).read_text() for page in ("learning.md", "phenomena.md")]
    (text,) = [page for page in pages if f"<!-- {path.stem} -->" in page]
    table = text.split(f"<!-- {path.stem} -->")[1].split(f"<!-- /{path.stem} -->")[0]
    labels = {row["label"] for row in saved["rows"]}
    assert labels
    for label in labels:
        ranks = [r["effective_rank"] for r in saved["rows"] if r["label"] == label]
        (line,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
        assert f"| {sum(ranks) / len(ranks):.1f} ±" in line
