"""`examples/phenomena.py` trains, judges and writes its tables, in small."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ["--updates", "3", "--seeds", "0", "--size", "40", "--episodes", "8"]


def phenomena(name, folder):
    places = ["--image-size", "16", "--data-dir", folder / "data", "--out", folder]
    return subprocess.run(
        [sys.executable, ROOT / "examples" / "phenomena.py", name, *TINY, *places],
        check=True,
        capture_output=True,
        text=True,
    )


def test_a_table_is_made_and_made_again_between_its_markers(tmp_path):
    page = tmp_path / "phenomena.md"
    page.write_text("# Before\n\n<!-- blindness -->\nold\n<!-- /blindness -->\n\nAfter.\n")
    told = phenomena("blindness", tmp_path).stdout
    text = page.read_text()
    assert told.strip() in text
    assert text.startswith("# Before\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    assert re.findall(r"^\| (identity|residual) \|", text, re.M) == ["identity", "residual"]
    kept = json.loads((tmp_path / "phenomena-blindness.json").read_text())
    assert kept["updates"] == 3
    assert [len(seeds) for seeds in kept["results"].values()] == [1, 1]
    identity, residual = kept["results"]["identity"][0], kept["results"]["residual"][0]
    assert identity["latent_error"] == pytest.approx(1.0)
    assert residual["latent_error"] != pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["collapse", "blindness"])
def test_the_tables_in_the_docs_are_those_of_their_figures(name):
    kept = json.loads((ROOT / "docs" / f"phenomena-{name}.json").read_text())
    text = (ROOT / "docs" / "phenomena.md").read_text()
    table = text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    for label, seeds in kept["results"].items():
        mean = sum(seed["effective_rank"] for seed in seeds) / len(seeds)
        assert f"| {label} | {mean:.1f} ±" in table
        assert len(seeds) == 3
