"""Optional libraries: where one is missing, one line says how to install it."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worldmodel.cli import app
from worldmodel.errors import MissingLibraryError
from worldmodel.extras import EXTRAS, install_command, require

ROOT = Path(__file__).parents[1]

NEEDS = {
    "data": ("convert", "buffer", "new.h5"),
    "ray": ("collect", "buffer", "--ray", "--size", "1"),
    "hub": ("info", "hf://user/name"),
    "wandb": ("train", "--preset", "smoke", "--tracker", "wandb"),
    "trackio": ("train", "--preset", "smoke", "--tracker", "trackio"),
}
"""Extra -> a command that needs it; `onnx` needs a run, see test_export_targets.py."""


def test_the_table_holds_the_requirements_of_pyproject():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = declared["optional-dependencies"]
    assert {name: [*found.values()] for name, found in EXTRAS.items()} == {
        name: declared[name] for name in EXTRAS
    }
    for found in EXTRAS.values():
        for module, requirement in found.items():
            assert re.match(r"[\w-]+", requirement)[0] == module


@pytest.mark.parametrize("extra", NEEDS)
def test_a_command_without_its_extra_fails_in_one_line(extra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = ["collect", "buffer", "--size", "1", "--steps", "2", "--workers", "1", "--image-size"]
    if extra == "data":
        assert CliRunner().invoke(app, [*make, "16"]).exit_code == 0
    before = {*tmp_path.rglob("*")}
    monkeypatch.setattr("worldmodel.extras.find_spec", lambda name: None)
    result = CliRunner().invoke(app, NEEDS[extra])
    assert result.exit_code == 1, result.output
    last = result.stderr.splitlines()[-1]
    assert re.fullmatch(r"Error: \w+ is not installed; install it with: .*", last)
    assert last.endswith(install_command(extra))
    assert {*tmp_path.rglob("*")} - before == set()


def test_the_command_quotes_versions_and_fits_environments_without_pip(monkeypatch):
    command = 'pip install "huggingface_hub>=1.0,<3" "safetensors>=0.4"'
    assert install_command("hub") == command
    monkeypatch.setattr("worldmodel.extras.find_spec", lambda name: None)
    assert install_command("hub") == f"uv {command}"


def test_a_library_that_is_installed_but_damaged_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "damaged.py").write_text("raise ImportError('a file of it is lost')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="a file of it is lost") as raised:
        require("damaged", "data")
    assert not isinstance(raised.value, MissingLibraryError)
