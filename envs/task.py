"""What single and batched environments share: settings, start states, torques and rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .physics import Floats, Params, energy, positions, step_batch, wrap_angles

TORQUE_COST = 0.01
SPEED_COST = 0.001
MAX_SPEED = 1_000.0

ACTUATED = {"both": (0, 1), "shoulder": (0,), "elbow": (1,)}
START_BOUNDS = {"down": 0.1, "uniform": math.pi}


def require(valid: bool, name: str, value: object, expected: str) -> None:
    """Raise ValueError with the bad value and what was expected, unless `valid`."""
    if not valid:
        raise ValueError(f"{name}={value!r} is not valid: expected {expected}")


def is_number(value: object) -> bool:
    """True for a finite real number, booleans excluded."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: object, least: int) -> bool:
    """True for an integer of at least `least`, booleans excluded."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_positive_pair(value: Any) -> bool:
    is_pair = isinstance(value, (Sequence, np.ndarray)) and len(value) == 2
    return is_pair and all(is_number(v) and v > 0 for v in value)


@dataclass(frozen=True)
class Task:
    """The physical and control settings of a pendulum, checked on creation.

    Raises:
        ValueError: naming the bad value and what was expected.
    """

    dt: float = 0.05
    torque: str = "both"
    max_torque: float = 10.0
    damping: float = 0.0
    gravity: float = 9.81
    lengths: tuple[float, float] = (1.0, 1.0)
    masses: tuple[float, float] = (1.0, 1.0)
    start: str = "down"

    @classmethod
    def of(cls, **settings: Any) -> Task:
        """A task with these settings.

        Raises:
            TypeError: naming a setting that there is not, and those that there are.
            ValueError: as the class itself does.
        """
        names = [field.name for field in fields(cls)]
        if unknown := settings.keys() - set(names):
            raise TypeError(
                f"{min(unknown)!r} is no argument: besides its own it takes {', '.join(names)}"
            )
        return cls(**settings)

    def __post_init__(self) -> None:
        for name, unit in (("dt", "seconds"), ("max_torque", "N m")):
            value = getattr(self, name)
            expected = f"a positive number of {unit}, for example {getattr(Task, name)}"
            require(is_number(value) and value > 0, name, value, expected)
        for name, unit in (("damping", "N m s/rad"), ("gravity", "m/s²")):
            value = getattr(self, name)
            expected = f"zero or a positive number of {unit}, for example {getattr(Task, name)}"
            require(is_number(value) and value >= 0, name, value, expected)
        for name, unit in (("lengths", "m"), ("masses", "kg")):
            value = getattr(self, name)
            expected = f"two positive numbers of {unit}, for example (1.0, 1.0)"
            require(_is_positive_pair(value), name, value, expected)
        for name, choices in (("torque", ACTUATED), ("start", START_BOUNDS)):
            value = getattr(self, name)
            expected = f"one of {', '.join(map(repr, choices))}"
            require(isinstance(value, str) and value in choices, name, value, expected)

    @property
    def params(self) -> Params:
        """Constants for the physics kernels."""
        return Params(
            gravity=float(self.gravity),
            length1=float(self.lengths[0]),
            length2=float(self.lengths[1]),
            mass1=float(self.masses[0]),
            mass2=float(self.masses[1]),
            damping=float(self.damping),
        )

    @property
    def action_size(self) -> int:
        """Number of actuated joints."""
        return len(ACTUATED[self.torque])

    @property
    def fps(self) -> int:
        """Frames a second of real time."""
        return max(1, round(1.0 / self.dt))

    def draw_start(self, rng: np.random.Generator) -> Floats:
        """Draw a start state, (4,), with one call to the generator."""
        bound = START_BOUNDS[self.start]
        return rng.uniform(-bound, bound, size=4)

    def torques(self, actions: npt.ArrayLike) -> Floats:
        """Torques in N m on shoulder and elbow.

        Args:
            actions: (N, A), clipped to [-1, 1].

        Returns:
            (N, 2) float64.

        Raises:
            ValueError: on another shape, or on a value that is not a number.
        """
        values = np.asarray(actions, dtype=np.float64)
        expected = f"{self.action_size} numbers in [-1, 1] for torque={self.torque!r}"
        require(
            values.ndim == 2 and values.shape[1] == self.action_size, "action", actions, expected
        )
        require(not np.isnan(values).any(), "action", actions, expected)
        torques = np.zeros((len(values), 2))
        torques[:, ACTUATED[self.torque]] = self.max_torque * np.clip(values, -1.0, 1.0)
        return torques

    def advance(self, states: Floats, torques: Floats) -> tuple[Floats, Floats]:
        """Advance by `dt` with the torques held.

        Args:
            states: (N, 4) float64.
            torques: (N, 2) float64, shoulder and elbow, in N m.

        Returns:
            The next states, (N, 4), angles in (-π, π], and the rewards, (N,).
        """
        after = wrap_angles(step_batch(states, torques, self.params, self.dt))
        return after, self.rewards(after, torques)

    def energy(self, states: Floats) -> Floats:
        """Kinetic plus potential energy in J, zero at rest hanging straight down.

        Args:
            states: (N, 4) float64.

        Returns:
            (N,) float64.
        """
        return energy(np.ascontiguousarray(states, dtype=np.float64), self.params)

    def heights(self, states: Floats) -> Floats:
        """Height of the tip of states (N, 4), 0 at its lowest and 1 at its highest: (N,)."""
        reach = sum(self.lengths)
        return (positions(states, self.params)[:, 1, 1] + reach) / (2.0 * reach)

    def rewards(self, states: Floats, torques: Floats) -> Floats:
        """Tip height in [0, 1] less the costs of torque and speed.

        Args:
            states: (N, 4), after the step.
            torques: (N, 2), during the step.

        Returns:
            (N,) float64.
        """
        effort = np.square(torques / self.max_torque).sum(axis=1) / self.action_size
        speed = 0.5 * (states[:, 2] ** 2 + states[:, 3] ** 2)
        return self.heights(states) - TORQUE_COST * effort - SPEED_COST * speed


def pop_state(options: Mapping[str, Any] | None, num_envs: int) -> Floats | None:
    """Start states asked for in the options of a reset.

    Args:
        options: None, empty, or `{"state": ...}` of shape (4,) or (num_envs, 4).
        num_envs: number of states wanted.

    Returns:
        (num_envs, 4) float64, angles in (-π, π]; None when the options name no state.

    Raises:
        ValueError: on an unknown option, or a state of another shape, not finite or too fast.
    """
    unknown = sorted(set(options or ()) - {"state"})
    require(not unknown, "options", unknown, 'no key but "state", a list [θ1, θ2, ω1, ω2]')
    if not options:
        return None
    given = options["state"]
    expected = f"numbers [θ1, θ2, ω1, ω2] in rad and rad/s, speeds within ±{MAX_SPEED:g}"
    if num_envs > 1:
        expected += f", or one such row for each of {num_envs} environments"
    try:
        state = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        state = np.empty(0)
    fits = state.shape in {(4,), (num_envs, 4)} and bool(np.isfinite(state).all())
    slow = fits and bool((np.abs(state[..., 2:]) <= MAX_SPEED).all())
    require(slow, 'options["state"]', given, expected)
    return wrap_angles(np.broadcast_to(state, (num_envs, 4)))


def start_history(states: Floats, stack: int) -> Floats:
    """Repeat start states, (N, 4), as the history (N, S, 4) of an episode's first observation."""
    return np.repeat(states[:, None], stack, axis=1)


def push(history: Floats, states: Floats) -> Floats:
    """Append states (N, 4) to a history (N, S, 4), dropping the oldest."""
    return cast(Floats, np.concatenate([history[:, 1:], states[:, None]], axis=1))
