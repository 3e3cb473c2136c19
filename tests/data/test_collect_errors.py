"""Mistakes in a collection are refused, with the value, the seed and what was expected."""

import re

import gymnasium as gym
import numpy as np
import pytest
from test_collect import gather
from tiny_env import TinyEnv

from worldmodel.data import Policy, collect
from worldmodel.errors import ReplayBufferError
from worldmodel.registry import reference


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "episodes is 0"),
        ({"episodes": 4}, "4 episodes need as many seeds, got 3"),
        ({"seeds": [1, 1, 2]}, "different from each other"),
        ({"seeds": [1, -1, 2]}, "0 or more"),
        ({"steps": 0}, "steps is 0"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"policy": "expert"}, "policy is 'expert'; expected 'passive', 'random', 'mixed'"),
        ({"observation": "vector"}, "observation='vector': .* offers image, render of"),
        ({"observation": "pixels"}, "observation='pixels'"),
        ({"env_kwargs": {"render_mode": "human"}}, "must not hold render_mode"),
        ({"env_kwargs": {"length": np.array([5, 5])}}, "cannot be written as JSON"),
        (
            {"policy": "passive", "env_kwargs": {"actions": "discrete"}},
            "zero action, which is not in Discrete",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        gather(tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


def test_an_unknown_environment_is_gymnasiums_error(tmp_path):
    with pytest.raises(gym.error.Error, match="Nowhere"):
        gather(tmp_path, "Nowhere-v0")


class Chooses(Policy):
    """Always the same action."""

    def __init__(self, action):
        self.action = action

    def identity(self):
        return {"name": "chooses"}

    def bind(self, action_space, observation_space, steps):
        return lambda seed: lambda t, observation: self.action


@pytest.mark.parametrize("action", [99, -1, 1.0, np.array([0.5, 0.5])])
def test_what_is_not_an_action_of_the_environment_is_refused(tmp_path, action):
    kwargs = {"actions": "discrete"}
    with pytest.raises(ValueError, match=r"the policy chose the action .*; expected an element of"):
        gather(tmp_path / "b", policy=Chooses(action), env_kwargs=kwargs)


class ChoosesOnce(Policy):
    """One wrong action, in the third step of the episode of one seed; else action 1."""

    uses_observations = False

    def __init__(self, action, seed):
        self.action, self.seed = action, seed

    def identity(self):
        return {"name": "chooses once"}

    def bind(self, action_space, observation_space, steps):
        right = np.asarray(1)
        return lambda seed: lambda t, _: self.action if (seed, t) == (self.seed, 2) else right


@pytest.mark.parametrize("action", [99, 0.5, np.array([1, 1])])
def test_the_wrong_action_among_those_of_several_seeds_is_named(tmp_path, action):
    chosen = re.escape(f"chose the action {action!r} in the episode with seed 8; expected")
    settings = {"seeds": [7, 8, 9], "num_envs": 3, "env_kwargs": {"actions": "discrete"}}
    with pytest.raises(ValueError, match=chosen):
        gather(tmp_path / "b", policy=ChoosesOnce(action, 8), **settings)


class BadReward(TinyEnv):
    """Its third reward is NaN."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, (np.nan if reward == 3 else reward), *rest


def test_a_bad_episode_is_named_by_its_seed(tmp_path):
    with pytest.raises(ValueError, match=r"episode with seed 7 of .*: rewards hold NaN"):
        gather(tmp_path / "b", reference(BadReward), seeds=[7, 8])


def test_a_directory_with_other_files_is_left_as_it_is(tmp_path):
    (tmp_path / "frames.bin").touch()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ReplayBufferError, match="is not empty"):
        collect("Tiny-v0", tmp_path, episodes=2, seeds=range(2), steps=3, policy="random")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
