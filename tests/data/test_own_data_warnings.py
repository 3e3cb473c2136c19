"""Warnings of runs on own data: the suggested fixes change the data and never say to collect."""

import re

import numpy as np
import pytest
from own_episodes import SIZE, train

from worldmodel.data import collect

SEEDS = [*range(12), *range(10_000, 10_008), *range(20_000, 20_012)]


def noise(actions):
    """Episodes that nothing can be learned from, with this many different actions."""
    rng = np.random.default_rng(0)
    return [
        {
            "frames": rng.integers(0, 256, (9, SIZE, SIZE, 3), np.uint8),
            "actions": rng.integers(0, actions, 8),
            "rewards": rng.normal(size=8),
            "seed": seed,
        }
        for seed in SEEDS
    ]


def require_fixes(run, names):
    found = {warning.name: warning.fix for warning in run.metrics.warnings}
    assert names <= found.keys()
    for fix in found.values():
        assert not re.search("--size|--steps|--policy|--frame-skip|--set data|[Cc]ollect", fix), fix


@pytest.mark.parametrize(("actions", "name"), [(1, "one_action"), (2, "actions")])
def test_fixes_for_own_data_do_not_say_to_collect(tmp_path, actions, name):
    run = train(tmp_path, data=noise(actions))
    assert run.metrics.run.own_data
    require_fixes(run, {name, "forecast", "reward", "data"})


def test_a_buffer_of_a_known_policy_is_own_data_too(tmp_path):
    settings = {"seeds": range(12), "steps": 12, "policy": "random", "image_size": SIZE}
    collect("CartPole-v1", tmp_path / "buffer", episodes=12, **settings).close()
    run = train(tmp_path, data=tmp_path / "buffer")
    assert (run.config.env.id, run.metrics.run.policy) == ("CartPole-v1", "random")
    assert run.metrics.run.own_data
    require_fixes(run, {"data", "heldout"})


def test_a_collected_run_is_not_own_data_and_says_to_collect(collected):
    metrics = collected[0].metrics
    assert not metrics.run.own_data
    assert "--size" in next(w.fix for w in metrics.warnings if w.name == "data")
