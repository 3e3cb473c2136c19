"""The command line as a whole: help, version, completion, and what it says for a bug report."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

import worldmodel
from worldmodel.cli import app
from worldmodel.extras import EXTRAS, install_command
from worldmodel.installation import describe_installation


def commands(command=None, words=()):
    """All commands and groups as the words that call them."""
    command = typer.main.get_command(app) if command is None else command
    yield words
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))


def examples(words):
    help_text = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "300"}).stdout
    return re.findall(r"Example: worldmodel (.*?)\s*$", help_text, re.MULTILINE)


@pytest.mark.parametrize("words", [*commands()], ids=" ".join)
def test_the_help_of_each_command_has_examples_that_call_it(words, monkeypatch):
    called = []
    monkeypatch.setattr(TyperCommand, "invoke", lambda _, context: called.append(context))
    assert examples(words)
    for example in examples(words):
        result = CliRunner().invoke(app, shlex.split(example))
        assert result.exit_code == 0, result.output
        assert called.pop().command_path.split()[1:][: len(words)] == [*words]


def test_a_wrong_example_would_be_found(monkeypatch):
    monkeypatch.setattr(TyperCommand, "invoke", lambda *_: None)
    assert CliRunner().invoke(app, ["train", "--no-such-option"]).exit_code == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("worldmodel ex", {"export"}),
        ("worldmodel train --pol", {"--policy"}),
        ("worldmodel rl tr", {"train"}),
        ("worldmodel convert a b --to h", {"hdf5"}),
    ],
)
def test_the_shell_completes_commands_options_and_choices(line, expected):
    asked = {"_WORLDMODEL_COMPLETE": "complete_bash", "COMP_WORDS": line}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'worldmodel'; import worldmodel.__main__",
        ],
        env={**os.environ, **asked, "COMP_CWORD": str(len(line.split()) - 1)},
        capture_output=True,
        text=True,
    )
    assert {*done.stdout.split()} == expected, done.stderr


def test_a_module_cli_of_the_user_is_not_taken_for_the_command_line(tmp_path):
    (tmp_path / "cli.py").write_text("raise SystemExit('the user's own')")
    words = [sys.executable, "-m", "worldmodel", "--version"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"worldmodel {worldmodel.__version__}\n", "")


def test_characters_that_an_output_lacks_are_escaped(tmp_path):
    (tmp_path / "results" / "θ").mkdir(parents=True)
    (tmp_path / "results" / "θ" / "config.yaml").touch()
    done = subprocess.run(
        [sys.executable, "-m", "worldmodel", "info"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "- \\u03b8" in done.stdout


def test_the_version_is_shown():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"worldmodel {worldmodel.__version__}\n")


def test_info_without_a_path_describes_the_installation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("finished", "unfinished"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "config.yaml").touch()
    (tmp_path / "results" / "finished" / "metrics.json").touch()
    os.utime(tmp_path / "results" / "unfinished" / "config.yaml", (0, 0))
    result = CliRunner().invoke(app, ["info", "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["worldmodel"] == worldmodel.__version__
    assert content["libraries"]["numpy"] == __import__("numpy").__version__
    assert "cpu" in content["devices"]
    assert content["runs"] == {
        "directory": "results",
        "finished": 1,
        "unfinished": 1,
        "newest": ["finished", "unfinished"],
    }
    text = CliRunner().invoke(app, ["info"]).stdout
    assert f"worldmodel: {worldmodel.__version__}" in text


def test_info_says_how_to_install_what_is_missing(monkeypatch):
    monkeypatch.setattr("worldmodel.installation.is_installed", lambda name: name != "pyarrow")
    extras = describe_installation()["extras"]
    assert extras.keys() == EXTRAS.keys()
    assert extras["data"]["pyarrow"] is None
    assert extras["data"]["install"] == install_command("data")


def test_info_reports_a_torch_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert describe_installation()["devices"].startswith("torch cannot be imported (Module")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --observation image", "'image' is not one of 'pixels', 'vector'"),
        ("convert a b --to zip", "'zip' is not one of 'buffer', 'minari', 'hdf5', 'lerobot'"),
        ("collect a --size many", "integer, got 'many'"),
    ],
)
def test_a_wrong_choice_is_answered_with_the_value_and_the_choices(line, message):
    result = CliRunner().invoke(app, line.split(), env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert message in result.output
    assert not re.search("Value error|Input should", result.output)


def test_a_check_needs_a_path():
    result = CliRunner().invoke(app, ["info", "--check"])
    assert result.exit_code == 2
    assert "--check needs the path" in result.output
