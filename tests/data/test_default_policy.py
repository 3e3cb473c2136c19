"""Which policy collects data if none is named: that of the environment's plug-in, else random."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from worldmodel.cli import app
from worldmodel.config import Config, build_config, dump, from_options, validate
from worldmodel.data import Passive, Random, ReplayBuffer, collect, load_or_collect
from worldmodel.data.recipe import default_policy, resolve
from worldmodel.hyperparameters import Data
from worldmodel.run import Run
from worldmodel.settings import read_yaml

SETTINGS = {"episodes": 2, "seeds": range(2), "steps": 4, "image_size": 16}
PENDULUM = "DoublePendulumPixels-v0"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def still(tmp_path, monkeypatch):
    """A module with an environment whose plug-in names a policy; nothing has imported it yet."""
    (tmp_path / "still_env.py").write_text(
        "import gymnasium as gym\n"
        "from worldmodel.plugins import EnvPlugin, register_plugin\n"
        "class Still(EnvPlugin):\n    config_defaults = {'data': {'policy': 'passive'}}\n"
        "register_plugin(['Still-v0'], Still)\n"
        "gym.register('Still-v0', 'gymnasium.envs.classic_control:PendulumEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "still_env:Still-v0"


@pytest.mark.parametrize("preset", ["smoke", "quick", "standard"])
@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({}, "passive"),
        ({"mode": "pendulum"}, "passive"),
        ({"env": f"worldmodel:{PENDULUM}", "size": 50}, "passive"),
        ({"env": "CartPole-v1"}, "random"),
        ({"env": "Pendulum-v1", "observation": "vector"}, "random"),
        ({"env": "tiny_env:TinyEnv"}, "random"),
        ({"policy": "random"}, "random"),
        ({"env": "Pendulum-v1", "policy": "passive"}, "passive"),
    ],
)
def test_a_configuration_has_the_policy_of_its_environment_unless_it_names_one(
    preset, options, policy
):
    assert build_config(from_options(**options), preset=preset).data.policy == policy


def test_sections_that_are_objects_have_the_defaults_of_the_environment_too():
    assert Config(data=Data(size=64)).data == build_config({"data": {"size": 64}}).data
    assert Config(data=Data(size=64), env={"id": "CartPole-v1"}).data.policy == "random"
    assert Config(data=Data(policy="mixed")).data.policy == "mixed"


def test_own_data_has_no_policy_of_the_environment(tmp_path):
    for env in (None, PENDULUM, "CartPole-v1"):
        config = Config(env={"id": env}, data={"sources": [str(tmp_path)]})
        assert (config.data.policy, config.data.size) == ("recorded", 0)
    start = Config(data={"sources": [str(tmp_path)], "env_kwargs": {"damping": 0.1}}).data
    assert start.env_kwargs == {"start": "uniform", "damping": 0.1}


def test_a_saved_run_keeps_its_policy(tmp_path):
    values = {"env": {"id": "Pendulum-v1"}, "data": {"policy": "passive"}}
    (tmp_path / "config.yaml").write_text(dump(build_config(values)))
    saved = read_yaml(tmp_path / "config.yaml")
    assert validate(saved).data.policy == "passive"
    assert build_config(saved, {"seed": 3}).data.policy == "passive"
    run = Run.create(build_config(values))
    assert Run(run.path).read_config().data.policy == "passive"


@pytest.mark.parametrize("gather", [collect, load_or_collect])
@pytest.mark.parametrize(
    ("env_id", "policy"),
    [(PENDULUM, Passive()), ("Pendulum-v1", Random()), ("CartPole-v1", Random())],
)
def test_collecting_takes_the_policy_of_the_environment(tmp_path, gather, env_id, policy):
    with (
        gather(env_id, tmp_path / "default", **SETTINGS) as default,
        gather(env_id, tmp_path / "named", policy=policy, **SETTINGS) as named,
    ):
        assert default.metadata == named.metadata
        assert default.metadata["policy"] == policy.identity()
        actions = [buffer.windows([0, 1], [0, 0], 5).actions for buffer in (default, named)]
        assert np.array_equal(*actions)


def test_the_plug_in_of_the_environments_own_module_is_asked(still, tmp_path):
    assert default_policy(still) == "passive"
    with collect(still, tmp_path / "data", **SETTINGS) as buffer:
        assert not buffer.windows([0, 1], [0, 0], 5).actions.any()
    assert build_config({"env": {"id": still}}).data.policy == "passive"


def test_data_that_was_collected_under_a_named_policy_is_reused(tmp_path):
    collect("CartPole-v1", tmp_path / "data", policy="random", **SETTINGS).close()
    stored = (tmp_path / "data" / "actions.bin").stat().st_mtime_ns
    load_or_collect("CartPole-v1", tmp_path / "data", **SETTINGS).close()
    assert (tmp_path / "data" / "actions.bin").stat().st_mtime_ns == stored


def test_random_actions_are_held_by_default():
    options = {"image_size": 16, "observation": "auto"}
    recipe = resolve("CartPole-v1", None, policy=None, steps=4, **options)
    assert recipe.policy == Random((1, 8))


def test_the_command_collects_with_the_policy_of_the_environment(tmp_path):
    for env, name in ((PENDULUM, "passive"), ("CartPole-v1", "random")):
        words = ["collect", name, "--env", env, "--size", "2", "--steps", "4"]
        result = CliRunner().invoke(app, [*words, "--image-size", "16", "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["metadata"]["policy"]["name"] == name


def test_a_buffer_of_another_policy_is_continued_if_it_is_named(tmp_path):
    collect("Pendulum-v1", tmp_path / "data", policy="passive", **SETTINGS).close()
    words = ["collect", "data", "--env", "Pendulum-v1", "--size", "2", "--steps", "4"]
    words += ["--image-size", "16"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert "policy.name is 'passive', wanted 'random'" in refused.stderr
    assert CliRunner().invoke(app, [*words, "--policy", "passive"]).exit_code == 0
    with ReplayBuffer.open(tmp_path / "data") as buffer:
        assert buffer.seeds.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("command", ["train", "collect"])
def test_the_help_names_the_default_of_the_policy(command):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "300"}).stdout
    assert "Default: random; for the pendulum passive." in shown
