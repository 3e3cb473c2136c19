"""Full disks, interrupts, two processes, links and poisoned files: nothing is lost or executed."""

import os
import shutil
import signal
import time
from contextlib import suppress

import pytest
import torch
from episodes import create, fill
from filelock import FileLock
from full_disk import files_limited_to

import worldmodel
from worldmodel.callbacks import deferred_interrupt
from worldmodel.checks import check_path
from worldmodel.errors import RunError
from worldmodel.evaluation.run_evaluation import evaluate_run
from worldmodel.files import load_tensors, replacing, save_tensors


def retrain(driven_run, folder):
    """Train like that run, on its data."""
    config = worldmodel.Run(driven_run).config
    return worldmodel.train(config=config.model_copy(update={"output_dir": folder}), progress=False)


def weights(run):
    return {
        path.name: torch.load(path, weights_only=True) for path in run.path.glob("models/*.pth")
    }


@pytest.mark.parametrize("size", [4_000, 20_000, 100_000])
def test_on_a_full_disk_training_stops_with_one_line_and_can_be_resumed(driven_run, tmp_path, size):
    with (
        files_limited_to(size),
        pytest.raises(
            RunError, match=r"training stopped: .*File too large.*train --resume"
        ) as full,
    ):
        retrain(driven_run, tmp_path)
    (path,) = tmp_path.iterdir()
    assert str(path) in str(full.value)
    left = [file.name for file in path.rglob(".*")]
    assert left == []
    run = worldmodel.resume(path, progress=False)
    assert run.finished
    complete = weights(worldmodel.Run(driven_run))
    for name, state in weights(run).items():
        assert all(torch.equal(value, complete[name][key]) for key, value in state.items()), name


def test_what_killed_processes_left_is_removed(driven_run, tmp_path):
    path = shutil.copytree(driven_run, tmp_path / "run")
    kept = [path / "models" / name for name in (".notes.txt", ".notes.0123.txt")]
    left = [
        path / ".forecast.0123456789abcdef.mp4",
        path / "models" / ".key.0123456789abcdef",
    ]

    def write(age):
        for file in (*kept, *left):
            file.write_text("half")
            os.utime(file, (time.time() - age,) * 2)

    write(age=-60)  # an encoder of videos may outlive its process
    run = worldmodel.resume(path, progress=False)
    assert not any(file.exists() for file in left)
    for age in (0, 7200):  # another process may be writing a young one
        write(age)
        evaluate_run(run)
        assert {file.exists() for file in left} == {age == 0}
    assert all(file.exists() for file in kept)


def test_a_run_is_trained_by_one_process_at_a_time(run_path):
    with (
        FileLock(run_path / "training.lock"),
        pytest.raises(RunError, match="another process is training"),
    ):
        worldmodel.resume(run_path, progress=False)


def test_a_file_that_cannot_be_written_leaves_the_previous_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_tensors(path, {"a": torch.zeros(10)})
    before = path.read_bytes()
    with files_limited_to(1000), pytest.raises(OSError, match="File too large"):
        save_tensors(path, {"a": torch.zeros(10_000)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_interrupt_is_recorded_and_the_second_acts_at_once():
    with deferred_interrupt() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with deferred_interrupt() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


def test_files_are_forced_to_the_disk_before_they_replace_others(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("os.fsync", lambda descriptor: calls.append("fsync"))
    monkeypatch.setattr("os.replace", lambda *paths: calls.append("replace"))
    with replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("content")
        assert calls == []
    assert calls == ["fsync", "replace"]
    calls.clear()
    with fill(create(tmp_path / "buffer"), range(2)):
        calls.clear()
    assert calls.count("fsync") == 6  # four files of rows, and the index before and after the mark


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["models/encoder.pth", "models/imagination.pt", "checkpoint.pt"])
def test_no_pickled_object_in_a_tensor_file_is_executed(run_path, tmp_path, name):
    torch.save({"weight": Payload(tmp_path / "executed")}, run_path / name)
    for use in (lambda: worldmodel.load(run_path), lambda: check_path(run_path)):
        with suppress(RunError):
            use()
    with pytest.raises(RunError, match="is damaged and cannot be read"):
        load_tensors(run_path / name, "")
    assert not (tmp_path / "executed").exists()


def test_an_error_names_the_file_that_was_to_be_written(tmp_path):
    path = tmp_path / "missing" / "file.json"
    with pytest.raises(FileNotFoundError) as raised, replacing(path):
        pass
    assert raised.value.filename == str(path)


def test_a_temporary_file_follows_no_link_and_has_no_predictable_name(tmp_path, monkeypatch):
    names = set()
    for _ in range(3):
        with replacing(tmp_path / "file.json") as temporary:
            names.add(temporary.name)
    assert len(names) == 3
    monkeypatch.setattr("secrets.token_hex", lambda n: "0")
    (tmp_path / ".file.0.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError), replacing(tmp_path / "file.json"):
        pytest.fail("a link was taken for a new file")
    assert not (tmp_path / "elsewhere").exists()
