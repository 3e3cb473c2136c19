"""The task that single and batched environments share: settings, starts, torques, rewards."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from .physics import Floats, Params, energy, positions, step_batch, wrap_angles

TORQUE_COST = 0.01
SPEED_COST = 0.001
MAX_SPEED = 1_000.0

ACTUATED = {"both": (0, 1), "shoulder": (0,), "elbow": (1,)}
START_BOUNDS = {"down": 0.1, "uniform": math.pi}


def require(valid: bool, name: str, value: object, expected: str) -> None:
    """Check an argument.

    Args:
        valid: Whether the value is valid.
        name: Name of the argument, for the message.
        value: The value, for the message.
        expected: What a valid value is, for the message.

    Raises:
        ValueError: If `valid` is False.
    """
    if not valid:
        raise ValueError(f"{name}={value!r} is not valid: expected {expected}")


def is_number(value: object) -> bool:
    """Return True for a finite real number, but not for a bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: object, minimum: int) -> bool:
    """Return True for an integer of at least `minimum`, but not for a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= minimum


def _is_positive_pair(value: Any) -> bool:
    is_pair = isinstance(value, (Sequence, np.ndarray)) and len(value) == 2
    return is_pair and all(is_number(v) and v > 0 for v in value)


@dataclass(frozen=True)
class Task:
    """Physical and control settings of a pendulum.

    Attributes:
        dt: Seconds per step.
        torque: Actuated joints: `"both"`, `"shoulder"` or `"elbow"`.
        max_torque: Torque of action 1, in N m.
        damping: Viscous friction of each joint, in N m s/rad.
        gravity: Gravitational acceleration, in m/s².
        lengths: Lengths of both rods, in m.
        masses: Masses of both bobs, in kg.
        start: Distribution of start states: `"down"` or `"uniform"`.

    Raises:
        ValueError: If a setting is not valid.
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
    def of(cls, env_class: type, settings: Mapping[str, Any]) -> Task:
        """Make a task from the keyword arguments that an environment passes on.

        Args:
            env_class: The environment's class. Its own arguments are listed in the message.
            settings: Values of the fields of `Task`.

        Raises:
            TypeError: If an argument is unknown. The message starts with Python's own words, which
                other libraries look for.
            ValueError: If a setting is not valid.
        """
        names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in names:
                parameters = inspect.signature(env_class).parameters.values()
                own = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
                raise TypeError(
                    f"{env_class.__name__}.__init__() got an unexpected keyword argument {name!r}; "
                    f"expected one of {', '.join(map(repr, [*own, *names]))}"
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

    @cached_property
    def params(self) -> Params:
        """Physical constants, as the physics functions take them."""
        return Params(
            gravity=float(self.gravity),
            length1=float(self.lengths[0]),
            length2=float(self.lengths[1]),
            mass1=float(self.masses[0]),
            mass2=float(self.masses[1]),
            damping=float(self.damping),
        )

    @cached_property
    def action_size(self) -> int:
        """Number of actuated joints."""
        return len(ACTUATED[self.torque])

    @property
    def fps(self) -> int:
        """Frames per second at real speed."""
        return max(1, round(1.0 / self.dt))

    def draw_start(self, rng: np.random.Generator) -> Floats:
        """Draw a start state with one call to the generator.

        Args:
            rng: Source of randomness.

        Returns:
            `[θ1, θ2, ω1, ω2]`, (4,) float64, in rad and rad/s.
        """
        bound = START_BOUNDS[self.start]
        return rng.uniform(-bound, bound, size=4)

    def torques(self, actions: npt.ArrayLike) -> Floats:
        """Convert actions to torques.

        Args:
            actions: Actions, (N, A). Values outside [-1, 1] are clipped.

        Returns:
            Torques on shoulder and elbow in N m, (N, 2) float64; zero where a joint has no motor.

        Raises:
            ValueError: If the shape is not (N, A), or a value is NaN.
        """
        values = np.array(actions, dtype=np.float64, order="C")
        torques = np.zeros((*values.shape[:1], 2))
        first, max_torque = ACTUATED[self.torque][0], float(self.max_torque)
        fits = values.shape[1:] == (self.action_size,)
        if not (fits and _scale(values, max_torque, first, torques)):
            expected = f"{self.action_size} numbers in [-1, 1] for torque={self.torque!r}"
            require(False, "action", actions, expected)
        return torques

    def advance(self, states: Floats, torques: Floats) -> tuple[Floats, Floats]:
        """Simulate one step of `dt` seconds with constant torques.

        Args:
            states: Current states, (N, 4) float64.
            torques: Torques on shoulder and elbow in N m, (N, 2) float64.

        Returns:
            The next states, (N, 4) float64 with angles in (-π, π], and the rewards, (N,) float64.
        """
        constants = self.params, float(self.dt), float(self.max_torque), self.action_size
        states = np.ascontiguousarray(states)
        return _advance(states, torques, *constants)

    def energy(self, states: Floats) -> Floats:
        """Compute the total energy, which is zero when the pendulum hangs down at rest.

        Args:
            states: States, (N, 4).

        Returns:
            Kinetic plus potential energy in J, (N,) float64.
        """
        return energy(np.ascontiguousarray(states, dtype=np.float64), self.params)

    def heights(self, states: Floats) -> Floats:
        """Compute the height of the tip.

        Args:
            states: States, (N, 4) float64.

        Returns:
            Heights, (N,) float64: 0 at the lowest and 1 at the highest possible position.
        """
        return _heights(states, self.params)


@njit(cache=True)
def _scale(actions: Floats, max_torque: float, first: int, torques: Floats) -> bool:
    """Write the torques of the joints from `first` on; return False if an action is NaN."""
    for n in range(actions.shape[0]):
        for k in range(actions.shape[1]):
            action = actions[n, k]
            if math.isnan(action):
                return False
            torques[n, first + k] = max_torque * min(1.0, max(-1.0, action))
    return True


@njit(cache=True)
def _heights(states: Floats, params: Params) -> Floats:
    reach = params.length1 + params.length2
    return (positions(states, params)[:, 1, 1] + reach) / (2.0 * reach)


@njit(cache=True, nogil=True)
def _advance(
    states: Floats, torques: Floats, params: Params, dt: float, max_torque: float, motors: int
) -> tuple[Floats, Floats]:
    """Compute the next states and their rewards: height minus the costs of torque and speed."""
    after = wrap_angles(step_batch(states, torques, params, dt))
    rewards = _heights(after, params)
    for n in range(rewards.shape[0]):
        effort = ((torques[n, 0] / max_torque) ** 2 + (torques[n, 1] / max_torque) ** 2) / motors
        speed = 0.5 * (after[n, 2] ** 2 + after[n, 3] ** 2)
        rewards[n] = rewards[n] - TORQUE_COST * effort - SPEED_COST * speed
    return after, rewards


def pop_state(options: Mapping[str, Any] | None, num_envs: int) -> Floats | None:
    """Read the start states from the options of a reset.

    Args:
        options: None, empty, or `{"state": ...}` of shape (4,) or (num_envs, 4).
        num_envs: Number of environments N.

    Returns:
        Start states, (N, 4) float64 with angles in (-π, π], or None if the options have no state.

    Raises:
        ValueError: If an option is unknown, or the state has another shape, is not finite, or is
            faster than `MAX_SPEED`.
    """
    unknown = sorted(set(options or ()) - {"state"})
    require(not unknown, "options", unknown, 'no key except "state", a list [θ1, θ2, ω1, ω2]')
    if not options:
        return None
    given = options["state"]
    expected = f"numbers [θ1, θ2, ω1, ω2] in rad and rad/s, speeds within ±{MAX_SPEED:g}"
    if num_envs > 1:
        expected += f", or one row per environment, shape ({num_envs}, 4)"
    try:
        state = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        state = np.empty(0)
    fits = state.shape in {(4,), (num_envs, 4)} and bool(np.isfinite(state).all())
    slow = fits and bool((np.abs(state[..., 2:]) <= MAX_SPEED).all())
    require(slow, 'options["state"]', given, expected)
    return wrap_angles(np.broadcast_to(state, (num_envs, 4)).copy())


def start_history(states: Floats, stack: int) -> Floats:
    """Make the history of an episode's first observation by repeating the start state.

    Args:
        states: Start states, (N, 4) float64.
        stack: Number S of states in a history.

    Returns:
        Histories, (N, S, 4) float64.
    """
    return np.repeat(states[:, None], stack, axis=1)


def push(history: Floats, states: Floats) -> Floats:
    """Append the newest states and drop the oldest ones.

    Args:
        history: Histories, (N, S, 4) float64, oldest first.
        states: Newest states, (N, 4) float64.

    Returns:
        Histories, (N, S, 4) float64, a new array.
    """
    return cast(Floats, np.concatenate([history[:, 1:], states[:, None]], axis=1))
