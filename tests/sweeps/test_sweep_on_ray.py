"""Sweeps on a local cluster of two workers, one of which is killed: the results are the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from killing import MARK
from tiny_sweep import tiny_sweep
from typer.testing import CliRunner

import worldmodel
from worldmodel.cli import app
from worldmodel.sweeps import read_sweep

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def python_path():
    return os.pathsep.join(
        [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers, which see the modules of the tests; returns the mark of the killed one."""
    ray = pytest.importorskip("ray")
    mark = tmp_path_factory.mktemp("ray") / "killed"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": python_path(), MARK: str(mark)}},
    )
    yield mark
    ray.shutdown()


VARIANTS = {
    "plain": {},
    "killed": {"model.decoder": "killing:KilledOnce"},
    "failing": {"model.decoder": "killing:Failing"},
}


@pytest.fixture(scope="module")
def swept(cluster, tmp_path_factory):
    """A sweep in which a worker is killed in phase 2 of a trial; returns its folder and results."""
    folder = tmp_path_factory.mktemp("swept")
    content = tiny_sweep(folder, variants=VARIANTS)
    return folder, worldmodel.sweep(content, output_dir=folder / "out", progress=False)


def weights(path):
    return {file.name: torch.load(file, weights_only=True) for file in path.glob("models/*.pth")}


def require_same_weights(left, right):
    left, right = weights(left), weights(right)
    assert left.keys() == right.keys()
    assert left
    for name, state in left.items():
        assert all(torch.equal(value, right[name][key]) for key, value in state.items()), name


def test_the_trial_of_a_killed_worker_resumes_and_its_result_is_the_same(cluster, swept):
    folder, result = swept
    out = folder / "out"
    assert cluster.exists()
    logs = [(out / f"killed_seed{k}" / "trial.log").read_text() for k in (0, 1)]
    assert sorted(log.count("Run directory: ") for log in logs) == [1, 2]
    assert [log.count("phase 1: 8/8") for log in logs] == [1, 1]
    assert [log.count("refinement: 20/20") for log in logs] == [1, 1]
    for seed in (0, 1):
        require_same_weights(out / f"killed_seed{seed}", out / f"plain_seed{seed}")
    plain, killed, failing = result.rows
    assert plain.metrics == killed.metrics
    assert (plain.seeds, killed.seeds, failing.seeds) == (2, 2, 0)


def test_trials_are_the_trainings_of_one_process(swept):
    folder, _ = swept
    plan = read_sweep(tiny_sweep(folder, variants=VARIANTS, seeds=[1]), folder / "serial")
    config = plan.trials[0].config
    torch.set_num_threads(1)
    run = worldmodel.train(config=config, progress=False)
    trial = worldmodel.Run(folder / "out" / "plain_seed1")
    require_same_weights(run.path, trial.path)
    assert run.metrics.forecast == trial.metrics.forecast
    assert trial.metrics.data.heldout_seeds == (10_000, 10_007)


def test_a_trial_that_fails_does_not_stop_the_others(swept):
    folder, result = swept
    text = "RuntimeError: the decoder of the test fails"
    assert result.failures == {f"failing_seed{k}": text for k in (0, 1)}
    log = (folder / "out" / "failing_seed0" / "trial.log").read_text()
    assert 'killing.py", line' in log
    assert text in log


def test_data_is_collected_once(swept):
    folder, _ = swept
    collected = [path for path in (folder / "data").iterdir() if path.is_dir()]
    assert len(collected) == 2  # to train on, and to monitor the training with
    for log in (folder / "out").glob("*/trial.log"):
        assert "Collecting" not in log.read_text()
        assert "waiting" not in log.read_text()


def test_the_repeated_command_tries_only_failed_trials_again(swept):
    folder, result = swept
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(tiny_sweep(folder, variants=VARIANTS), sort_keys=False))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("out/[pk]*/*")}
    words = ["sweep", str(file), "--output-dir", str(folder / "out"), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert json.loads(done.stdout)["variants"] == result.to_dict()["variants"]
    assert "Error: failing_seed1: RuntimeError: the decoder of the test fails" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.glob("out/[pk]*/*")} == before
    for name in ("sweep.yaml", "results.json", "table.md", "sweep.png", "report.html"):
        assert (folder / "out" / name).stat().st_size > 100


def test_ctrl_c_saves_checkpoints_and_the_command_resumes(tmp_path):
    content = tiny_sweep(tmp_path, seeds=[0])
    content["base"] |= {"phase1.updates": 500, "model.predictor": "killing:Slow"}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(content))
    words = [sys.executable, "-m", "worldmodel", "sweep", "long.yaml", "--workers", "2", "--json"]
    log = tmp_path / "results" / "long" / "base_seed0" / "trial.log"
    mark = tmp_path / "fast"

    def run(*, stopped):
        """Return exit status, stdout and stderr; Ctrl-C is pressed in phase 1 if asked."""
        process = subprocess.Popen(
            words,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": python_path(), MARK: str(mark)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            while stopped and process.poll() is None:
                if log.exists() and "phase 1: " in log.read_text():
                    os.killpg(process.pid, signal.SIGINT)
                    break
                time.sleep(0.2)
            return process.wait(timeout=600), process.stdout.read(), process.stderr.read()
        finally:
            process.kill()

    status, out, error = run(stopped=True)
    assert status == 1
    assert out == ""
    last = "Stopped; 0 of 1 trials are finished. Resume with the same command"
    assert error.splitlines()[-1] == last
    first = torch.load(log.with_name("checkpoint.pt"), weights_only=True)
    assert first["phase"] == "phase 1"
    mark.touch()
    status, out, error = run(stopped=False)
    assert status == 0, error
    assert json.loads(out)["trials"][0]["status"] == "finished"
    assert "phase 1: 1/500" not in log.read_text()
