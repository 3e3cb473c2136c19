"""Two processes train like one: the same losses, one run directory, resumable by any number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import tiny_buffer, tiny_config

import worldmodel
from worldmodel import distributed
from worldmodel.config import dump
from worldmodel.errors import ConfigError, RunError

SCRIPT = Path(__file__).with_name("in_processes.py")


def execute(*words, processes=1, status=0):
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launcher, str(SCRIPT), *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr
    return done.stderr


@pytest.mark.parametrize("objective", ["inverse", pytest.param("sigreg", marks=pytest.mark.slow)])
def test_two_processes_have_the_losses_of_one_in_every_phase(tmp_path, objective):
    tiny_buffer(tmp_path / "buffer", tiny_config()).close()
    execute("losses", tmp_path / "buffer", tmp_path / "one", objective)
    execute("losses", tmp_path / "buffer", tmp_path / "two", objective, processes=2)
    one, _ = json.loads((tmp_path / "one.0").read_text())
    first, second = (json.loads((tmp_path / f"two.{rank}").read_text()) for rank in (0, 1))
    assert first == second  # also the weights
    assert first[0] == pytest.approx(one, rel=1e-5, abs=1e-5)
    assert len(one) >= 4 * 50


@pytest.mark.slow
def test_a_run_of_two_processes_stops_in_both_and_is_continued_by_one(driven_run, tmp_path):
    config = worldmodel.Run(driven_run).config.model_dump(mode="json")
    rate = {"optimizer": "adamw", "learning_rate": 1e-3}
    for section in ("phase1", "refinement", "phase2"):
        config[section] |= rate
    config["output_dir"] = str(tmp_path / "runs")
    whole = worldmodel.train(config=worldmodel.config.validate(config), progress=False)
    config["output_dir"] = str(tmp_path / "two")
    (tmp_path / "config.yaml").write_text(dump(worldmodel.config.validate(config)))
    execute("stopped", tmp_path / "config.yaml", tmp_path / "said", processes=2)
    (path,) = (tmp_path / "two").iterdir()
    assert (tmp_path / "said.0").read_text().startswith("Stopped and saved. Resume with: ")
    assert (tmp_path / "said.1").exists()
    assert len(list((path / "tensorboard").iterdir())) == 1
    checkpoint = torch.load(path / "checkpoint.pt", weights_only=True)
    assert (checkpoint["phase"], checkpoint["trainer"]["step"]) == ("phase 1", 5)
    run = worldmodel.resume(path, progress=False)
    assert run.finished
    for name in ("encoder", "predictor", "decoder"):
        expected = torch.load(whole.weights_path(name), weights_only=True)
        found = torch.load(run.weights_path(name), weights_only=True)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_write_one_finished_run(driven_run, tmp_path):
    config = worldmodel.Run(driven_run).config.model_dump(mode="json")
    config["output_dir"] = str(tmp_path / "two")
    (tmp_path / "config.yaml").write_text(dump(worldmodel.config.validate(config)))
    execute("finished", tmp_path / "config.yaml", tmp_path / "said", processes=2)
    (path,) = (tmp_path / "two").iterdir()
    assert {(tmp_path / f"said.{rank}").read_text() for rank in (0, 1)} == {str(path)}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others_with_an_error(driven_run, tmp_path, rank):
    config = worldmodel.Run(driven_run).config.model_dump(mode="json")
    config["output_dir"] = str(tmp_path / "two")
    (tmp_path / "config.yaml").write_text(dump(worldmodel.config.validate(config)))
    execute("killed", tmp_path / "config.yaml", tmp_path / "said", rank, processes=2, status=1)
    assert not (tmp_path / f"said.{rank}").exists()
    said = (tmp_path / f"said.{1 - rank}").read_text()
    assert "a process of this training ended, or cannot be reached" in said
    assert "resume with: " in said


@pytest.mark.slow
def test_a_mistake_is_reported_once(tmp_path):
    (tmp_path / "config.yaml").write_text("env: {id: NoSuchEnv-v0}")
    said = execute("command", "train", "--config", tmp_path / "config.yaml", processes=2, status=1)
    assert said.count("NoSuchEnv") == 1


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "process_count", lambda: 3)
    distributed.require_divisible({"phase1.batch_size": 129})
    with pytest.raises(ConfigError, match=r"phase1\.batch_size is 128, and 3 processes .*of 3"):
        distributed.require_divisible({"phase1.batch_size": 128})


def test_resuming_with_a_number_of_processes_that_does_not_fit_is_refused(driven_run, monkeypatch):
    monkeypatch.setattr(distributed, "process_count", lambda: 3)
    with pytest.raises(ConfigError, match="3 processes share each batch"):
        worldmodel.resume(driven_run, progress=False)


def test_a_process_without_its_launcher_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(RunError, match=r"cannot join the 2 processes .*torchrun"),
        distributed.process_group(),
    ):
        pass
