"""`worldmodel train` from end to end: what it leaves, how it stops, resumes and refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from typer.testing import CliRunner

import worldmodel
from worldmodel import training
from worldmodel.cli import app
from worldmodel.run import Run

TINY = [
    *("--preset", "smoke", "--size", "32", "--image-size", "16", "--batch-size", "16"),
    *("--set", "model={latent_dim: 8, width: 4, hidden: 32}", "--set", "data.heldout_size=16"),
    *(
        "--set",
        "evaluation={resamples: 100, steps: 21, probe: {updates: 50, baseline_observations: 500}}",
    ),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def train(*arguments):
    result = invoke("train", *TINY, *arguments, "--json")
    assert result.exit_code == 0, result.output
    (run,) = sorted(os.scandir("results"), key=lambda entry: entry.stat().st_mtime)[-1:]
    return Run(run.path), json.loads(result.stdout)


def weights(run):
    paths = (run.path / "models").glob("*.pth")
    return {path.name: torch.load(path, weights_only=True) for path in paths}


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    for name, state in left.items():
        for key, value in state.items():
            assert torch.equal(value, right[name][key]), f"{name}: {key}"


@contextmanager
def stopping_after(updates, monkeypatch):
    """The user presses Ctrl-C during update number `updates`."""

    class Request:
        checks = 0

        @property
        def requested(self):
            type(self).checks += 1
            return self.checks > updates

    @contextmanager
    def request():
        yield Request()

    with monkeypatch.context() as patch:
        patch.setattr(training, "deferred_interrupt", request)
        yield


def test_a_run_leaves_model_evidence_and_environment():
    run, metrics = train()
    made = {path.name for path in run.path.iterdir()}
    assert made >= {
        "config.yaml",
        "checkpoint.pt",
        "metrics.json",
        "report.html",
        "forecast.mp4",
        "forecast.png",
        "reconstruction.png",
        "tensorboard",
    }
    assert not [name for name in made if name.startswith(".")]
    assert metrics == json.loads((run.path / "metrics.json").read_text())
    assert metrics["data"]["heldout_seeds"][0] == 20_000
    wm = worldmodel.load(run.path)
    assert wm.encode(torch.zeros(2, 16, 16, 6, dtype=torch.uint8)).shape == (2, 8)
    env = gym.make("worldmodel/Latent-v0", run=run.path)
    assert env.reset(seed=0)[0].shape == (8,)
    dreams = gym.make_vec("worldmodel/Latent-v0", num_envs=5, run=run.path)
    assert dreams.reset(seed=0)[0].shape == (5, 8)
    again = invoke("evaluate", run.path, "--reference", 0, "--json")
    assert json.loads(again.stdout) == metrics


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped, and its metrics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        run, metrics = train()
        return Run(run.path.absolute()), metrics


@pytest.mark.parametrize("updates", [2, 12])
def test_a_stopped_run_resumes_as_if_never_stopped(whole, monkeypatch, updates):
    run, metrics = whole
    with stopping_after(updates, monkeypatch):
        stopped = invoke("train", *TINY, "--output-dir", "stopped")
    assert stopped.exit_code == 1
    (folder,) = os.scandir("stopped")
    assert f"worldmodel train --resume {folder.path}" in stopped.stderr
    assert not (Path(folder.path) / "models" / "decoder.pth").exists()
    resumed = invoke("train", "--resume", folder.path, "--json")
    assert resumed.exit_code == 0, resumed.output
    assert_same_weights(weights(run), weights(Run(folder.path)))
    again = json.loads(resumed.stdout)
    assert again.pop("run") != metrics["run"]
    assert again == {key: value for key, value in metrics.items() if key != "run"}


def test_several_runs_are_compared_in_one_report(driven_run):
    left, right = (Run(shutil.copytree(driven_run, Path(name))) for name in ("left", "right"))
    result = invoke("evaluate", left.path, right.path, "--reference", 0, "--json")
    assert result.exit_code == 0, result.output
    runs = json.loads(result.stdout)["runs"]
    assert [run["run"]["name"] for run in runs] == ["left", "right"]
    assert runs == [json.loads((r.path / "metrics.json").read_text()) for r in (left, right)]
    page = Path("comparison.html").read_text()
    assert left.path.name in page
    assert right.path.name in page
    twice = invoke("evaluate", left.path, left.path)
    assert twice.exit_code == 2
    assert "named twice" in twice.stderr
    nowhere = invoke("evaluate", left.path, right.path, "--output", "none/of/it.html")
    assert nowhere.exit_code == 2
    assert "cannot write" in nowhere.stderr
    alone = invoke("evaluate", left.path, "--output", "alone.html")
    assert alone.exit_code == 2
    assert "several runs" in alone.stderr


def test_a_stop_before_the_first_checkpoint_says_that_nothing_was_saved(monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit_horizon", stop)
    result = invoke("train", *TINY)
    assert result.exit_code == 1
    assert "Stopped before the first checkpoint. Resume with" in result.stderr


def test_an_unfinished_run_says_how_to_finish_it(monkeypatch):
    with stopping_after(2, monkeypatch):
        invoke("train", *TINY)
    (run,) = os.scandir("results")
    result = invoke("evaluate", run.path)
    assert result.exit_code == 1
    assert "--resume" in result.stderr


def test_coordinates_train_without_a_decoder():
    run, metrics = train("--mode", "pendulum")
    assert not (run.path / "models" / "decoder.pth").exists()
    assert not (run.path / "forecast.mp4").exists()
    assert metrics["forecast"]["angle"]["error"]["0"] < 1.6


def test_another_environment_trains_through_its_rendering():
    run, metrics = train("--env", "CartPole-v1")
    assert metrics["run"]["policy"] == "random"
    page = re.sub(r"<[^>]+>", "", (run.path / "report.html").read_text())
    assert "Environment CartPole-v1, policy random, objective inverse" in page
    assert metrics["probes"] is None
    assert "state" in metrics["reasons"]["probes"]
    assert (run.path / "forecast.mp4").exists()
    assert (run.path / "models" / "spec.json").read_text().count('"discrete"') == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_real_interrupt_saves_and_says_how_to_resume(tmp_path, sent):
    command = [sys.executable, "-m", "worldmodel", "train", *TINY, "--set", "phase1.epochs=5000"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    for line in process.stderr:
        if line.startswith("phase 1"):
            break
    time.sleep(0.2)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Resume with: worldmodel train --resume results/" in stderr
    assert "Traceback" not in stderr
    (run,) = (tmp_path / "results").iterdir()
    assert Run(run).load_checkpoint()["phase"] == "phase 1"


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["--mode", "nonsense"], 2, "'pendulum_image' or 'pendulum', got 'nonsense'"),
        (["--image-size", "33"], 2, "multiple of 16, got 33"),
        (["--set", "phase1.epoch=3"], 2, "unknown key 'phase1.epoch'"),
        (["--set", "phase1"], 2, "write key=value"),
        (["--env", "NoSuchEnv-v0"], 2, "NoSuchEnv"),
        (["--env", "CartPole-v1", "--policy", "passive"], 2, "use policy 'random'"),
        (["--env", "FrozenLake-v1", "--observation", "vector"], 2, "vector"),
        (["--preset", "fast"], 2, "unknown preset 'fast'"),
        (["--config", "missing.yaml"], 2, "missing.yaml"),
        (["--device", "cuda:77"], 2, "cuda:77"),
        (["--set", "model.encoder=vit"], 2, "unknown encoder 'vit'"),
        (["--set", "model.encoder=no.such:Encoder"], 2, "cannot load the encoder"),
        (["--policy", "nowhere.zip"], 2, "nowhere.zip"),
        (["--set", "env.kwargs.foo=3"], 2, "unexpected keyword argument 'foo'"),
        (["--set", "data.dir=file"], 1, "file is a file"),
        (["--size", "1000000000"], 1, "no space"),
        (["--preset", "smoke", "--output-dir", "file/results"], 1, "--output-dir"),
        (["--resume", "nowhere"], 1, "nowhere is not a run directory"),
        (["--resume", "nowhere", "--epochs", "3"], 2, "give it alone"),
    ],
)
def test_a_mistake_ends_in_one_clear_line(tmp_path, arguments, status, complaint):
    (tmp_path / "file").write_text("not a folder")
    result = invoke("train", *arguments)
    lines = result.stderr.splitlines()
    assert result.exit_code == status, result.output
    assert len(lines) == 1
    assert complaint in lines[0]
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_damaged_run_is_named(whole):
    run = Run(shutil.copytree(whole[0].path, "run"))
    (run.path / "models" / "encoder.pth").write_bytes(b"PK broken")
    result = invoke("evaluate", run.path)
    assert result.exit_code == 1
    assert "encoder.pth is damaged" in result.stderr


def test_damaged_data_is_named_before_a_run_is_made(whole, tmp_path):
    shutil.copytree(whole[0].path.parents[1] / "data", "data")
    for frames in (tmp_path / "data").glob("*/frames.bin"):
        os.truncate(frames, 1000)
    result = invoke("train", *TINY, "--output-dir", "second")
    assert result.exit_code == 1
    assert "frames.bin is truncated" in result.stderr
    assert not (tmp_path / "second").exists()


def test_collecting_twice_goes_on_with_the_next_seeds():
    arguments = ("collect", "mine", "--size", 3, "--steps", 4, "--image-size", 16, "--json")
    first, second = (json.loads(invoke(*arguments).stdout) for _ in range(2))
    assert (first["episodes"], first["seeds"]) == (3, [0, 2])
    assert (second["episodes"], second["seeds"]) == (6, [0, 5])
    assert json.loads(invoke("info", "mine", "--json").stdout) == second


def test_collecting_where_it_cannot_be_done_changes_nothing(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for arguments, complaint in (
        (("new", "--steps", 10_000_000), "no space for 10000 episodes"),
        (("mine", "--size", 2), "mine is not empty"),
    ):
        result = invoke("collect", *arguments)
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert complaint in result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_a_checkout_that_is_not_installed_finds_its_environments():
    root = Path(worldmodel.__file__).parent.parent
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]; "
        "import gymnasium, worldmodel; gymnasium.make('DoublePendulum-v0').reset()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_the_original_command_line_means_what_it_says(monkeypatch):
    configs = []

    def record(config):
        configs.append(config)
        raise ValueError("recorded")

    monkeypatch.setattr(training, "train", record)
    line = (
        "train --mode pendulum_image --epochs 50 --decoder_epochs 100 --batch_size 128 "
        "--image_size 64"
    )
    invoke(*line.split())
    (config,) = configs
    assert (config.env.id, config.observation) == ("DoublePendulumPixels-v0", "pixels")
    assert (config.data.size, config.image_size) == (10_000, 64)
    assert (config.phase1.epochs, config.phase1.batch_size) == (50, 128)
    assert (config.phase2.epochs, config.phase2.batch_size) == (100, 128)


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, worldmodel.cli; "
        "print([m for m in ('torch', 'numba', 'pygame', 'matplotlib', 'ray') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout.strip() == "[]"
