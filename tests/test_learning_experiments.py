"""`benchmarks/learning` trains, judges, keeps what it has, and writes its tables, in small."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ["--updates", "4", "--seeds", "0", "--size", "40", "--episodes", "8", "--points", "1"]


def experiment(name, folder, *more):
    places = ["--image-size", "16", "--data-dir", folder / "data", "--out", folder]
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "learning", name, *TINY, *places, *more],
        check=True,
        capture_output=True,
        text=True,
    )


def test_a_table_is_made_and_made_again_between_its_markers(tmp_path):
    page = tmp_path / "phenomena.md"
    page.write_text("# Before\n\n<!-- blindness -->\nold\n<!-- /blindness -->\n\nAfter.\n")
    first = experiment("blindness", tmp_path)
    text = page.read_text()
    assert first.stdout.strip() in text
    assert text.startswith("# Before\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    assert re.findall(r"^\| (identity|residual) \|", text, re.M) == ["identity", "residual"]
    path = tmp_path / "learning" / "blindness.json"
    kept = json.loads(path.read_text())
    assert kept["budget"] == {"updates": 4}
    identity, residual = kept["rows"]
    assert identity["latent_error"] == pytest.approx(1.0)
    assert residual["latent_error"] != pytest.approx(1.0, abs=1e-6)
    assert [point["updates"] for point in residual["curve"]] == [2, 4]
    assert residual["curve"][-1]["error"] == residual["error"]
    assert path.with_suffix(".png").stat().st_size > 5000

    kept["rows"] = [{**residual, "recipe": "of another time"}, identity]
    path.write_text(json.dumps(kept))
    again = experiment("blindness", tmp_path)
    assert "identity" not in again.stderr
    assert "residual, seed 0" in again.stderr
    made = json.loads(path.read_text())["rows"]
    assert [row["label"] for row in made] == ["identity", "residual"]
    assert made[1]["error"] == residual["error"]

    before = path.read_bytes()
    with pytest.raises(subprocess.CalledProcessError) as stopped:
        experiment("blindness", tmp_path, "--updates", "2")
    assert "remove the file to make all anew" in stopped.value.stderr
    assert path.read_bytes() == before


def test_refined_models_are_judged_before_and_after(tmp_path):
    first = experiment("decay", tmp_path, "--refine", "2")
    kept = json.loads((tmp_path / "learning" / "decay.json").read_text())
    assert kept["budget"] == {"updates": 4, "updates of refinement": 2}
    for row in kept["rows"]:
        assert row["refined"]["error"] != row["error"]
        assert row["refined"]["linear"] == row["linear"]
        assert f"{row['refined']['error']['30']:.3f} |" in first.stdout
    assert "4 updates and 2 updates of refinement" in (tmp_path / "learning.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "learning").glob("*.json")))
def test_the_tables_in_the_docs_are_those_of_their_figures(path):
    kept = json.loads(path.read_text())
    pages = [(ROOT / "docs" / page).read_text() for page in ("learning.md", "phenomena.md")]
    (text,) = [page for page in pages if f"<!-- {path.stem} -->" in page]
    table = text.split(f"<!-- {path.stem} -->")[1].split(f"<!-- /{path.stem} -->")[0]
    labels = {row["label"] for row in kept["rows"]}
    assert labels
    for label in labels:
        ranks = [r["effective_rank"] for r in kept["rows"] if r["label"] == label]
        (line,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
        assert f"| {sum(ranks) / len(ranks):.1f} ±" in line
