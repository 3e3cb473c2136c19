"""Agents of others: what their files hold beside weights is never executed without consent."""

import base64
import json
import os
import zipfile

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import tiny_env  # noqa: F401 (registers Tiny-v0)
import torch
from stable_baselines3.common.torch_layers import FlattenExtractor
from typer.testing import CliRunner

from worldmodel.agent_config import AgentConfig
from worldmodel.agent_files import algorithm_of, load_agent_file
from worldmodel.cli import app
from worldmodel.errors import RunError
from worldmodel.rl.agents import load_agent
from worldmodel.rl.tuned import resolve_agent
from worldmodel.run import Run

VECTOR = {"observation": "vector", "length": (3, 9)}
IMAGE = {"size": 36, "frame_stack": 2}


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def save(path, algorithm, policy="MlpPolicy", actions="box", **settings):
    kwargs = (IMAGE if policy == "CnnPolicy" else VECTOR) | {"actions": actions}
    env = gym.make("Tiny-v0", **kwargs)
    if algorithm in ("DDPG", "DQN", "SAC", "TD3"):
        settings = {"buffer_size": 10, "learning_starts": 2} | settings
    if algorithm == "PPO":
        settings = {"n_steps": 8, "batch_size": 8} | settings
    agent = getattr(sb3, algorithm)(policy, env, device="cpu", seed=0, **settings)
    if policy != "CnnPolicy":
        agent.learn(16)
    agent.save(path)
    return agent, env


def poison(path, executed, key):
    """Replace a setting by a pickled object that leaves a file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(parts["data"])
    readable = content.get(key) if isinstance(content.get(key), dict) else {}
    pickled = base64.b64encode(cloudpickle.dumps(Payload(executed))).decode()
    content[key] = readable | {":serialized:": pickled}
    parts["data"] = json.dumps(content).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


@pytest.mark.parametrize(
    ("algorithm", "policy", "actions", "settings"),
    [
        ("A2C", "MlpPolicy", "discrete", {}),
        ("PPO", "MlpPolicy", "box", {"policy_kwargs": {"net_arch": [8]}, "use_sde": True}),
        ("PPO", "CnnPolicy", "box", {}),
        ("PPO", "MlpPolicy", "box", {"policy_kwargs": {"activation_fn": torch.nn.ELU}}),
        ("DQN", "MlpPolicy", "discrete", {}),
        ("SAC", "MlpPolicy", "box", {"learning_rate": lambda progress: 1e-3 * progress}),
        ("TD3", "MlpPolicy", "box", {}),
        ("DDPG", "MlpPolicy", "box", {}),
    ],
)
def test_agents_act_as_they_did_when_they_were_saved(
    tmp_path, algorithm, policy, actions, settings
):
    agent, env = save(tmp_path / "a.zip", algorithm, policy, actions, **settings)
    found = algorithm_of(tmp_path / "a.zip")
    assert found == ("TD3" if algorithm == "DDPG" else algorithm)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    loaded = load_agent_file(tmp_path / "a.zip", found, env.action_space, env.observation_space)
    torch.set_rng_state(state)
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        expected, _ = agent.predict(observation, deterministic=True)
        assert np.array_equal(loaded.predict(observation, deterministic=True)[0], expected)


KEYS = (
    *("policy_class", "observation_space", "action_space", "_last_obs", "ep_info_buffer"),
    *("clip_range", "lr_schedule", "learning_rate", "rollout_buffer_class", "_last_episode_starts"),
    *("tensorboard_log", "_vec_normalize_env", "clip_range_vf", "env"),
)
REFUSED = (
    "policy_kwargs",
    "gamma",
    "seed",
    "something_else",
    "rollout_buffer_kwargs",
    "train_freq",
)


@pytest.mark.parametrize("key", [*KEYS, *REFUSED])
def test_no_pickled_setting_is_unpickled(tmp_path, key):
    path, executed = tmp_path / "agent.zip", tmp_path / "executed"
    agent, env = save(path, "PPO")
    poison(path, executed, key)
    spaces = env.action_space, env.observation_space
    if key in REFUSED:
        with pytest.raises(ValueError, match=rf"pickled Python objects \({key}\).*--trust"):
            load_agent_file(path, "PPO", *spaces)
    else:
        loaded = load_agent_file(path, "PPO", *spaces)
        observation, _ = env.reset(seed=0)
        assert np.array_equal(
            *(a.predict(observation, deterministic=True)[0] for a in (agent, loaded))
        )
    assert not executed.exists()


@pytest.mark.parametrize("part", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
def test_no_pickled_weights_are_unpickled(tmp_path, part):
    path, executed = tmp_path / "agent.zip", tmp_path / "executed"
    _, env = save(path, "PPO")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    torch.save({"weight": Payload(executed)}, tmp_path / "bad.pth")
    parts[part] = (tmp_path / "bad.pth").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="is damaged, or not an agent of PPO"):
        load_agent_file(path, "PPO", env.action_space, env.observation_space)
    assert not executed.exists()


@pytest.mark.parametrize("key", ["env", "predict", "policy", "n_envs", "n_steps", "set_env"])
def test_settings_that_are_no_arguments_become_no_attributes(tmp_path, monkeypatch, key):
    """Stable-Baselines3 makes an environment of ``env``, and attributes of all others."""
    (tmp_path / "evil_module.py").write_text("from pathlib import Path; Path('executed').touch()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "agent.zip"
    agent, env = save(path, "PPO")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["data"] = json.dumps(json.loads(parts["data"]) | {key: "evil_module:Evil-v0"}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    try:
        loaded = load_agent_file(path, "PPO", env.action_space, env.observation_space)
    except ValueError:
        assert key == "n_envs"
    else:
        observation, _ = env.reset(seed=0)
        acting = (a.predict(observation, deterministic=True)[0] for a in (agent, loaded))
        assert np.array_equal(*acting)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("algo", ["sac", "td3", "a2c", "ppo"])
def test_an_agent_that_trains_on_has_its_learning_rate(tmp_path, algo):
    agent, env = save(tmp_path / "agent.zip", algo.upper())
    config = resolve_agent(AgentConfig(algo=algo), "Acrobot-v1" if algo == "ppo" else None)
    rate = agent.learning_rate
    spaces = env.action_space, env.observation_space
    loaded = load_agent(config, tmp_path / "agent.zip", *spaces)
    assert loaded.learning_rate == rate > 0
    assert loaded.lr_schedule(1.0) == rate
    assert loaded.num_timesteps == agent.num_timesteps


def test_networks_of_their_own_need_trust(tmp_path, monkeypatch):
    path = tmp_path / "agent.zip"
    own = {"features_extractor_class": FlattenExtractor}
    agent, env = save(path, "PPO", policy_kwargs=own)
    spaces = env.action_space, env.observation_space
    monkeypatch.delenv("WORLDMODEL_TRUST", raising=False)
    with pytest.raises(ValueError, match=r"\(policy_kwargs\).*--trust"):
        load_agent_file(path, "PPO", *spaces)
    monkeypatch.setenv("WORLDMODEL_TRUST", "1")
    loaded = load_agent_file(path, "PPO", *spaces)
    observation, _ = env.reset(seed=0)
    assert np.array_equal(*(a.predict(observation, deterministic=True)[0] for a in (agent, loaded)))


@pytest.mark.parametrize(
    "command",
    [
        (
            "collect",
            "OUT",
            "--env",
            "Tiny-v0",
            "--policy",
            "AGENT",
            "--env-kwargs",
            "observation=vector",
        ),
        ("rollout", "RUN", "--policy", "AGENT"),
    ],
    ids=["collect", "rollout"],
)
def test_commands_refuse_poisoned_agents(driven_run, tmp_path, command):
    path, executed = tmp_path / "agent.zip", tmp_path / "executed"
    save(path, "PPO")
    poison(path, executed, "policy_kwargs")
    names = {"AGENT": path, "RUN": driven_run, "OUT": tmp_path / "out"}
    result = CliRunner().invoke(app, [str(names.get(word, word)) for word in command])
    assert result.exit_code in (1, 2)
    assert "Error: " in result.stderr
    assert not executed.exists()
    assert not (tmp_path / "out").exists()


def test_the_agents_of_a_loop_are_not_unpickled(run, tmp_path):
    """A stranger's run can hold an unfinished loop, which the same command resumes."""
    small = {"steps": 64, "num_envs": 4, "eval_points": 1, "eval_episodes": 2, "max_eval_steps": 20}
    loop = {"rounds": 1, "episodes": 2, "max_steps": 20, "updates": 5}
    results = run.train_agent(on="dream", kwargs={"n_steps": 16}, loop=loop, **small)
    folder = run.path / "rl" / results["agent"].split("/rl/")[1].split("/")[0]
    poison(folder / "agent_0.zip", tmp_path / "executed", "policy_kwargs")
    poison(folder / "agent_1.zip", tmp_path / "executed", "policy_kwargs")
    loop["rounds"] = 2
    with pytest.raises(RunError, match=r"agent_\d.zip is missing or damaged.*pickled Python"):
        Run(run.path, "cpu").train_agent(on="dream", kwargs={"n_steps": 16}, loop=loop, **small)
    assert not (tmp_path / "executed").exists()
