"""Commands in README and docs are accepted by the command line of today; quick ones are run."""

import importlib.util
import re
import shutil
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
from documents import PAGES, ROOT, SHELL, blocks, commands, inline, saved_file
from typer.main import get_command
from typer.testing import CliRunner

from worldmodel import build_config, cli, training
from worldmodel.config import override, validate
from worldmodel.data import collect
from worldmodel.settings import parse_settings
from worldmodel.sweeps import read_sweep

COMMANDS = sorted({words for path in PAGES for words in commands(path)})
QUICK = ("collect", "convert", "info", "repair")
"""Commands that are run here; ``view --sheet`` and ``push --dry-run`` are too."""
NOT_RUN = {
    "--ray": "needs a Ray cluster",
    "minari:D4RL/door/human-v2": "needs the network",
    "hf://user/name": "needs the network",
    "--observation-key": "needs a camera of that name",
}
"""Words of documented commands that are parsed only -> why."""
OTHER_PROGRAMS = {
    "pip": "needs the network",
    "python3": "makes an environment; .ci/run runs the test command of the README",
    "hf": "needs an account",
    "export": "needs a Slurm cluster",
    "srun": "needs a Slurm cluster; its worldmodel command is parsed",
    "torchrun": "starts processes; its worldmodel command is parsed",
    "WANDB_MODE=offline": "sets a variable of the worldmodel command, which is parsed",
}
"""First words of documented lines that are not run -> why."""


def leaves(command):
    """Yield the commands below a group."""
    for each in getattr(command, "commands", {}).values():
        if hasattr(each, "commands"):
            yield from leaves(each)
        else:
            yield each


def parse(words):
    """Parse arguments with the real command line, without running the command."""
    app = get_command(cli.app)
    for leaf in leaves(app):
        leaf.callback = None
    mention = len(words) == 1 and words != ("train",)
    app.main([*words, *["--help"] * mention], prog_name="worldmodel", standalone_mode=False)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_command_line_accepts_a_documented_command(words):
    parse(words)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("train", "--no-such-option", "1"), "No such option"),
        (("plan", "--episodes", "3"), "Missing argument"),
        (("plan", "RUN", "--episodes", "many"), "Invalid value"),
        (("no-such-command",), "No such command"),
    ],
)
def test_a_wrong_command_is_found(words, error):
    with pytest.raises(Exception) as raised:  # noqa: PT011  (typer has no public class of it)
        parse(words)
    assert error in raised.value.format_message()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """What the documented commands read: buffers, a file of recordings, and a user's module."""
    folder = tmp_path_factory.mktemp("workspace")
    mine = folder / "data" / "mine"
    collect(
        "DoublePendulumPixels-v0", mine, episodes=3, seeds=range(3), steps=8, image_size=16
    ).close()
    for name in ("BUFFER", "DIR", "PATH", "SOURCE", "SRC", "buffer_a", "buffer_b", "data/random"):
        shutil.copytree(mine, folder / name)
    converted = CliRunner().invoke(cli.app, ["convert", str(mine), str(folder / "recordings.h5")])
    assert converted.exit_code == 0, converted.output
    (folder / "mypackage").mkdir()
    (folder / "mypackage" / "__init__.py").touch()
    (folder / "mypackage" / "envs.py").write_text("from tiny_env import TinyEnv as MyEnv\nCrop = 1")
    (folder / "dot.py").write_text(saved_file("dot.py"))
    (folder / "RUN").mkdir()
    (folder / "RUN" / "config.yaml").write_text("seed: 3\n")
    return folder


@pytest.fixture
def elsewhere(workspace, tmp_path, monkeypatch):
    """A copy of the workspace, as the working directory."""
    folder = shutil.copytree(workspace, tmp_path / "copy")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("mypackage", "mypackage.envs", "dot"):
        sys.modules.pop(name, None)


def is_run(words):
    """Check that nothing in a command needs what CI does not have."""
    return not NOT_RUN.keys() & set(words)


TRAININGS = [words for words in COMMANDS if words[0] == "train" and is_run(words)]


@pytest.mark.parametrize("words", TRAININGS, ids=" ".join)
def test_a_documented_training_has_a_valid_configuration(words, elsewhere, monkeypatch):
    started = []
    result = SimpleNamespace(metrics=None, path=elsewhere)
    monkeypatch.setattr(cli, "print_metrics", lambda metrics, as_json: None)
    monkeypatch.setattr(training, "train", lambda config: started.append(config) or result)
    monkeypatch.setattr(training, "resume", lambda path: started.append(path) or result)
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert len(started) == 1


def test_documented_settings_are_keys_of_the_configuration():
    texts = [token.content for path in PAGES for token in inline(path, "code_inline")]
    found = re.findall(r"--set (\w+[.\w]*=[^\s`]+)", "\n".join(texts))
    found += [v for words in COMMANDS for o, v in pairwise(words) if o == "--set"]
    values = {"=N": "=3", "=PATH": "=here", "=ID": "=CartPole-v1", "=...": "=conv"}
    default = build_config().model_dump(mode="json")
    checked = 0
    for each in sorted({text.replace("\n", " ") for text in found} - {"KEY=VALUE"}):
        for placeholder, value in values.items():
            each = re.sub(re.escape(placeholder) + "$", value, each)
        validate(override(default, parse_settings([each])))
        checked += 1
    assert checked > 10


def is_quick(words):
    """Check that a command takes no longer than a test may."""
    quick = words[0] in QUICK or "--sheet" in words
    return quick and is_run(words) and len(words) > 1 and "RUN" not in words


@pytest.mark.parametrize("words", list(filter(is_quick, COMMANDS)), ids=" ".join)
def test_a_quick_command_does_what_the_docs_say(words, elsewhere):
    if words[:2] in (("view", "robot"), ("convert", "data/cartpole")):
        shutil.copytree("data/mine", words[1])
    elif words[0] == "convert" and "recordings.h5" in words:
        (elsewhere / "recordings.h5").unlink()
    elif words[0] == "collect":
        shutil.rmtree(words[1], ignore_errors=True)
    few = {"--size": "2", "--steps": "12", "--workers": "1"}
    short = [few.get(option, word) for option, word in zip(("", *words), words)]
    if words[0] == "collect" and "--size" not in words:
        short += ["--size", "2"]
    if words[:3] == ("convert", "SRC", "DST"):
        short += ["--to", "buffer"]
    done = CliRunner().invoke(cli.app, short)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "words",
    [("info", "RUN"), ("info", "--check", "RUN"), ("push", "RUN", "user/name")],
    ids=" ".join,
)
def test_a_documented_command_on_a_run_works(words, run_path, tmp_path):
    assert words in COMMANDS
    dry = ["--dry-run", str(tmp_path / "card")] if words[0] == "push" else []
    done = CliRunner().invoke(cli.app, [word.replace("RUN", str(run_path)) for word in words] + dry)
    assert done.exit_code == 0, done.output


def test_other_programs_of_the_docs_are_listed_with_the_reason_why_they_are_not_run():
    first = set()
    for path in PAGES:
        for block in blocks(path):
            lines = block.text.replace("\\\n", " ").splitlines()
            if block.language == "bash" or (not block.language and runs_programs(lines)):
                first |= {line.split()[0] for line in lines if line.strip()}
    assert first - {"worldmodel", "python"} == OTHER_PROGRAMS.keys()


def runs_programs(lines):
    """Check that an indented block holds commands, not a drawing or a list of files."""
    return any(line.split()[0] in {"worldmodel", "python", *OTHER_PROGRAMS} for line in lines)


def test_programs_of_the_repository_that_the_docs_name_exist():
    texts = [token.content for path in PAGES for token in inline(path, "code_inline")]
    texts += [b.text for path in PAGES for b in blocks(path) if b.language in SHELL]
    text = "\n".join(texts)
    modules = set(re.findall(r"python -m ([\w.]+)", text))
    files = set(re.findall(r"python ([\w/]+\.py)", text))
    assert {"benchmarks.gallery", "worldmodel"} <= modules
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_the_documented_sweep_file_is_valid(tmp_path):
    (block,) = [b for path in PAGES for b in blocks(path) if b.language == "yaml"]
    file = tmp_path / "sweep.yaml"
    file.write_text(block.text)
    assert len(read_sweep(file, None).trials) == 12
