"""External trackers: they see the training, resume, fail without harm, and change no weights."""

import os
import sqlite3
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import worldmodel
from worldmodel.callbacks import Callback, CallbackList, TrainingState
from worldmodel.cli import app
from worldmodel.config import build_config, from_options
from worldmodel.errors import MissingLibraryError
from worldmodel.extras import install_command
from worldmodel.run import Run
from worldmodel.trackers import TRACKERS, Tracker, WandbTracker, tracking
from worldmodel.trust import named_by_config

_TEMPORARY = tempfile.TemporaryDirectory(prefix="worldmodel-trackio-")
FOLDER = Path(_TEMPORARY.name)
os.environ["TRACKIO_DIR"] = _TEMPORARY.name  # read when trackio is imported


class Messages(Callback):
    """Collects warnings."""

    def __init__(self):
        self.warnings = []

    def on_message(self, text, *, warning=False):
        if warning:
            self.warnings.append(text)


class Recording(Tracker):
    """Records its calls; fails in the methods of `failing`."""

    name = "recording"
    failing: tuple = ()
    calls: list

    def _called(self, method, *values):
        print("text for stdout")
        self.calls.append((method, *values))
        if method in self.failing:
            raise ConnectionError("no\nnetwork")

    def start(self, run):
        self._called("start")

    def log(self, scalars, state):
        self._called("log", scalars)

    def attach(self, run):
        self._called("attach")

    def finish(self):
        self._called("finish")


@pytest.fixture
def recording(monkeypatch):
    Recording.calls, Recording.failing = [], ()
    monkeypatch.setitem(TRACKERS, "recording", Recording)
    monkeypatch.setattr("worldmodel.trackers.require_installed", lambda *_: None)
    return Recording


def train_with(names, messages):
    state = TrainingState(run=None, model=None, validation=None, phase="phase 1")
    with tracking(names, CallbackList([messages])) as callbacks:
        callbacks.on_train_start(state)
        for update in (50, 100):
            state.update, state.scalars = update, {"phase1/loss": 1.0, "phase1/skipped": 0.0}
            callbacks.on_log(state)
        callbacks.on_train_end(state)
        callbacks.on_evaluation_end(None)


def test_a_tracker_sees_scalars_and_results_and_writes_nothing_to_stdout(recording, capsys):
    messages = Messages()
    train_with(["tensorboard", "recording"], messages)
    scalars = {"phase1/loss": 1.0, "skipped_updates/phase1": 0.0}
    logs = [("log", scalars), ("log", scalars)]
    assert recording.calls == [("start",), *logs, ("attach",), ("finish",)]
    assert messages.warnings == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["start", "log", "attach", "finish"])
def test_a_tracker_that_fails_is_reported_once_and_left_out(recording, method):
    recording.failing, messages = (method, "finish"), Messages()
    train_with(["recording"], messages)
    assert messages.warnings == [
        "recording failed and is left out (ConnectionError: no network); training continues"
    ]
    called = [name for name, *_ in recording.calls]
    assert called.count(method) == 1
    assert ("finish" in called) == (method != "start")


def test_a_tracker_is_closed_when_training_fails(recording):
    def stopped():
        with tracking(["recording"], CallbackList()) as callbacks:
            callbacks.on_train_start(TrainingState(run=None, model=None, validation=None))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert recording.calls == [("start",), ("finish",)]


def test_tensorboard_is_always_on_and_names_are_checked():
    assert build_config({}).trackers == ("tensorboard",)
    config = build_config(from_options(trackers=["trackio", "wandb", "trackio"]))
    assert config.trackers == ("tensorboard", "trackio", "wandb")
    assert [*named_by_config(config)] == ["trackers: trackio", "trackers: wandb"]
    result = CliRunner().invoke(app, ["train", "--tracker", "excel"])
    assert result.exit_code == 2
    assert "trackers: expected 'tensorboard', 'wandb' or 'trackio', got 'excel'" in result.stderr


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_extra_is_one_line_and_no_run_is_made(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "--preset", "smoke", "--tracker", name])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"Error: {name} is not installed; install it with: {install_command(name)}"
    )
    assert not (tmp_path / "results").exists()


def test_a_resumed_training_continues_the_same_run_of_wandb(run, monkeypatch):
    ids = []
    fake = SimpleNamespace(
        init=lambda **settings: ids.append((settings["id"], settings["resume"])),
        Settings=lambda **settings: None,
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        WandbTracker(pytest.fail).start(run)
    (first, second) = ids
    assert first == second
    assert first[1] == "allow"
    (run.path / "wandb_id").write_text("../../evil")
    WandbTracker(pytest.fail).start(run)
    assert "/" not in ids[-1][0]


@pytest.mark.filterwarnings("error:trackio")
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers_record_a_training_offline_and_change_no_weights(
    name, driven_run, tmp_path, monkeypatch
):
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = {"trackers": (name,), "output_dir": tmp_path / "results"}
    original = Run(driven_run)
    config = original.config.model_copy(update=settings)
    messages = Messages()
    run = worldmodel.train(config=config, callbacks=[messages], progress=False)
    assert not [text for text in messages.warnings if name in text]
    for path in (driven_run / "models").glob("*.pth"):
        assert path.read_bytes() == run.weights_path(path.stem).read_bytes()
    assert list((run.path / "tensorboard").glob("events*"))
    if name == "wandb":
        (files,) = run.path.parent.glob("wandb/offline-run-*/files")
        assert (files / "report.html").is_file()
        assert not [path for path in run.path.rglob("*") if path.is_symlink()]
        assert len(list((files / "media" / "videos").glob("*.mp4"))) == 1
    else:
        media = {path.suffix for path in FOLDER.glob(f"media/worldmodel/{run.path.name}/*/*")}
        assert media == {".png", ".mp4", ".html"}
        ((rows,),) = sqlite3.connect(next(FOLDER.glob("*.db"))).execute(
            "select count(*) from metrics where run_name = ?", [run.path.name]
        )
        assert rows > 1


def test_a_directory_of_old_runs_is_not_taken_for_the_library(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with (
        pytest.raises(MissingLibraryError, match="wandb is not installed"),
        tracking(["wandb"], CallbackList()),
    ):
        pass
