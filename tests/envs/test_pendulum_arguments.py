"""Bad arguments end in one error that names the value, what was expected and the mend."""

import gymnasium as gym
import numpy as np
import pytest

import worldmodel  # noqa: F401

STATE, PIXELS = "DoublePendulum-v0", "DoublePendulumPixels-v0"

BAD = [
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
BAD_VECTOR = [
    ("max_episode_steps", 0, "None for no limit"),
    ("autoreset_mode", "Later", "NextStep"),
    ("render_mode", "human", "'rgb_array'"),
]


@pytest.mark.parametrize(("env_id", "name", "value", "expected"), BAD)
def test_bad_arguments_are_refused_by_single_and_batched(env_id, name, value, expected):
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match="not valid: expected") as caught:
            make(env_id, **{name: value})
        assert f"{name}={value!r}" in str(caught.value)
        assert expected in str(caught.value)


@pytest.mark.parametrize(("name", "value", "expected"), BAD_VECTOR)
def test_bad_arguments_of_the_batch_are_refused(name, value, expected):
    with pytest.raises(ValueError, match="not valid: expected") as caught:
        gym.make_vec(STATE, num_envs=2, **{name: value})
    assert f"{name}={value!r}" in str(caught.value)
    assert expected in str(caught.value)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="gravty"):
        gym.make(STATE, gravty=9.81)


@pytest.mark.parametrize(
    "state", [[0.0] * 3, [0.0] * 5, "down", [0.0, 0.0, np.nan, 0.0], [0.0, 0.0, 1e9, 0.0], None]
)
def test_bad_state_options_are_refused(state):
    for env in (gym.make(STATE), gym.make_vec(STATE, num_envs=2)):
        with pytest.raises(ValueError, match=r'options\["state"\]=.*\[θ1, θ2, ω1, ω2\]'):
            env.reset(options={"state": state})


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="'states'"):
        gym.make(STATE).reset(options={"states": [0.0] * 4})


@pytest.mark.parametrize("action", [[0.0], [0.0] * 3, [np.nan, 0.0], 0.0])
def test_bad_actions_are_refused(action):
    env = gym.make(STATE).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 2 numbers"):
        env.step(np.array(action, np.float32))


def test_numpy_numbers_and_lists_are_good_arguments():
    gym.make(PIXELS, image_size=np.int64(32), lengths=[1, 2], masses=np.ones(2), dt=np.float32(0.1))
