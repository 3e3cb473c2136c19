"""Training on a full disk, and by two processes at once: one line, and the run can be resumed."""

import pytest
import torch
from filelock import FileLock
from full_disk import files_limited_to

import worldmodel
from worldmodel.errors import RunError
from worldmodel.files import save_tensors


def retrain(driven_run, folder):
    """Train like that run, on its data."""
    config = worldmodel.Run(driven_run).config
    return worldmodel.train(config=config.model_copy(update={"output_dir": folder}), progress=False)


def weights(run):
    return {
        path.name: torch.load(path, weights_only=True) for path in run.path.glob("models/*.pth")
    }


@pytest.mark.parametrize("size", [3_000, 20_000, 100_000])
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
