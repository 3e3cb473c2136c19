"""Agents of Stable-Baselines3 on every view, judged in the real environment."""

import json
from contextlib import closing

import gymnasium as gym
import imageio.v3
import numpy as np
import pytest
import tiny_env  # noqa: F401 (registers Tiny-v0)
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO, SAC
from typer.testing import CliRunner

import worldmodel
from cli import app
from worldmodel.config import build_config
from worldmodel.imagination import LatentObservation, load_dream
from worldmodel.rl import algorithms
from worldmodel.rl import judge as judge_module
from worldmodel.rl import train as train_module
from worldmodel.rl.algorithms import check_algorithm
from worldmodel.rl.judge import heldout_seeds, judge, validation_seeds
from worldmodel.rl.learning import Watch
from worldmodel.rl.worlds import Worlds, open_worlds, state_envs


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(algorithms, "_ROLLOUT", 256)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def taught(*arguments):
    result = invoke("rl", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


SMALL = ["--steps", 256, "--envs", 4]


@pytest.mark.parametrize(("on", "real"), [("latent", True), ("dream", False), ("state", True)])
def test_an_agent_is_trained_judged_filmed_and_saved(run, on, real):
    results = taught(run, "--on", on, *SMALL)
    assert results["steps"] >= 256
    assert results["real_steps"] == (results["steps"] if real else 0)
    assert results["model_steps"] == (0 if on == "state" else 32 * 16)
    assert results["real"]["steps"] == [200] * 20
    assert np.isfinite(results["real"]["returns"]).all()
    assert results["curve"][-1]["steps"] == results["steps"]
    assert results["curve"][-1]["seconds"] == results["seconds"] > 0
    folder = run / "rl" / f"{on}_ppo_256_seed0_envs4"
    assert json.loads((folder / "results.json").read_text()) == results
    assert len(imageio.v3.imread(folder / "agent.mp4")) == 201
    assert list((folder / "tensorboard").rglob("events*"))


def test_the_return_is_what_the_saved_agent_earns_in_the_environment_itself(run):
    results = taught(run, "--on", "latent", *SMALL)
    agent = PPO.load(results["agent"])
    wm = worldmodel.load(run)
    env = LatentObservation(worldmodel.make_env(run), wm, load_dream(run, wm)["domain"])
    for i in (0, 7):
        observation, _ = env.reset(seed=20_000 + i)
        total, ended = 0.0, False
        while not ended:
            action, _ = agent.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, ended = total + reward, terminated or truncated
        assert results["real"]["returns"][i] == pytest.approx(total, abs=0.05)


def test_equal_lessons_give_equal_agents_and_other_seeds_others(run):
    first = taught(run, "--on", "dream", *SMALL)
    again = taught(run, "--on", "dream", *SMALL)
    other = taught(run, "--on", "dream", *SMALL, "--seed", 1)
    assert first["real"] == again["real"]
    folder = run / "rl" / "dream_ppo_256_seed0_envs4"
    assert len(list((folder / "tensorboard").rglob("events*"))) == 1
    assert first["real"] != other["real"]


def test_a_stopped_training_leaves_what_was_finished_before(run, monkeypatch):
    finished = taught(run, "--on", "dream", *SMALL)
    folder = run / "rl" / "dream_ppo_256_seed0_envs4"
    before = (folder / "agent.zip").read_bytes()

    def stopped(self):
        self.stop.asked = True
        return False

    monkeypatch.setattr(Watch, "_on_step", stopped)
    result = invoke("rl", run, "--on", "dream", *SMALL)
    assert result.exit_code == 1
    assert "unfinished.zip" in result.output
    assert PPO.load(folder / "unfinished.zip").num_timesteps < 256
    assert (folder / "agent.zip").read_bytes() == before
    assert json.loads((folder / "results.json").read_text()) == finished


def test_dreams_are_as_long_as_asked(run, monkeypatch):
    save, lengths = train_module.save_agent, []

    def spied(agent, path):
        lengths.extend(episode["l"] for episode in agent.ep_info_buffer)
        save(agent, path)

    monkeypatch.setattr(train_module, "save_agent", spied)
    taught(run, "--on", "dream", *SMALL, "--dream-steps", 7)
    assert max(lengths) == 7


def test_dreaming_takes_no_real_step(run, monkeypatch):
    real, made = Worlds.real, []

    def counted(self, num_envs, render_mode=None):
        made.append(num_envs)
        return real(self, num_envs, render_mode)

    monkeypatch.setattr(Worlds, "real", counted)
    taught(run, "--on", "dream", "--steps", 256, "--envs", 7)
    assert 7 not in made
    taught(run, "--on", "latent", "--steps", 256, "--envs", 7)
    assert 7 in made


def test_the_models_steps_are_those_that_were_really_taken(run):
    metrics = run / "metrics.json"
    told = json.loads(metrics.read_text())
    told["data"]["train_steps"] = 77
    metrics.write_text(json.dumps(told))
    assert open_worlds(run, "latent").model_steps == 77
    assert open_worlds(run, "state").model_steps == 0
    metrics.unlink()
    assert open_worlds(run, "dream").model_steps == 32 * 16


def test_sac_learns_on_latents(run):
    results = taught(run, "--on", "latent", "--algo", "sac", "--steps", 120, "--envs", 2)
    assert isinstance(SAC.load(results["agent"]), SAC)


def test_judging_seeds_are_apart_from_those_that_choose():
    assert heldout_seeds()[0] == 20_000
    assert validation_seeds()[-1] < 20_000
    assert len(heldout_seeds()) == len(validation_seeds()) == 20


class Still:
    def predict(self, observation, *, deterministic):
        return np.zeros((len(observation), 2), np.float32), None


def test_an_episode_counts_until_its_own_end():
    makers = [lambda: gym.make("Tiny-v0", length=(2, 6), terminates=True, observation="vector")] * 8
    envs = gym.vector.SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    judged = judge(Still(), envs, range(8))
    lengths = judged["steps"]
    assert len(set(lengths)) > 1
    assert judged["returns"] == [n * (n + 1) / 2 for n in lengths]
    assert judged["reward_a_step"] == pytest.approx(sum(judged["returns"]) / sum(lengths))
    for seed, length in enumerate(lengths):
        env = gym.make("Tiny-v0", length=(2, 6), terminates=True, observation="vector")
        env.reset(seed=seed)
        assert env.unwrapped._last == length


def test_an_episode_without_end_is_cut(monkeypatch):
    monkeypatch.setattr(judge_module, "LONGEST", 7)
    makers = [lambda: gym.make("Tiny-v0", length=(50, 60), observation="vector")] * 2
    envs = gym.vector.SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    assert judge(Still(), envs, range(2))["steps"] == [7, 7]


def test_the_state_of_an_environment_of_another_module():
    config = build_config(
        {"mode": "pendulum", "env": {"id": "gymnasium.envs.classic_control:CartPole-v1"}}
    )
    with closing(state_envs(config, 2)) as envs:
        assert envs.reset(seed=0)[0].shape == (2, 4)


@pytest.mark.parametrize("step", ["judge", "film"])
def test_a_stop_after_training_loses_nothing(run, monkeypatch, step):
    finished = taught(run, "--on", "state", *SMALL)
    folder = run / "rl" / "state_ppo_256_seed0_envs4"
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def stopped(*arguments):
        if step == "film" or arguments[2] == heldout_seeds():
            raise KeyboardInterrupt
        return judge(*arguments)

    monkeypatch.setattr(train_module, step, stopped)
    result = invoke("rl", run, "--on", "state", *SMALL)
    assert result.exit_code == 1
    assert "unfinished.zip. It was not judged" in " ".join(result.output.split())
    for name, content in kept.items():
        assert (folder / name).read_bytes() == content
    assert PPO.load(folder / "unfinished.zip").num_timesteps == finished["steps"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--on", "dreams"], "expected one of state, latent, dream, pixels"),
        (["--on", "pixels"], "needs 36"),
        (["--algo", "reinforce"], "expected one of a2c, ddpg, dqn, ppo, sac, td3"),
        (["--algo", "dqn"], "needs discrete actions"),
        (["--on", "state", "--rounds", 2], "are for dreams"),
        (["--on", "latent", "--dream-steps", 9], "are for dreams"),
        (["--ensemble", 1], "use 2 or more"),
        (["--penalty", 0.1], "there is no --ensemble"),
    ],
)
def test_a_mistake_is_told_in_a_line(run, arguments, words):
    result = invoke("rl", run, *arguments, *SMALL)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not (run / "rl").exists()


def test_a_misspelt_command_is_not_a_run(run, tmp_path, monkeypatch):
    result = invoke("rl", "comprae", run)
    assert result.exit_code == 2
    assert "Did you mean 'compare'" in result.output
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comprae").mkdir()
    assert "comprae is not a run directory" in " ".join(invoke("rl", "comprae").output.split())
    (tmp_path / "compare").mkdir()
    assert "rl compare [OPTIONS]" in invoke("rl", "compare").output


def test_a_terminal_shows_results_in_short(run):
    result = invoke("rl", run, "--on", "state", *SMALL)
    assert result.exit_code == 0
    assert "return: " in result.output
    assert len(result.stdout.splitlines()) < 15


def test_no_run_is_told_in_a_line(tmp_path):
    result = invoke("rl", tmp_path / "nothing")
    assert result.exit_code == 1
    assert "is not a run directory" in result.output


def test_discrete_actions_are_for_dqn_and_not_for_sac():
    check_algorithm("dqn", gym.spaces.Discrete(3))
    with pytest.raises(ValueError, match="sac needs continuous"):
        check_algorithm("sac", gym.spaces.Discrete(3))


def test_rl_alone_is_rl_train_and_its_help_tells_both():
    result = invoke("rl", "--help")
    assert "train" in result.output
    assert "compare" in result.output
