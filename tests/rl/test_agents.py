"""Agents of Stable-Baselines3 on every view, evaluated in the real environment."""

import json
from contextlib import closing
from pathlib import Path

import gymnasium as gym
import imageio.v3
import numpy as np
import pytest
import tiny_env  # noqa: F401 (registers Tiny-v0)
from stable_baselines3 import PPO, SAC

import worldmodel
from worldmodel.agent_config import AgentConfig
from worldmodel.callbacks import Callback
from worldmodel.config import build_config
from worldmodel.errors import InterruptedRunError, RunError
from worldmodel.imagination import LatentObservation
from worldmodel.rl import (
    AgentEnvs,
    EvalCallback,
    check_algorithm,
    evaluate_policy,
    load_agent,
    train_agent,
)
from worldmodel.rl import agents as agents_module
from worldmodel.rl.agents import directory_name, results_folder
from worldmodel.rl.envs import state_envs
from worldmodel.rl.evaluation import heldout_seeds
from worldmodel.rl.tuned import resolve_agent
from worldmodel.run import Run


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("worldmodel.rl.tuned._PPO_ROLLOUT", 256)


def small(on="dream", **settings):
    evaluation = {"eval_points": 2, "eval_episodes": 4, "max_eval_steps": 60}
    return AgentConfig(on=on, **{"steps": 256, "num_envs": 4, **evaluation, **settings})


def trained(path, on="dream", **settings):
    return train_agent(Run(path), small(on, **settings))


@pytest.mark.parametrize(("on", "real"), [("latent", True), ("dream", False), ("state", True)])
def test_an_agent_is_trained_evaluated_recorded_and_saved(run_path, on, real):
    results = trained(run_path, on)
    assert results["steps"] >= 256
    assert results["real_steps"] == (results["steps"] if real else 0)
    assert results["model_data_steps"] == (0 if on == "state" else 32 * 16)
    assert results["real"]["steps"] == [60] * 4
    assert np.isfinite(results["real"]["returns"]).all()
    assert results["curve"][-1]["steps"] == results["steps"]
    assert results["curve"][-1]["seconds"] == results["seconds"] > 0
    assert AgentConfig(**results["config"]) == resolve_agent(small(on), "DoublePendulumPixels-v0")
    folder = results_folder(Run(run_path), small(on))
    assert json.loads((folder / "results.json").read_text()) == results
    assert len(imageio.v3.imread(folder / "agent.mp4")) == 201
    assert list((folder / "tensorboard").rglob("events*"))


def test_the_return_is_what_the_saved_agent_earns_in_the_real_environment(run_path):
    results = trained(run_path, "latent", eval_episodes=8, max_eval_steps=200)
    agent = PPO.load(results["agent"])
    env = LatentObservation(worldmodel.make_env(run_path), worldmodel.load(run_path))
    for i in (0, 7):
        observation, _ = env.reset(seed=20_000 + i)
        total, ended = 0.0, False
        while not ended:
            action, _ = agent.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, ended = total + reward, terminated or truncated
        assert results["real"]["returns"][i] == pytest.approx(total, abs=0.05)


def test_equal_configurations_give_equal_agents_and_other_seeds_others(run_path):
    first = trained(run_path)
    again = trained(run_path)
    other = trained(run_path, seed=1)
    assert first["real"] == again["real"]
    folder = results_folder(Run(run_path), small())
    assert len(list((folder / "tensorboard").rglob("events*"))) == 1
    assert first["real"] != other["real"]


def test_a_stopped_training_keeps_the_results_from_before(run_path, monkeypatch):
    finished = trained(run_path)
    folder = results_folder(Run(run_path), small())
    before = (folder / "agent.zip").read_bytes()

    def stopped(self):
        self.stop.requested = True
        return False

    evaluated = []
    monkeypatch.setattr(EvalCallback, "_on_step", stopped)
    monkeypatch.setattr(EvalCallback, "_evaluate", evaluated.append)
    with pytest.raises(InterruptedRunError, match=r"unfinished.zip; it was not evaluated"):
        trained(run_path)
    assert evaluated == []
    assert PPO.load(folder / "unfinished.zip").num_timesteps < 256
    assert (folder / "agent.zip").read_bytes() == before
    assert json.loads((folder / "results.json").read_text()) == finished


def test_dream_steps_limits_imagined_episodes(run_path, monkeypatch):
    save, lengths = agents_module.save_agent, []

    def spied(agent, path):
        lengths.extend(episode["l"] for episode in agent.ep_info_buffer)
        save(agent, path)

    monkeypatch.setattr(agents_module, "save_agent", spied)
    trained(run_path, dream_steps=7)
    assert max(lengths) == 7


def test_rewards_are_normalized_by_the_spread_of_returns_and_observations_are_not(run_path):
    envs = AgentEnvs(Run(run_path), "dream")
    seen = {}
    for normalize in (False, True):
        config = AgentConfig(gamma=0.9, num_envs=16, normalize_rewards=normalize)
        with closing(envs.training(config)) as training:
            training.reset()
            steps = [training.step(np.ones((16, 2), np.float32)) for _ in range(10)]
        seen[normalize] = [np.array(part) for part in list(zip(*steps, strict=True))[:2]]
    np.testing.assert_array_equal(seen[True][0], seen[False][0])
    returns, discounted = np.zeros(16), []
    for rewards in seen[False][1]:
        returns = 0.9 * returns + rewards
        discounted.append(returns)
    expected = seen[False][1][-1] / np.std(discounted)
    np.testing.assert_allclose(seen[True][1][-1], expected, rtol=0.05)


def test_training_in_the_dream_takes_no_real_step(run_path, monkeypatch):
    real, made = AgentEnvs.real, []

    def counted(self, num_envs, render_mode=None):
        made.append(num_envs)
        return real(self, num_envs, render_mode)

    monkeypatch.setattr(AgentEnvs, "real", counted)
    trained(run_path, num_envs=7)
    assert 7 not in made
    trained(run_path, "latent", num_envs=7)
    assert 7 in made


def test_model_steps_are_the_steps_of_the_training_data(run_path):
    metrics = run_path / "metrics.json"
    content = json.loads(metrics.read_text())
    content["data"]["train_steps"] = 77
    metrics.write_text(json.dumps(content))
    assert AgentEnvs(Run(run_path), "latent").model_data_steps == 77
    assert AgentEnvs(Run(run_path), "state").model_data_steps == 0
    metrics.unlink()
    assert AgentEnvs(Run(run_path), "dream").model_data_steps == 32 * 16


def test_sac_trains_on_latents(run_path):
    results = trained(run_path, "latent", algo="sac", steps=120, num_envs=2)
    assert isinstance(SAC.load(results["agent"]), SAC)


def test_kwargs_and_gamma_reach_the_algorithm(run_path):
    results = trained(run_path, "state", kwargs={"n_steps": 32, "learning_rate": 0.5}, gamma=0.9)
    config = AgentConfig(on="state", kwargs=results["config"]["kwargs"])
    with closing(AgentEnvs(Run(run_path), "state").real(1)) as envs:
        spaces = envs.single_action_space, envs.single_observation_space
    agent = load_agent(config, Path(results["agent"]), *spaces)
    assert agent.n_steps == 32
    assert agent.learning_rate == 0.5
    assert agent.gamma == 0.9


def test_evaluations_of_the_curve_follow_the_configuration(run_path):
    config = {"steps": 1024, "eval_points": 4, "eval_episodes": 3, "max_eval_steps": 11}
    results = trained(run_path, "state", **config)
    assert [point["steps"] for point in results["curve"]] == [256, 512, 768, 1024]
    assert results["real"]["steps"] == [11] * 3
    assert results["heldout_seeds"] == [20_000, 20_002]


def test_the_state_of_an_environment_in_another_module():
    config = build_config(
        {"observation": "vector", "env": {"id": "gymnasium.envs.classic_control:CartPole-v1"}}
    )
    with closing(state_envs(config, 2)) as envs:
        assert envs.reset(seed=0)[0].shape == (2, 4)


def test_agents_on_the_state_start_where_the_environment_does_not_where_its_data_did():
    env = {"id": "DoublePendulumPixels-v0", "kwargs": {"start": "down"}}
    config = build_config({"env": env, "data": {"env_kwargs": {"start": "uniform"}}})
    with closing(state_envs(config, 3)) as envs:
        angles = envs.reset(seed=0)[0][:, :4]
        assert angles.std(axis=0).max() < 0.1


@pytest.mark.parametrize("step", ["evaluate_policy", "record_video"])
def test_a_stop_after_training_loses_nothing(run_path, monkeypatch, step):
    finished = trained(run_path, "state")
    folder = results_folder(Run(run_path), small("state"))
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def stopped(*arguments):
        if step == "record_video" or arguments[2] == heldout_seeds(small()):
            raise KeyboardInterrupt
        return evaluate_policy(*arguments)

    module = "agents" if step == "record_video" else "evaluation"
    monkeypatch.setattr(f"worldmodel.rl.{module}.{step}", stopped)
    with pytest.raises(InterruptedRunError, match=r"unfinished.zip; it was not evaluated"):
        trained(run_path, "state")
    for name, content in kept.items():
        assert (folder / name).read_bytes() == content
    assert PPO.load(folder / "unfinished.zip").num_timesteps == finished["steps"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"on": "pixels"}, "needs 36"),
        ({"algo": "dqn"}, "needs discrete actions"),
        ({"on": "state", "loop": {"rounds": 2}}, "agent.loop: for agents in the dream only"),
        ({"on": "latent", "dream_steps": 9}, "agent.dream_steps: for agents in the dream only"),
        (
            {"on": "latent", "leaving_terminates": False, "ensemble": {"size": 3}},
            "terminates, agent.ensemble",
        ),
        ({"ensemble": {"penalty": 0.1}}, "ensemble.size is 0"),
        ({"kwargs": {"n_step": 8}}, "unexpected keyword argument 'n_step'.* n_steps"),
        ({"kwargs": {"gamma": 0.9}}, "unexpected keyword argument 'gamma'"),
        ({"kwargs": {"n_steps": "many"}}, "does not accept a setting of ppo among .*'many'"),
        (
            {"kwargs": {"policy_kwargs": 3}},
            "does not accept a setting of ppo among .*be a map",
        ),
        ({"kwargs": {"learning_rate": "lin_fast"}}, "learning_rate is 'lin_fast'"),
    ],
)
def test_a_configuration_that_does_not_fit_fails_before_anything_is_written(
    run_path, settings, words
):
    with pytest.raises(ValueError, match=words):
        trained(run_path, **settings)
    assert not (run_path / "rl").exists()


@pytest.mark.parametrize(
    "settings", [{"on": "dreams"}, {"algo": "reinforce"}, {"ensemble": {"size": 1}}]
)
def test_an_unknown_choice_is_rejected(settings):
    with pytest.raises(ValueError, match=r"'latent', 'dream'|'ppo', 'a2c'|2 and more"):
        AgentConfig(**settings)


def test_an_agent_of_no_run_is_an_error(tmp_path):
    with pytest.raises(RunError, match="is not a run directory"):
        trained(tmp_path / "nothing")


def test_discrete_actions_are_for_dqn_and_not_for_sac():
    check_algorithm("dqn", gym.spaces.Discrete(3))
    with pytest.raises(ValueError, match="sac needs continuous"):
        check_algorithm("sac", gym.spaces.Discrete(3))
    with pytest.raises(ValueError, match="expected one of a2c, ddpg, dqn, ppo, sac, td3"):
        check_algorithm("reinforce", gym.spaces.Discrete(3))


def test_progress_and_messages_go_to_the_callbacks(run_path):
    class Log(Callback):
        def __init__(self):
            self.tasks, self.done, self.notes = [], [], []

        def on_task_start(self, task, total, done):
            self.tasks.append((task, total, done))

        def on_task_update(self, task, done, note):
            self.done.append(done)
            self.notes.append(note)

    log = Log()
    train_agent(Run(run_path), small("dream"), [log])
    assert log.tasks == [("ppo on dream", 256, 0)]
    assert log.done[-1] == 256
    assert log.notes[-1].endswith("in the real environment")


def name(**settings):
    return directory_name(AgentConfig(**settings), "DoublePendulumPixels-v0")


def test_the_directory_name_is_readable():
    assert name() == "dream_ppo_200000_seed0"
    assert name(on="latent", seed=3, gamma=0.9) == "latent_ppo_200000_seed3_gamma0.9"
    assert name(num_envs=128) == name()
    assert name(num_envs=16) == "dream_ppo_200000_seed0_num_envs16"
    assert name(ensemble={"size": 3}) == "dream_ppo_200000_seed0_ensemble_size3"
    kwargs = {"learning_rate": 0.001, "policy_kwargs": {"net_arch": [64, 64]}}
    assert name(kwargs=kwargs).startswith(
        "dream_ppo_200000_seed0_kwargs_learning_rate0.001_kwargs_policy_kwargs_net_arch"
    )


def test_the_directory_name_differs_wherever_results_would():
    variants = [
        {},
        {"on": "state"},
        {"algo": "sac"},
        {"steps": 7},
        {"seed": 1},
        {"num_envs": 7},
        {"gamma": 0.9},
        {"kwargs": {"n_steps": 40}},
        {"kwargs": {"n_steps": 24}},
        {"kwargs": {"policy_kwargs": {"net_arch": [8]}}},
        {"kwargs": {"policy_kwargs": {"net_arch": [9]}}},
        {"dream_steps": 7},
        {"leaving_terminates": False},
        {"eval_points": 7},
        {"eval_episodes": 7},
        {"max_eval_steps": 7},
        *({"ensemble": {"size": 3, key: 7}} for key in ("updates", "episodes", "horizon")),
        {"ensemble": {"size": 3, "penalty": 7}},
        {"ensemble": {"size": 3, "learning_rate": 7}},
        {"loop": {"rounds": 1}},
        *(
            {"loop": {"rounds": 1, key: 7}}
            for key in ("patience", "episodes", "max_steps", "noise", "replay_episodes", "updates")
        ),
        {"loop": {"rounds": 1, "min_improvement": 0.7}},
        {"loop": {"rounds": 1, "fresh_fraction": 0.7}},
        {"loop": {"rounds": 1, "learning_rate": 0.7}},
    ]
    assert len({name(**variant) for variant in variants}) == len(variants)
    every = {"kwargs": {f"argument_{i}": i for i in range(50)}}
    assert len(name(**every)) < 200
    assert name(**every) != name(kwargs={**every["kwargs"], "argument_0": 7})


def test_a_loop_with_more_rounds_has_the_same_directory():
    assert name(loop={"rounds": 1}) == name(loop={"rounds": 9}) == "dream_ppo_200000_seed0_loop"
    assert name(loop={"noise": 0.7}) == name()
