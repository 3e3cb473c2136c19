"""The command `worldmodel rl`."""

import json

import pytest
from typer.testing import CliRunner

from worldmodel.cli import app

SMALL = ["--steps", 256, "--envs", 4]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("worldmodel.rl.tuned._PPO_ROLLOUT", 256)


def invoke(*arguments):
    return CliRunner().invoke(app, ["rl", *(str(a) for a in arguments)])


def test_json_gives_the_results_and_the_terminal_a_summary(run_path):
    result = invoke(run_path, "--on", "state", *SMALL, "--json")
    assert result.exit_code == 0, result.output
    results = json.loads(result.stdout)
    folder = run_path / "rl" / "state_ppo_256_seed0_num_envs4"
    assert json.loads((folder / "results.json").read_text()) == results
    result = invoke(run_path, "--on", "state", *SMALL)
    assert result.exit_code == 0
    assert "return: " in result.output
    assert len(result.stdout.splitlines()) < 15


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--on", "dreams"], "'state'"),
        (["--algo", "reinforce"], "'td3'"),
        (["--algo", "dqn"], "needs discrete actions"),
        (["--on", "state", "--rounds", 2], "in the dream"),
        (["--on", "latent", "--dream-steps", 9], "in the dream"),
        (["--ensemble", 1], "2 and more"),
        (["--penalty", 0.1], "ensemble.size is 0"),
    ],
)
def test_a_mistake_is_reported_in_a_line(run_path, arguments, words):
    result = invoke(run_path, *arguments, *SMALL)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert isinstance(result.exception, SystemExit)
    assert not (run_path / "rl").exists()


def test_a_misspelt_command_is_not_a_run(run_path, tmp_path, monkeypatch):
    result = invoke("comprae", run_path)
    assert result.exit_code == 2
    assert "Did you mean 'compare'" in result.output
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comprae").mkdir()
    assert "comprae is not a run directory" in " ".join(invoke("comprae").output.split())
    (tmp_path / "compare").mkdir()
    assert "rl compare [OPTIONS]" in invoke("compare").output


def test_no_run_is_reported_in_a_line(tmp_path):
    result = invoke(tmp_path / "nothing")
    assert result.exit_code == 1
    assert "is not a run directory" in result.output


def test_the_help_of_rl_lists_train_and_compare():
    result = invoke("--help")
    assert "train" in result.output
    assert "compare" in result.output


def test_compare_trains_every_view(run_path):
    result = invoke("compare", run_path, "--steps", 256, "--seeds", 1, "--no-pixels", "--json")
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)["views"]) == ["state", "latent", "dream"]


def test_settings_are_tuned_from_the_command_line(run_path):
    short = ["--steps", 256, "--set", "agent.eval_episodes=2", "--set", "agent.max_eval_steps=20"]
    command = ["tune", run_path, *short, "--grid", "dream_steps=5,9", "--seeds", 2]
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert "2 validation episodes, 2 seeds" in result.stdout
    assert "Best: --set agent.dream_steps=" in " ".join(result.stdout.split())
    ranking = json.loads(invoke(*command, "--json").stdout)["ranking"]
    assert sorted(row["settings"]["dream_steps"] for row in ranking) == [5, 9]
    result = invoke("tune", run_path, "--grid", "dream_stepz=5")
    assert result.exit_code == 2
    assert "did you mean 'agent.dream_steps'?" in " ".join(result.output.split())


def test_a_misspelt_run_is_answered_with_the_run_that_has_nearly_this_name(tmp_path):
    for name in ("CartPole-v1_1", "newest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()

    def answer(name):
        return "".join(invoke(tmp_path / name).output.split())

    assert "itdoesnotexist;give" in answer("CartPole-v1_2")
    assert f"suchas{tmp_path}/CartPole-v1_1" in answer("CartPole-v1_2")
    assert f"suchas{tmp_path}/newest" in answer("xyz")
    assert "ithasnoconfig.yaml;give" in answer(".")
