"""Physics against independent mechanics: forces, energy, work and symmetries."""

import cartesian
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import eigh

from worldmodel.envs.physics import Params, energy, positions, step_batch, wrap_angles

UNEQUAL = Params(gravity=9.0, length1=0.7, length2=1.4, mass1=2.0, mass2=0.6)
DAMPED = UNEQUAL._replace(damping=0.3)
NO_TORQUE = np.zeros((1, 2))


def draw_states(count, speed=np.pi, seed=0):
    high = np.array([np.pi, np.pi, speed, speed])
    return np.random.default_rng(seed).uniform(-high, high, (count, 4))


def passive(states, params, seconds, dt=0.05):
    torques = np.zeros((len(states), 2))
    for _ in range(round(seconds / dt)):
        states = step_batch(states, torques, params, dt)
        yield states


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "params", [Params(), UNEQUAL, DAMPED], ids=["default", "unequal", "damped"]
)
def test_driven_motion_matches_cartesian_mechanics(params, seed):
    rng = np.random.default_rng(seed)
    state = draw_states(1, seed=seed)
    expected = cartesian.from_state(state[0], params)
    for torques in rng.uniform(-10.0, 10.0, (40, 2)):
        state = step_batch(state, torques[None], params, 0.05)
        expected = cartesian.step(expected, torques, params, 0.05)
    assert_allclose(cartesian.from_state(state[0], params), expected, atol=1e-6)


@pytest.mark.parametrize("mode", [0, 1])
def test_small_oscillations_have_the_normal_mode_periods(mode):
    g, l1, l2, m1, m2, _ = UNEQUAL
    stiffness = np.diag([(m1 + m2) * g * l1, m2 * g * l2])
    mass = np.array([[(m1 + m2) * l1**2, m2 * l1 * l2], [m2 * l1 * l2, m2 * l2**2]])
    squares, shapes = eigh(stiffness, mass)
    start = np.array([[*1e-4 * shapes[:, mode], 0.0, 0.0]])
    period = 2.0 * np.pi / np.sqrt(squares[mode])
    *_, end = passive(start, UNEQUAL, period, dt=period / 40)
    assert_allclose(end, start, atol=1e-9)


@pytest.mark.parametrize("speed", [0.1, np.pi, 20.0], ids=["slow", "uniform", "fast"])
def test_passive_motion_conserves_energy_for_ten_seconds(speed):
    states = draw_states(100, speed)
    before = energy(states, Params())
    drift = [
        np.abs(energy(s, Params()) / before - 1.0).max() for s in passive(states, Params(), 10)
    ]
    assert max(drift) < 1e-6


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.tuples(*[st.floats(0.3, 3.0)] * 2),
    masses=st.tuples(*[st.floats(0.1, 10.0)] * 2),
    seed=st.integers(0, 1000),
)
def test_passive_motion_conserves_energy_for_any_lengths_and_masses(lengths, masses, seed):
    params = Params(9.81, *lengths, *masses)
    states = draw_states(10, seed=seed)
    before = energy(states, params)
    *_, after = passive(states, params, 10)
    assert_allclose(energy(after, params), before, rtol=1e-6)


def test_half_the_step_divides_the_error_by_two_to_the_sixth():
    params, states = Params(gravity=1.0), draw_states(20, 0.5)
    *_, exact = passive(states, params, 1, dt=0.0025)
    errors = []
    for dt in (0.02, 0.01):  # short enough for a single substep
        *_, after = passive(states, params, 1, dt=dt)
        errors.append(np.abs(after - exact).max())
    assert 2**5.5 < errors[0] / errors[1] < 2**6.5


def test_work_of_the_torques_equals_the_energy_change():
    states = draw_states(50)
    torques = np.random.default_rng(1).uniform(-10.0, 10.0, (50, 2))
    after = states
    for _ in range(40):
        after = step_batch(after, torques, UNEQUAL, 0.05)
    turned = after - states
    work = torques[:, 0] * turned[:, 0] + torques[:, 1] * (turned[:, 1] - turned[:, 0])
    assert_allclose(energy(after, UNEQUAL) - energy(states, UNEQUAL), work, rtol=1e-6, atol=1e-5)


def test_damping_dissipates_the_power_of_both_joints():
    states = draw_states(20)
    path = np.array([states, *passive(states, DAMPED, 1.0, dt=0.0025)])
    rate1, rate2 = path[:, :, 2], path[:, :, 3] - path[:, :, 2]
    power = DAMPED.damping * (rate1**2 + rate2**2)
    lost = 0.0025 / 3.0 * (power[:-1:2] + 4.0 * power[1::2] + power[2::2]).sum(axis=0)
    assert_allclose(energy(path[0], DAMPED) - energy(path[-1], DAMPED), lost, rtol=1e-5)


def test_elbow_torque_conserves_angular_momentum_without_gravity():
    params = UNEQUAL._replace(gravity=0.0)
    states = np.array([[0.3, 1.5, 0.0, 0.0]])
    for _ in range(20):
        states = step_batch(states, np.array([[0.0, 2.0]]), params, 0.05)
    r1, r2, v1, v2 = cartesian.from_state(states[0], params).reshape(4, 2)
    momentum = params.mass1 * np.cross([*r1, 0], [*v1, 0]) + params.mass2 * np.cross(
        [*r2, 0], [*v2, 0]
    )
    assert abs(states[0, 3]) > 1.0
    assert_allclose(momentum, 0.0, atol=1e-7)


def test_reversing_the_velocities_returns_to_the_start():
    states = draw_states(20)
    *_, end = passive(states, UNEQUAL, 2.0)
    *_, back = passive(end * [1, 1, -1, -1], UNEQUAL, 2.0)
    assert_allclose(back * [1, 1, -1, -1], states, atol=1e-5)


def test_mirrored_states_and_torques_give_mirrored_motion():
    states = draw_states(20)
    torques = np.random.default_rng(1).uniform(-10.0, 10.0, (20, 2))
    mirrored = step_batch(-states, -torques, DAMPED, 0.05)
    assert_array_equal(mirrored, -step_batch(states, torques, DAMPED, 0.05))


def test_batched_steps_equal_single_steps_bit_for_bit():
    states = draw_states(33)
    torques = np.random.default_rng(1).uniform(-10.0, 10.0, (33, 2))
    single = [step_batch(s[None], t[None], DAMPED, 0.05)[0] for s, t in zip(states, torques)]
    assert_array_equal(step_batch(states, torques, DAMPED, 0.05), single)


def test_energy_is_zero_at_rest_and_includes_both_bobs():
    params = Params(gravity=10.0, length1=1.0, length2=2.0, mass1=3.0, mass2=4.0)
    states = np.array([[0, 0, 0, 0], [np.pi, np.pi, 0, 0], [0, 0, 1.0, 0]], dtype=float)
    upright = 3.0 * 10.0 * 2.0 + 4.0 * 10.0 * 6.0
    assert_allclose(energy(states, params), [0.0, upright, 0.5 * (3.0 + 4.0)])


def test_zero_angles_hang_down_and_positive_angles_turn_counter_clockwise():
    states = np.array([[0, 0, 0, 0], [np.pi / 2, np.pi, 0, 0]], dtype=float)
    expected = [[[0, -0.7], [0, -2.1]], [[0.7, 0], [0.7, 1.4]]]
    assert_allclose(positions(states, UNEQUAL), expected, atol=1e-12)


@given(st.floats(-50.0, 50.0), st.floats(-50.0, 50.0))
def test_wrapped_angles_are_equivalent_and_within_pi(theta1, theta2):
    states = np.array([[theta1, theta2, 100.0, -100.0]])
    wrapped = wrap_angles(states)
    assert (wrapped[:, :2] > -np.pi).all()
    assert (wrapped[:, :2] <= np.pi).all()
    assert_allclose(np.exp(1j * wrapped[:, :2]), np.exp(1j * states[:, :2]), atol=1e-12)
    assert_array_equal(wrapped[:, 2:], states[:, 2:])


def test_minus_pi_wraps_to_plus_pi():
    assert_array_equal(wrap_angles(np.array([[-np.pi, np.pi, 0.0, 0.0]]))[0, :2], [np.pi, np.pi])


def test_extreme_settings_finish_in_bounded_time():
    step_batch(np.array([[0.0, 0.0, 1e300, 0.0]]), NO_TORQUE, Params(mass1=1e-12), 0.05)
