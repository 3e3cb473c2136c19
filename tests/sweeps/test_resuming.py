"""Which trials a repeated sweep runs, and what it shows; with a cluster that only pretends."""

import json
import shutil
from types import SimpleNamespace

import pytest
from tiny_sweep import tiny_sweep
from typer.testing import CliRunner

import worldmodel
from worldmodel.cli import app
from worldmodel.errors import MissingLibraryError, RunError
from worldmodel.run import Run
from worldmodel.sweeps import run_sweep
from worldmodel.sweeps.results import markdown_table
from worldmodel.sweeps.trials import TrialRecord, _timed


class Cluster:
    """Runs each task at once in this process."""

    exceptions = SimpleNamespace(RayError=ConnectionError)
    machines = ({"Alive": True, "Resources": {"CPU": 2.0}},)

    def remote(self, **options):
        self.options = options
        return lambda task: SimpleNamespace(remote=lambda *words: _Result(task(*words)))

    def wait(self, tasks, **_):
        return tasks[:1], tasks[1:]

    def get(self, task):
        return task.value

    def is_initialized(self):
        return True

    def nodes(self):
        return self.machines


class _Result:
    def __init__(self, value):
        self.value = value


@pytest.fixture
def cluster(monkeypatch, driven_run):
    """A cluster whose trials end at once with the metrics of another run."""
    made, metrics = Cluster(), json.loads((driven_run / "metrics.json").read_text())
    made.ran, made.collected, made.failing = [], [], {}

    def collect(job):
        made.collected.append(job.trial.name)

    def run(job, collected):
        made.ran.append(job.trial.name)
        Run.create(job.trial.config, job.path)
        if job.trial.variant in made.failing:
            return made.failing[job.trial.variant]
        (job.path / "checkpoint.pt").touch()
        with _timed(job):
            metrics["collapse"]["effective_rank"] = 3.0 + job.trial.seed
            metrics["data"]["split"] = job.trial.config.evaluation.split
            (job.path / "metrics.json").write_text(json.dumps(metrics))

    monkeypatch.setattr(run_sweep, "require", lambda *_: made)
    monkeypatch.setattr(run_sweep, "collect_data", collect)
    monkeypatch.setattr(run_sweep, "run_trial", run)
    return made


def sweep(folder, **changes):
    content = tiny_sweep(folder, **{"variants": {"a": {}, "b": {"model.width": 8}}, **changes})
    return worldmodel.sweep(content, output_dir=folder / "out", progress=False)


def test_a_repeated_sweep_trains_only_what_is_new_failed_or_unfinished(cluster, tmp_path):
    cluster.failing = {"b": ValueError("of the test")}
    first = sweep(tmp_path)
    assert cluster.ran == ["a_seed0", "b_seed0", "a_seed1", "b_seed1"]
    assert first.failures == {"b_seed0": "of the test", "b_seed1": "of the test"}
    cluster.failing, cluster.ran = {}, []
    assert sweep(tmp_path).failures == {}
    assert cluster.ran == ["b_seed0", "b_seed1"]
    cluster.ran = []
    again = sweep(tmp_path, variants={"a": {}, "b": {"model.width": 8}, "c": {"model.width": 12}})
    assert cluster.ran == ["c_seed0", "c_seed1"]
    assert [row.seeds for row in again.rows] == [2, 2, 2]
    cluster.ran = []
    record = json.loads((tmp_path / "out" / "a_seed1" / "trial.json").read_text())
    record["evaluated_on"] = None  # killed in its evaluation
    (tmp_path / "out" / "a_seed1" / "trial.json").write_text(json.dumps(record))
    sweep(tmp_path)
    assert cluster.ran == ["a_seed1"]


def test_trained_trials_with_other_settings_are_refused_all_at_once(cluster, tmp_path):
    sweep(tmp_path)
    cluster.ran = []
    base = {"phase1.learning_rate": 0.25}
    with pytest.raises(RunError) as error:
        sweep(tmp_path, variants={"a": {"model.width": 16}, "b": {"model.width": 8, **base}})
    for text in ("a_seed0 (model.width was 4, is 16)", "b_seed1 (phase1.learning_rate was 0.005"):
        assert text in str(error.value)
    assert cluster.ran == []
    sweep(tmp_path, resources={"cpus": 2}, variants={"a": {"device": "cpu"}})
    assert cluster.ran == []
    shutil.rmtree(tmp_path / "out" / "a_seed0")
    (tmp_path / "out" / "a_seed1" / "checkpoint.pt").unlink()
    (tmp_path / "out" / "a_seed1" / "metrics.json").unlink()  # nothing was trained with these
    sweep(tmp_path, variants={"a": {"model.width": 16}})
    assert cluster.ran == ["a_seed0", "a_seed1"]


def test_other_episodes_are_evaluated_without_another_training(cluster, tmp_path):
    sweep(tmp_path)
    cluster.ran = []
    result = sweep(tmp_path, evaluate_on="heldout", seeds=[0])
    assert cluster.ran == ["a_seed0", "b_seed0"]
    assert "held-out episodes" in markdown_table(result)


def test_data_is_collected_once_for_all_trials_that_share_it(cluster, tmp_path):
    sweep(tmp_path, grid={"data.size": [16, 24]})
    assert cluster.collected == ["a-data.size=16_seed0", "a-data.size=24_seed0"]


def test_resources_are_reserved_and_must_exist(cluster, tmp_path):
    sweep(tmp_path, resources={"cpus": 2})
    assert cluster.options["num_cpus"] == 2
    with pytest.raises(ValueError, match="a trial needs 3 CPUs and 0 GPUs on one machine"):
        sweep(tmp_path, variants={"new": {}}, resources={"cpus": 3})
    with pytest.raises(ValueError, match="have 2 CPUs and 0 GPUs; lower resources"):
        sweep(tmp_path, variants={"new": {}}, resources={"gpus": 0.5})


def test_the_command_writes_the_results_and_lists_failures(cluster, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(tiny_sweep(tmp_path, variants={"a|b": {}, "bad": {}})))
    cluster.failing = {"bad": ValueError("of the\ntest")}
    words = ["sweep", str(file), "--output-dir", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 1
    content = json.loads(done.stdout)
    assert content == json.loads((tmp_path / "out" / "results.json").read_text())
    rank = content["variants"][0]["metrics"]["collapse.effective_rank"]
    assert rank == {"mean": 3.5, "std": 0.5, "min": 3.0, "max": 4.0, "seeds": 2}
    assert content["variants"][1]["metrics"]["collapse.effective_rank"] is None
    assert [trial["status"] for trial in content["trials"]] == ["finished", "failed"] * 2
    assert done.stderr.splitlines()[-2:] == [
        "Error: bad_seed0: of the test",
        "Error: bad_seed1: of the test",
    ]
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert table[0].endswith("| linear R² | effective rank | seeds | minutes |")
    assert table[2].startswith("| a\\|b | ")
    assert "| 3.50 ± 0.50 | 2 | 0.0 |" in table[2]
    assert table[3].endswith("| – | – | 0 | – |")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Comparison of 2 runs" in page
    assert "over validation episodes" in page
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 5000
    assert "a|b" in CliRunner().invoke(app, words).stdout


def test_metrics_can_be_chosen(cluster, tmp_path):
    result = sweep(tmp_path, metrics=["forecast.latent.error.10", "collapse.std.per_dimension.0"])
    header = markdown_table(result).splitlines()[0]
    assert "| latent error at k = 10 | collapse.std.per_dimension.0 |" in header
    assert result.rows[0].metrics["collapse.std.per_dimension.0"].mean > 0


def test_minutes_of_all_attempts_are_added(cluster, tmp_path):
    sweep(tmp_path)
    path = tmp_path / "out" / "a_seed0" / "trial.json"
    record = TrialRecord(**json.loads(path.read_text()))
    assert 0 < record.seconds < 60
    path.write_text(json.dumps({**vars(record), "seconds": 600.0, "evaluated_on": None}))
    assert sweep(tmp_path).trials[0].minutes == pytest.approx(10, abs=1)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr("worldmodel.extras.is_installed", lambda name: name == "pip")
    with pytest.raises(MissingLibraryError, match=r'ray is not installed.*pip install "ray>='):
        sweep(tmp_path)
