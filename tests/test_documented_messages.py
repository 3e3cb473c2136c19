"""The messages that docs/own_environment.md quotes for common mistakes are those of the toolkit."""

import sys

import pytest
from documents import ROOT, saved_file
from typer.testing import CliRunner

from worldmodel import Run, cli
from worldmodel.terminal import print_metrics

PAGE = (ROOT / "docs" / "own_environment.md").read_text(encoding="utf-8")
FLOAT_FRAMES = {"Box(0, 255, (64, 64, 3), np.uint8)": "Box(0, 1, (64, 64, 3), np.float32)"}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Run ``worldmodel train`` beside a changed ``dot.py``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(env, changes):
        source = saved_file("dot.py")
        for old, new in changes.items():
            assert old in source
            source = source.replace(old, new)
        (tmp_path / "dot.py").write_text(source)
        return CliRunner().invoke(cli.app, ["train", "--env", env, "--preset", "smoke"])

    yield run
    sys.modules.pop("dot", None)


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("env", "changes"),
    [("dot:DotEnv", FLOAT_FRAMES), ("DotEnv", {})],
    ids=["float frames", "no module"],
)
def test_the_page_quotes_the_message_of_a_mistake(env, changes, train):
    done = train(env, changes)
    assert done.exit_code == 2
    assert done.output.startswith("Error: ")
    assert words(done.output) in words(PAGE)


def test_the_page_quotes_the_line_about_missing_terminations(driven_run, capsys):
    print_metrics([Run(driven_run).metrics], False)
    line = "no held-out episode terminates"
    assert line in words(capsys.readouterr().out)
    assert line in words(PAGE)
