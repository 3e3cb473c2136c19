"""Invalid arguments raise an error with the value and what was expected."""

import inspect
from dataclasses import fields

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import load_env_creator

import worldmodel  # noqa: F401
from worldmodel.envs.task import Task

STATE, PIXELS = "DoublePendulum-v0", "DoublePendulumPixels-v0"

INVALID = [
    (STATE, "dt", 0.0, "positive number of seconds"),
    (STATE, "dt", float("nan"), "positive number of seconds"),
    (STATE, "dt", "fast", "for example 0.05"),
    (STATE, "max_torque", -1.0, "positive number of N m"),
    (STATE, "damping", -0.1, "zero or a positive"),
    (STATE, "gravity", float("inf"), "zero or a positive"),
    (STATE, "lengths", (1.0,), "two positive numbers of m"),
    (STATE, "lengths", 1.0, "two positive numbers of m"),
    (STATE, "masses", (1.0, 0.0), "two positive numbers of kg"),
    (STATE, "torque", "knee", "'both', 'shoulder', 'elbow'"),
    (STATE, "torque", ["both"], "'both', 'shoulder', 'elbow'"),
    (STATE, "start", "up", "'down', 'uniform'"),
    (STATE, "observation", "pixels", "'coordinates' or 'state'"),
    (STATE, "frame_stack", 0, "positive integer"),
    (STATE, "frame_stack", True, "positive integer"),
    (STATE, "render_size", 4, "at least 8 pixels"),
    (PIXELS, "image_size", 64.0, "at least 8 pixels"),
    (PIXELS, "grayscale", "yes", "True or False"),
    (PIXELS, "frame_stack", -1, "positive integer"),
]
INVALID_VECTOR = [
    ("max_episode_steps", 0, "None for no limit"),
    ("autoreset_mode", "Later", "NextStep"),
    ("render_mode", "human", "'rgb_array'"),
]


def make_sync(env_id, **kwargs):
    return gym.make_vec(env_id, vectorization_mode="sync", **kwargs)


@pytest.mark.parametrize(("env_id", "name", "value", "expected"), INVALID)
def test_invalid_arguments_are_rejected_by_single_and_vector_envs(env_id, name, value, expected):
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match="not valid: expected") as caught:
            make(env_id, **{name: value})
        assert f"{name}={value!r}" in str(caught.value)
        assert expected in str(caught.value)


@pytest.mark.parametrize(("name", "value", "expected"), INVALID_VECTOR)
def test_invalid_arguments_of_vector_envs_are_rejected(name, value, expected):
    with pytest.raises(ValueError, match="not valid: expected") as caught:
        gym.make_vec(STATE, num_envs=2, **{name: value})
    assert f"{name}={value!r}" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("env_id", [STATE, PIXELS])
@pytest.mark.parametrize("make", [gym.make, gym.make_vec, make_sync])
def test_unknown_arguments_raise_the_type_error_that_python_raises(env_id, make):
    def takes_no_frameskip():
        pass

    with pytest.raises(TypeError) as expected:
        takes_no_frameskip(frameskip=4)
    words = str(expected.value).partition("()")[2]
    assert words == " got an unexpected keyword argument 'frameskip'"
    with pytest.raises(TypeError) as caught:
        make(env_id, frameskip=4)
    assert f".__init__(){words}; expected one of " in str(caught.value)


@pytest.mark.parametrize("env_id", [STATE, PIXELS])
@pytest.mark.parametrize("entry_point", ["entry_point", "vector_entry_point"])
def test_the_message_on_an_unknown_argument_lists_every_argument(env_id, entry_point):
    env_class = load_env_creator(getattr(gym.spec(env_id), entry_point))
    with pytest.raises(TypeError) as caught:
        env_class(gravty=9.81)
    start, _, listed = str(caught.value).partition("; expected one of ")
    assert start == f"{env_class.__name__}.__init__() got an unexpected keyword argument 'gravty'"
    own = inspect.signature(env_class).parameters.keys() - {"task"}
    names = own | {field.name for field in fields(Task)}
    assert sorted(listed.split(", ")) == sorted(map(repr, names))


@pytest.mark.parametrize(
    "state", [[0.0] * 3, [0.0] * 5, "down", [0.0, 0.0, np.nan, 0.0], [0.0, 0.0, 1e9, 0.0], None]
)
def test_invalid_state_options_are_rejected(state):
    for env in (gym.make(STATE), gym.make_vec(STATE, num_envs=2)):
        with pytest.raises(ValueError, match=r'options\["state"\]=.*\[θ1, θ2, ω1, ω2\]'):
            env.reset(options={"state": state})


def test_unknown_options_are_rejected():
    with pytest.raises(ValueError, match="'states'"):
        gym.make(STATE).reset(options={"states": [0.0] * 4})


@pytest.mark.parametrize("action", [[0.0], [0.0] * 3, [np.nan, 0.0], 0.0])
def test_invalid_actions_are_rejected(action):
    env = gym.make(STATE).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 2 numbers"):
        env.step(np.array(action, np.float32))


def test_numpy_numbers_and_lists_are_accepted():
    gym.make(PIXELS, image_size=np.int64(32), lengths=[1, 2], masses=np.ones(2), dt=np.float32(0.1))
