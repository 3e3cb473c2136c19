"""Every example runs: each open choice is replaced by a user's own part."""

import importlib

import gymnasium as gym
import numpy as np
import pytest

import worldmodel
from worldmodel.planning import Planned
from worldmodel.plugins import _plugins, find_plugin

SETTINGS = {
    "model": {"latent_dim": 8, "width": 4, "hidden": 32},
    "data": {"size": 16, "heldout_size": 4, "validation_size": 8},
    "evaluation": {
        "resamples": 100,
        "steps": 21,
        "probe": {"updates": 50, "observations": 1000, "baseline_observations": 500},
    },
}


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    monkeypatch.syspath_prepend(worldmodel.__file__.rpartition("/worldmodel/")[0])


def train(tmp_path, **options):
    return worldmodel.train(
        preset="smoke",
        image_size=16,
        batch_size=8,
        settings=SETTINGS,
        data_dir=tmp_path / "data",
        output_dir=tmp_path / "results",
        progress=False,
        **options,
    )


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("encoder", "examples.own_encoder:MyEncoder"),
        ("decoder", "examples.own_decoder:MyDecoder"),
        ("predictor", "examples.own_predictor:MyPredictor"),
        ("objective", "examples.own_objective:my_objective"),
        ("policy", "examples.own_policy:SinePolicy"),
        ("readout", "examples.own_readout:TipHeight"),
    ],
)
def test_an_own_part_trains_evaluates_and_imagines(tmp_path, option, name):
    module, _, attribute = name.partition(":")
    part = getattr(importlib.import_module(module), attribute)
    run = train(tmp_path, **{option: part})
    assert name in (run.path / "config.yaml").read_text()
    reopened = worldmodel.Run(run.path)
    assert np.isfinite(reopened.metrics.collapse.effective_rank)
    dreams = reopened.imagine(num_envs=3)
    dreams.reset(seed=0)
    assert dreams.step(dreams.action_space.sample())[0].shape == (3, 8)
    if option == "readout":
        assert list(reopened.metrics.probes.linear.r2) == ["tip_height"]


def test_an_own_planner_acts(run):
    from examples.own_planner import RandomShooting

    result = run.plan(method="examples.own_planner:RandomShooting", samples=8, episodes=1, steps=3)
    assert result["optimizer"]["samples"] == 8
    policy = Planned(run.path, optimizer=RandomShooting(samples=8))
    assert policy.identity()["optimizer"]["class"] == "examples.own_planner:RandomShooting"


def test_an_own_callback_sees_the_validation_error(tmp_path):
    from examples.own_callback import History

    history = History()
    train(tmp_path, callbacks=[history])
    assert history.errors
    assert all(np.isfinite(error) for _, error in history.errors)


def test_an_own_environment_trains_from_a_class(tmp_path):
    from tiny_env import TinyEnv

    run = train(tmp_path, env=TinyEnv, policy="random", env_kwargs={"size": 16, "length": [12, 12]})
    assert "tiny_env:TinyEnv" in (run.path / "config.yaml").read_text()
    env = worldmodel.Run(run.path).make_env()
    assert env.reset(seed=0)[0].shape == (16, 16, 9)


def test_an_own_plugin_names_the_state_and_gives_a_goal():
    before = dict(_plugins)
    importlib.import_module("examples.own_plugin")
    try:
        plugin = find_plugin("CartPole-v1")
        assert plugin.readout(4).names[2] == "angle"
        test = plugin.goal_test(plugin.default_goal)
        assert test(np.zeros(4))
        assert not test(np.ones(4))
        assert plugin.seconds_per_step() == pytest.approx(
            1 / gym.make("CartPole-v1").metadata["render_fps"]
        )
    finally:
        _plugins.clear()
        _plugins.update(before)
