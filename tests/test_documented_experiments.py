"""The results in the docs are those of the sweep files of today."""

import hashlib
import json
from pathlib import Path

import pytest

from worldmodel.sweeps import read_sweep

ROOT = Path(__file__).parents[1]
SWEEPS = ROOT / "benchmarks" / "sweeps"
RESULTS = sorted((ROOT / "docs" / "learning").glob("*.json"))
REFINED = {"targets": ", refinement.updates=600"}
"""Experiments whose rows hold a model before and after refinement -> the variant of the latter."""

RECIPE = {
    "env": True,
    "observation": True,
    "image_size": True,
    "frame_stack": True,
    "data": {"size", "steps", "policy", "env_kwargs", "state_key", "heldout_size"},
    "model": True,
    "objective": True,
    "phase1": True,
    "refinement": True,
    "evaluation": {"split", "steps", "readout", "probe"},
}
"""Keys of the configuration that affect a row, without the seed."""


def recipe(config):
    content = config.model_dump(mode="json", include=RECIPE)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_sweep_files_are_valid(path):
    assert len(read_sweep(path, None).trials) >= 6


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_in_the_docs_have_the_configurations_of_today(path):
    suffix = REFINED.get(path.stem, "")
    trials = read_sweep(SWEEPS / f"{path.stem}.yaml", None).trials
    wanted = {(t.variant, t.seed): recipe(t.config) for t in trials if t.variant.endswith(suffix)}
    rows = json.loads(path.read_text())["rows"]
    assert {(row["label"] + suffix, row["seed"]) for row in rows} == wanted.keys()
    for row in rows:
        current = wanted[row["label"] + suffix, row["seed"]]
        assert row["recipe"] == current, (
            f"{path.name} has no valid result of {row['label']!r}: run the sweep again or, if keys "
            "of the configuration were added or renamed without effect, set its recipe to "
            f"{current}"
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
