"""Single environments: the API that Gymnasium and SB3 expect, and the documented behavior."""

import doctest
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import worldmodel  # noqa: F401
from worldmodel.envs import double_pendulum
from worldmodel.envs.physics import energy

STATE, PIXELS = "DoublePendulum-v0", "DoublePendulumPixels-v0"
VARIANTS = [
    (STATE, {}),
    (STATE, {"observation": "state", "torque": "elbow"}),
    (PIXELS, {}),
    (PIXELS, {"image_size": 40, "grayscale": True, "frame_stack": 3, "torque": "shoulder"}),
]


def random_rollout(env, seed, steps):
    env.action_space.seed(seed)
    observations = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observations.append(env.step(env.action_space.sample())[0])
    return np.array(observations)


@pytest.mark.parametrize(("env_id", "kwargs"), VARIANTS)
def test_gymnasium_and_sb3_checkers_pass_without_warnings(env_id, kwargs):
    env = gym.make(env_id, render_size=32, **kwargs).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
        check_env_sb3(env)


def test_ppo_trains_on_pixels_without_wrappers():
    env = gym.make(PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PPO("CnnPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu").learn(16)


def test_docstring_examples_run():
    results = doctest.testmod(double_pendulum)
    assert results.attempted > 10
    assert results.failed == 0


def test_torch_and_pygame_are_not_imported_without_a_window():
    code = (
        "import sys, gymnasium as gym, worldmodel;"
        "env = gym.make('DoublePendulumPixels-v0', render_mode='rgb_array');"
        "env.reset(seed=0); env.render();"
        "sys.exit(bool({'torch', 'pygame'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("env_id", [STATE, PIXELS])
def test_equal_seeds_give_equal_observations(env_id):
    env = gym.make(env_id, start="uniform")
    first = random_rollout(env, 5, 20)
    assert_array_equal(random_rollout(gym.make(env_id, start="uniform"), 5, 20), first)
    assert_array_equal(random_rollout(env, 5, 20), first)
    assert (random_rollout(env, 6, 20) != first).any()


def test_frames_are_stacked_oldest_first_and_repeated_at_reset():
    env = gym.make(PIXELS, start="uniform", frame_stack=3)
    observations = random_rollout(env, 0, 5).reshape(6, 64, 64, 3, 3)
    newest = observations[:, :, :, -1]
    for age in range(3):
        assert_array_equal(observations[0, :, :, age], newest[0])
        assert_array_equal(observations[5, :, :, 2 - age], newest[5 - age])
    assert (newest[4] != newest[5]).any()


def test_coordinates_are_stacked_oldest_first_and_repeated_at_reset():
    observations = random_rollout(gym.make(STATE, start="uniform", frame_stack=2), 0, 3)
    assert_array_equal(observations[0, :4], observations[0, 4:])
    assert_array_equal(observations[1:, :4], observations[:-1, 4:])


def test_state_observation_is_sines_cosines_and_angular_velocities():
    env = gym.make(STATE, observation="state")
    observation, info = env.reset(options={"state": [0.5, -2.0, 3.0, -4.0]})
    expected = [*np.sin([0.5, -2.0]), *np.cos([0.5, -2.0]), 3.0, -4.0]
    assert_allclose(observation, expected, rtol=1e-6)
    assert_array_equal(info["state"], [0.5, -2.0, 3.0, -4.0])


def test_info_state_is_a_float64_copy():
    env = gym.make(PIXELS, start="uniform")
    _, info = env.reset(seed=0)
    assert info["state"].dtype == np.float64
    kept = info["state"].copy()
    info["state"][:] = 7.0
    assert_array_equal(env.unwrapped.state, kept)


def test_the_state_option_sets_the_state_and_wraps_its_angles():
    _, info = gym.make(STATE).reset(options={"state": [4.0, -4.0, 1.0, 2.0]})
    assert_allclose(info["state"], [4.0 - 2 * np.pi, 2 * np.pi - 4.0, 1.0, 2.0])


@pytest.mark.parametrize(("start", "bound"), [("down", 0.1), ("uniform", np.pi)])
def test_start_states_cover_their_range(start, bound):
    env = gym.make(STATE, start=start)
    states = np.array([env.reset(seed=i)[1]["state"] for i in range(300)])
    assert np.abs(states).max() <= bound
    assert (states.max(axis=0) > 0.9 * bound).all()
    assert (states.min(axis=0) < -0.9 * bound).all()


def test_zero_action_conserves_energy():
    env = gym.make(PIXELS, start="uniform")
    states = [env.reset(seed=3)[1]["state"]]
    states += [env.step(np.zeros(2, np.float32))[4]["state"] for _ in range(200)]
    energies = energy(np.array(states), env.unwrapped.task.params)
    assert_allclose(energies, energies[0], rtol=1e-6)


def test_episodes_are_truncated_after_200_steps_and_never_terminated():
    env = gym.make(STATE)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(200)]
    assert ends == [(False, False)] * 199 + [(False, True)]


def test_reward_is_tip_height_minus_torque_and_speed_costs():
    env = gym.make(STATE, lengths=(1.0, 0.5), max_torque=2.0)
    env.reset(options={"state": [2.0, 3.0, 1.0, -1.0]})
    action = np.array([0.5, -1.0], np.float32)
    observation, reward, _, _, info = env.step(action)
    height = (observation[-1] + 1.5) / 3.0
    costs = 0.01 * (0.25 + 1.0) / 2 + 0.001 * np.mean(info["state"][2:] ** 2)
    assert_allclose(reward, height - costs, atol=1e-6)


def test_reward_is_one_when_balancing_upright_and_zero_when_hanging():
    env = gym.make(STATE)
    for theta, expected in ((np.pi, 1.0), (0.0, 0.0)):
        env.reset(options={"state": [theta, theta, 0.0, 0.0]})
        assert_allclose(env.step(np.zeros(2, np.float32))[1], expected, atol=1e-6)


@pytest.mark.parametrize(("torque", "index"), [("shoulder", 0), ("elbow", 1)])
def test_single_actuated_joint_equals_zero_torque_on_the_other(torque, index):
    both = np.zeros(2, np.float32)
    both[index] = 0.7
    states = []
    for kwargs, action in (({"torque": torque}, both[index : index + 1]), ({}, both)):
        env = gym.make(STATE, **kwargs)
        env.reset(seed=0)
        states.append(env.step(action)[4]["state"])
    assert_array_equal(*states)


def test_actions_outside_the_range_are_clipped():
    states = []
    for action in ([1.0, -1.0], [9.0, -9.0]):
        env = gym.make(STATE).unwrapped
        env.reset(seed=0)
        states.append(env.step(np.array(action, np.float32))[4]["state"])
    assert_array_equal(*states)


@pytest.mark.parametrize("env_id", [STATE, PIXELS])
def test_rgb_array_shows_the_current_state_at_any_size(env_id):
    env = gym.make(env_id, render_mode="rgb_array", render_size=64, start="uniform")
    env.reset(seed=0)
    observation = env.step(env.action_space.sample())[0]
    frame = env.render()
    assert frame.shape == (64, 64, 3)
    if env_id == PIXELS:
        assert_array_equal(frame, observation[..., -3:])
    large = gym.make(env_id, render_mode="rgb_array")
    large.reset(seed=0)
    assert large.render().shape == (512, 512, 3)


def test_render_fps_is_the_inverse_of_dt():
    assert gym.make(STATE).metadata["render_fps"] == 20
    assert gym.make(STATE, dt=0.02).metadata["render_fps"] == 50


def test_step_before_reset_raises_reset_needed():
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        gym.make(STATE).unwrapped.step(np.zeros(2, np.float32))
