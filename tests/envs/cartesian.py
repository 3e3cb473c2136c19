"""Independent reference for the physics: bobs in Cartesian coordinates, rods as constraints.

It shares no formula with `worldmodel.envs.physics`: it uses neither angles nor a Lagrangian.
Torques act as forces normal to the rods, and the tensions of the rods are solved for together with
the accelerations.
"""

import numpy as np
from scipy.integrate import solve_ivp


def _cross(a, b):
    return a[0] * b[1] - a[1] * b[0]


def _normal(rod):
    """Unit vector in which the end of a rod moves as its angle grows, divided by the length."""
    return np.array([-rod[1], rod[0]]) / (rod @ rod)


def _derivative(_, y, shoulder, elbow, params):
    r1, r2, v1, v2 = y.reshape(4, 2)
    rod, velocity = r2 - r1, v2 - v1
    omega1, omega2 = _cross(r1, v1) / (r1 @ r1), _cross(rod, velocity) / (rod @ rod)
    shoulder = shoulder - params.damping * omega1
    elbow = elbow - params.damping * (omega2 - omega1)
    push = elbow * _normal(rod)
    force1 = (shoulder - elbow) * _normal(r1) - push - [0.0, params.mass1 * params.gravity]
    force2 = push - [0.0, params.mass2 * params.gravity]
    system, right = np.zeros((6, 6)), np.zeros(6)
    system[:4, :4] = np.diag([params.mass1] * 2 + [params.mass2] * 2)
    jacobian = np.array([[*r1, 0.0, 0.0], [*-rod, *rod]])
    system[4:, :4], system[:4, 4:] = jacobian, -jacobian.T
    right[:4] = [*force1, *force2]
    right[4:] = [-(v1 @ v1), -(velocity @ velocity)]
    return np.concatenate([v1, v2, np.linalg.solve(system, right)[:4]])


def from_state(state, params):
    """Convert `[θ1, θ2, ω1, ω2]` to positions and velocities of both bobs, (8,)."""
    theta1, theta2, omega1, omega2 = state
    down1 = params.length1 * np.array([np.sin(theta1), -np.cos(theta1)])
    down2 = params.length2 * np.array([np.sin(theta2), -np.cos(theta2)])
    move1 = omega1 * np.array([-down1[1], down1[0]])
    move2 = omega2 * np.array([-down2[1], down2[0]])
    return np.concatenate([down1, down1 + down2, move1, move1 + move2])


def step(y, torques, params, dt):
    """Integrate positions and velocities, (8,), over `dt` with constant torques."""
    args = (torques[0], torques[1], params)
    tight = {"method": "DOP853", "rtol": 1e-11, "atol": 1e-11}
    return solve_ivp(_derivative, (0.0, dt), y, args=args, **tight).y[:, -1]
