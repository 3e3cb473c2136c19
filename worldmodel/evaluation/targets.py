"""What probes read: numbers that the true state determines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from worldmodel.envs.task import Task

TARGETS = ("sin_theta1", "sin_theta2", "cos_theta1", "cos_theta2", "omega1", "omega2")
"""Angles and velocities of the double pendulum, as probes read them."""

PENDULUM_STATE = 4


def targets(states: np.ndarray) -> np.ndarray:
    """Angles and velocities of the double pendulum.

    Args:
        states: float (..., 4), [θ1, θ2, ω1, ω2] in rad and rad/s.

    Returns:
        float64 (..., 6), in the order of `TARGETS`; the last two in rad/s.
    """
    states = np.asarray(states, dtype=np.float64)
    theta, omega = states[..., :2], states[..., 2:]
    return np.concatenate([np.sin(theta), np.cos(theta), omega], axis=-1)


def angles_from_targets(values: np.ndarray) -> np.ndarray:
    """Angles from the first four targets by atan2(sin, cos).

    Args:
        values: float (..., 6 or more), in the order of `TARGETS`.

    Returns:
        float (..., 2), [θ1, θ2] in rad, in (-π, π].
    """
    return np.arctan2(values[..., 0:2], values[..., 2:4])


def states_from_targets(values: np.ndarray) -> np.ndarray:
    """States from the six targets.

    Args:
        values: float (..., 6 or more), in the order of `TARGETS`.

    Returns:
        float (..., 4), [θ1, θ2, ω1, ω2] in rad and rad/s.
    """
    return np.concatenate([angles_from_targets(values), values[..., 4:6]], axis=-1)


def wrap(angle: np.ndarray) -> np.ndarray:
    """The same angle in [-π, π), in rad, of any shape."""
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


@dataclass(frozen=True)
class Readout:
    """The targets of probes.

    Attributes:
        names: of the T targets.
        of: states float (..., d) to targets float64 (..., T).
        judged: how many of the first targets the worst R² is taken over.
        is_pendulum: whether the first six are `TARGETS`, so that angles can be told.
    """

    names: tuple[str, ...]
    of: Callable[[np.ndarray], np.ndarray]
    judged: int
    is_pendulum: bool


def choose_readout(task: Task | None, state_dim: int) -> Readout:
    """Angles, velocities and energy of a double pendulum; the numbers themselves of other states.

    Args:
        task: The double pendulum's physics; None for another environment.
        state_dim: Numbers in a state.
    """
    if task is None:
        names = tuple(f"state_{i}" for i in range(state_dim))
        return Readout(names, lambda states: np.asarray(states, np.float64), state_dim, False)

    def read(states: np.ndarray) -> np.ndarray:
        flat = np.asarray(states, np.float64).reshape(-1, PENDULUM_STATE)
        energy = task.energy(flat).reshape(*np.shape(states)[:-1], 1)
        return np.concatenate([targets(states), energy], axis=-1)

    return Readout((*TARGETS, "energy"), read, len(TARGETS), True)
