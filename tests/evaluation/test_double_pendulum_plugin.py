"""The double pendulum's plug-in: readout, energy, Lyapunov exponents, reference model, goal."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from free_hands import FreeHands
from numpy.testing import assert_allclose, assert_array_equal
from tiny_model import TinyModel, simulate, write_buffer

from worldmodel.evaluation.forecast import wrap_angle
from worldmodel.evaluation_config import Reference
from worldmodel.pendulum import (
    TARGETS,
    DoublePendulum,
    angle_targets,
    angles_from_targets,
    lyapunov_exponents,
    sample_windows,
    train_reference,
)
from worldmodel.plugins import (
    EnvPlugin,
    InvertibleReadout,
    StateReadout,
    choose_readout,
    find_plugin,
)

DT = 0.05
PLUGIN = find_plugin("DoublePendulum-v0")
RNG = np.random.default_rng(0)


def random_states(count):
    theta = RNG.uniform(-np.pi, np.pi, (count, 2))
    return np.concatenate([theta, RNG.normal(0.0, 4.0, (count, 2))], axis=1)


def test_importing_the_plugin_loads_no_torch_numba_or_pygame():
    code = (
        "import sys, worldmodel.pendulum; "
        "print([m for m in ('torch', 'numba', 'pygame') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("env_id", ["DoublePendulum-v0", "worldmodel:DoublePendulumPixels-v0"])
def test_energy_depends_on_the_physical_settings(env_id):
    plugin = find_plugin(env_id, {"masses": (2.0, 1.0), "lengths": (1.0, 0.5), "gravity": 10.0})
    up = np.array([[0.0, 0.0, 0.0, 0.0], [np.pi, np.pi, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    assert_allclose(plugin.energy(up), [0.0, 2 * 2.0 * 10 + 2 * 1.5 * 10, 1.5], atol=1e-9)


def test_other_environments_have_no_plugin_of_their_own():
    plugin = find_plugin("CartPole-v1")
    assert type(plugin) is EnvPlugin
    assert plugin.energy is None
    assert plugin.goal_test("upright") is None


@pytest.mark.parametrize(
    ("env_id", "kwargs", "seconds"),
    [
        ("DoublePendulumPixels-v0", {}, 0.05),
        ("DoublePendulumPixels-v0", {"dt": 0.03}, 0.03),
        ("CartPole-v1", {}, 0.02),
        ("FrozenLake-v1", {}, 0.25),
    ],
)
def test_a_step_lasts_as_long_as_the_environment_declares(env_id, kwargs, seconds):
    assert find_plugin(env_id, kwargs).seconds_per_step() == pytest.approx(seconds)


def test_targets_are_in_their_order():
    a, b, c, d = 0.3, -2.0, 1.5, -7.0
    expected = [np.sin(a), np.sin(b), np.cos(a), np.cos(b), c, d]
    assert_allclose(angle_targets(np.array([a, b, c, d])), expected)
    assert len(TARGETS) == 6


def test_angles_are_recovered_from_targets_after_any_number_of_turns():
    states = random_states(50)
    states[:, :2] += 2.0 * np.pi * RNG.integers(-3, 4, (50, 2))
    assert_allclose(
        angles_from_targets(angle_targets(states)), wrap_angle(states[:, :2]), atol=1e-9
    )


def test_the_readout_has_angles_velocities_and_energy_and_determines_the_state():
    readout, states = PLUGIN.readout(4), random_states(200)
    targets = readout.targets(states)
    assert readout.names == (*TARGETS, "energy")
    assert readout.num_scored == 6
    assert_array_equal(targets[:, :6], angle_targets(states))
    assert_allclose(targets[:, -1], PLUGIN.energy(states))
    assert_allclose(readout.targets(states.reshape(20, 10, 4))[3, 7], targets[37])
    assert_allclose(readout.true_angles(states), states[:, :2])
    assert isinstance(readout, InvertibleReadout)
    assert_allclose(readout.states(targets), states, atol=1e-9)


def test_a_state_of_another_size_is_read_number_by_number():
    readout = PLUGIN.readout(5)
    assert isinstance(readout, StateReadout)
    assert readout.angle_names == ()


def test_the_configuration_chooses_the_readout():
    assert choose_readout("auto", PLUGIN, 4).names == (*TARGETS, "energy")
    assert choose_readout("state", PLUGIN, 4).names[3] == "state_3"
    own = choose_readout("worldmodel.plugins:StateReadout", PLUGIN, 2)
    assert own.names == ("state_0", "state_1")


def test_upright_means_that_the_tip_is_near_its_highest_position():
    assert PLUGIN.default_goal == "upright"
    reached = PLUGIN.goal_test("upright")
    assert reached(np.array([np.pi, np.pi, 0.0, 0.0]))
    assert reached(np.array([np.pi + 0.3, np.pi, 5.0, 0.0]))
    assert not reached(np.array([np.pi + 1.0, np.pi, 0.0, 0.0]))
    assert not reached(np.zeros(4))
    assert "0.9" in PLUGIN.goal_description("upright")


def test_agents_on_the_state_act_under_the_same_physics():
    plugin = find_plugin("DoublePendulumPixels-v0", {"gravity": 3.0, "image_size": 32})
    env_id, kwargs = plugin.state_env()
    env = gym.make(env_id, **kwargs)
    assert env.unwrapped.task == plugin.task
    assert env.unwrapped.task.gravity == 3.0
    options = plugin.set_state_options([0.1, 0.2, 0.3, 0.4])
    observation, info = env.reset(seed=0, options=options)
    assert observation.shape == (6,)
    assert_allclose(info["state"], [0.1, 0.2, 0.3, 0.4])


def without_torque(states):
    return PLUGIN.task.advance(states, np.zeros((len(states), 2)))[0]


def test_the_exponent_of_a_linear_system_is_its_largest_eigenvalue():
    rates = np.array([0.3, -1.0, 0.8, 0.1])
    mix = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    flow = mix @ np.diag(np.exp(rates * DT)) @ mix.T
    exponents = lyapunov_exponents(lambda s: s @ flow.T, np.zeros((5, 4)), DT, seconds=10)
    assert_allclose(exponents, 0.8, atol=0.03)


def test_small_swings_are_regular_and_high_energies_are_chaotic():
    starts = np.array([[0.05, -0.03, 0.0, 0.0], [2.5, 2.8, 1.0, -1.0]])
    regular, chaotic = PLUGIN.lyapunov_exponents(starts, seconds=60)
    assert abs(regular) < 0.1
    assert chaotic > 0.8


def test_the_exponent_does_not_depend_on_the_offset():
    starts = np.random.default_rng(0).uniform(-np.pi, np.pi, (40, 4))
    small, large = (
        lyapunov_exponents(without_torque, starts, DT, seconds=20, offset=offset).mean()
        for offset in (1e-7, 1e-5)
    )
    assert small == pytest.approx(large, abs=0.1)


def assert_actions_lead_from_state_to_state(states, actions):
    assert_allclose(states[:, :-1, 2:] + actions, states[:, 1:, 2:], atol=1e-6)


def test_the_reference_model_is_trained_on_actions_aligned_with_states(tmp_path):
    buffer = write_buffer(tmp_path, *simulate(50, 14, 3, push=1.0), 0)
    states, actions = sample_windows(buffer, np.random.default_rng(0), 9, 128)
    assert states.shape == (128, 9, 4)
    assert_actions_lead_from_state_to_state(states, actions)


def test_the_reference_model_learns_the_effect_of_actions(tmp_path):
    states, actions = simulate(200, 14, 3, push=1.0)
    buffer = write_buffer(tmp_path, states, actions, 0)
    model = train_reference(TinyModel(), buffer, Reference(), updates=60)
    assert model.scale[:4].tolist() == [1.0] * 4
    assert model.scale[4:].tolist() == pytest.approx([states[..., 2:].std()] * 2, rel=0.1)
    errors = model.errors(states[:, 2:], actions[:, 2:])
    late = model.errors(states[:, 2:], np.roll(actions[:, 2:], 1, axis=1))
    assert errors.shape == (12, 200, 2)
    assert not errors[0].any()
    assert np.median(errors[8]) < 0.8 * np.median(late[8])


def test_the_plugin_returns_the_errors_of_the_reference_model(tmp_path):
    states, actions = simulate(20, 14, 3, push=1.0)
    buffer = write_buffer(tmp_path, states, actions, 0)
    settings = Reference(horizon=4, hidden=16, batch_size=8)
    errors = FreeHands().reference_errors(
        TinyModel(), buffer, states, actions, settings, updates=3, seed=1
    )
    model = train_reference(TinyModel(), buffer, settings, updates=3, seed=1)
    assert model.predictor.net[0].out_features == 16
    assert_array_equal(errors, model.errors(states, actions))


def test_the_double_pendulum_is_registered_for_both_environments():
    for env_id in ("DoublePendulum-v0", "DoublePendulumPixels-v0"):
        assert type(find_plugin(env_id)) is DoublePendulum
