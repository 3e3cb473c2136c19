"""What is wrong with own data is named before anything is trained, and nothing is left behind."""

import gymnasium as gym
import h5py
import numpy as np
import pytest
from own_episodes import SIZE, episodes_of, simple_episodes, train, write_rows
from tiny_env import TinyEnv

import worldmodel
from worldmodel.data.rollout import Episode


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": lambda e: e["frames"].astype(int)}, r"episode 11: .*frames\.astype"),
        ({"frames": lambda e: e["frames"] / 255}, r"episode 11: .*\(frames \* 255\)\.astype"),
        ({"actions": lambda e: e["actions"][:0]}, "data, episode 11: it has no actions"),
        ({"actions": lambda e: e["actions"] * np.nan}, "episode 11: actions hold NaN"),
        ({"actions": lambda e: e["actions"].astype(str)}, "episode 11: actions are <U.*numbers"),
        ({"actions": lambda e: e["actions"][:-1]}, r"episode 11: actions have shape \(4,\)"),
        ({"terminated": lambda e: np.zeros(5, bool)}, r"episode 11: terminated has shape \(5,\)"),
        ({"rewards": lambda e: np.ones(5)}, "episode 11: it has rewards, unlike episode 0"),
        ({"reward": lambda e: 0}, "episode 11: an episode is a dict of actions, frames, reward"),
    ],
)
def test_a_bad_episode_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, data=simple_episodes(**changes))
    assert not list((tmp_path / "data").glob("*.tmp"))


def unequal_episodes():
    first, *others = simple_episodes()
    yield {**first, "rewards": np.ones(len(first["actions"]))}
    yield from others


def no_episodes():
    yield from "abc"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (unequal_episodes, "episode 1: it has no rewards, unlike episode 0"),
        (no_episodes, "episode 0: .*expected a dict with frames, actions"),
    ],
)
def test_a_function_that_yields_bad_episodes_is_reported(tmp_path, function, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, data=function)


def test_a_function_may_yield_episodes_as_objects(tmp_path):
    assert "rewards" not in simple_episodes()[0]
    run = train(tmp_path, data=objects)
    assert run.metrics.data.train_episodes > 0


def objects():
    for content in simple_episodes():
        steps = len(content["actions"])
        yield Episode(-1, content["frames"], content["actions"], np.ones(steps), False, None)


def test_data_of_another_environment_is_refused_before_training(collected, tmp_path):
    episodes = simple_episodes()
    train(tmp_path, data=episodes)  # stored without an environment
    for env, message in (
        ("CartPole-v1", None),
        (TinyEnv, r"episode 0: actions have shape \(5,\)"),
        ("NoSuchEnv-v0", "NoSuchEnv"),
    ):
        before = set((tmp_path / "results").iterdir())
        if message is None:
            train(tmp_path, data=episodes, env=env)
            continue
        with pytest.raises((ValueError, gym.error.Error), match=message):
            train(tmp_path, data=episodes, env=env, env_kwargs={})
        assert set((tmp_path / "results").iterdir()) == before
    grey = {"size": SIZE, "channels": 1}
    with pytest.raises(ValueError, match=r"frames have shape \(16, 16, 3\), but those of the env"):
        train(tmp_path, data=list(episodes_of(collected[1])), env=TinyEnv, env_kwargs=grey)


def test_a_model_does_not_act_in_an_environment_with_other_spaces(tmp_path):
    run = train(tmp_path, data=simple_episodes())
    for env, message in (
        ("MountainCarContinuous-v0", r"has actions Box\(-1, 1, \(1,\)\).*on actions Discrete\(2\)"),
        ("Acrobot-v1", r"has actions Discrete\(3\)"),
    ):
        other = run.with_settings({"env": {"id": env}})
        for act in (other.make_env, other.plan, lambda run=other: run.make_vec_env(2)):
            with pytest.raises(ValueError, match=message):
                act()
    assert run.with_settings({"env": {"id": "CartPole-v1"}}).make_env() is not None


def test_steps_have_no_meaning_for_own_data(tmp_path):
    with pytest.raises(worldmodel.ConfigError, match=r"to collected data only.*remove --steps"):
        train(tmp_path, data=simple_episodes(), steps=5)


def test_actions_of_another_width_are_named_by_their_episode(tmp_path):
    episodes = simple_episodes()
    for number, episode in enumerate(episodes):
        episode["actions"] = np.zeros((5, 2 if number == 7 else 3))
    message = "data, episode 7: actions have width 2, but those of data, episode 0 have width 3"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, data=episodes)
    sources = [width_two, width_one]
    with pytest.raises(ValueError, match="width_one, episode 0: actions have width 1, but"):
        train(tmp_path, data=sources)
    assert not list((tmp_path / "data").glob("*.tmp"))


def width_two():
    for episode in simple_episodes():
        yield {**episode, "actions": np.zeros((5, 2))}


def width_one():
    for episode in simple_episodes():
        yield {**episode, "actions": np.zeros(5)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["ep_len"].__setitem__(3, 9999), "episode 3 has rows 39 to 10037"),
        (lambda file: file["ep_offset"].__setitem__(0, -4), "episode 0 has rows -4 to"),
        (lambda file: file.__delitem__("ep_len"), "does not say where episodes end"),
    ],
)
def test_rows_that_do_not_fit_the_episodes_are_reported(collected, tmp_path, change, message):
    write_rows(tmp_path / "rows.h5", episodes_of(collected[1]))
    with h5py.File(tmp_path / "rows.h5", "a") as file:
        change(file)
        if "ep_len" not in file:
            del file["terminated"]
    with pytest.raises(ValueError, match=message):
        train(tmp_path, data=tmp_path / "rows.h5")


def test_an_environment_is_not_a_function_of_episodes(tmp_path):
    with pytest.raises(ValueError, match=r"expected a function that takes no arguments.*--env"):
        train(tmp_path, data="tiny_env:TinyEnv")
