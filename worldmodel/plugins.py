"""What the toolkit may know about one environment: a plug-in, registered for its ids.

A plug-in gives names and units to the true state, and optionally energy, Lyapunov exponents, a
reference model of the true state, goals for planning and defaults of the configuration. Evaluation
and planning goals use it, and so do rollouts from a given state, agents on the true state, and
time axes. The training of a world model uses only `EnvPlugin.config_defaults`, and never the true
state. An environment without a plug-in gets `EnvPlugin`, which reads the raw state vector and
nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from worldmodel.registry import READOUTS

if TYPE_CHECKING:
    from worldmodel.data import ReplayBuffer
    from worldmodel.evaluation_config import Reference
    from worldmodel.models import WorldModel

Energy = Callable[[np.ndarray], np.ndarray]
"""Maps states (N, d) to energies (N,) in J."""

_MODULES = ("worldmodel.pendulum",)
"""Modules that register a plug-in when they are imported."""

_DEFAULT_FPS = 30

_plugins: dict[str, type[EnvPlugin]] = {}


class Readout(Protocol):
    """What probes read from latents: numbers that are determined by the true state.

    `evaluation.readout` selects a class, and ``Readout(state_dim)`` makes one for states of d
    numbers.

    Attributes:
        names: names of the T targets.
        units: units of the T targets, empty strings where there is none.
        num_scored: number of leading targets over which the worst R² is taken.
        angle_names: names of the P angles in the state vector; empty if there is none.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    num_scored: int
    angle_names: tuple[str, ...]

    def targets(self, states: np.ndarray) -> np.ndarray:
        """Map states (..., d) to targets float64 (..., T)."""

    def angles(self, targets: np.ndarray) -> np.ndarray:
        """Map targets (..., T) to angles (..., P) in rad, in [-π, π]."""

    def true_angles(self, states: np.ndarray) -> np.ndarray:
        """Map states (..., d) to their angles (..., P) in rad."""


@runtime_checkable
class InvertibleReadout(Readout, Protocol):
    """A readout whose targets determine the state, so that its energy can be computed."""

    def states(self, targets: np.ndarray) -> np.ndarray:
        """Map targets (..., T) back to states (..., d)."""


class StateReadout:
    """The raw state vector: an `InvertibleReadout` without angles."""

    angle_names: tuple[str, ...] = ()

    def __init__(self, state_dim: int) -> None:
        self.names = tuple(f"state_{i}" for i in range(state_dim))
        self.units = ("",) * state_dim
        self.num_scored = state_dim

    def targets(self, states: np.ndarray) -> np.ndarray:
        """Map states (..., d) to float64 (..., d)."""
        return np.asarray(states, np.float64)

    def angles(self, targets: np.ndarray) -> np.ndarray:
        """Return no angles, (..., 0)."""
        return np.asarray(targets)[..., :0]

    def true_angles(self, states: np.ndarray) -> np.ndarray:
        """Return no angles, (..., 0)."""
        return np.asarray(states)[..., :0]

    def states(self, targets: np.ndarray) -> np.ndarray:
        """Return the targets, which are the state."""
        return targets


class EnvPlugin:
    """Knowledge about an environment; subclass it and `register_plugin` the class.

    Attributes:
        config_defaults: nested defaults of the configuration, e.g.
            ``{"objective": {"horizon": 16}}``; the user's values take precedence. `collect` uses
            ``data.policy`` of them.
        default_goal: goal of `Run.plan` if none is given.
        state_dim: size d of the states that the plug-in knows; None for any size.
        energy: function from states (N, d) to energies (N,) in J; None if there is no energy.

    Args:
        env_id: id of a registered environment; empty for data without one.
        env_kwargs: arguments of its constructor.
    """

    config_defaults: ClassVar[Mapping[str, Any]] = {}
    default_goal: str = "reward"
    state_dim: int | None = None
    energy: Energy | None = None

    def __init__(self, env_id: str, env_kwargs: Mapping[str, Any]) -> None:
        self.env_id, self.env_kwargs = env_id, dict(env_kwargs)

    def readout(self, state_dim: int) -> Readout:
        """Return what probes read from states of `state_dim` numbers."""
        return StateReadout(state_dim)

    def lyapunov_exponents(self, states: np.ndarray, seconds: float) -> np.ndarray | None:
        """Measure largest Lyapunov exponents of trajectories, over `seconds` each.

        Args:
            states: float64 (N, d), initial states.
            seconds: simulated time of each trajectory.

        Returns:
            float64 (N,), per second; None if unknown.
        """
        return None

    def reference_errors(
        self,
        wm: WorldModel,
        train_buffer: ReplayBuffer,
        states: np.ndarray,
        actions: np.ndarray,
        settings: Reference,
        updates: int,
        seed: int,
    ) -> np.ndarray | None:
        """Compute angle errors of a reference model that is trained on the true state.

        Args:
            wm: the world model, which converts actions to action vectors.
            train_buffer: training episodes, with states.
            states: float64 (E, K+1, d), states of held-out episodes.
            actions: (E, K, A), or (E, K) if discrete, actions that lead from each state to the
                next.
            settings: hyperparameters.
            updates: number of updates of the reference model.
            seed: random seed of weights and batches.

        Returns:
            float64 (K+1, E, P) in rad; None if the plug-in has no reference model.
        """
        return None

    def goal_test(self, goal: str) -> Callable[[np.ndarray], bool] | None:
        """Return a function that checks whether a true state (d,) is at a goal; None if unknown."""
        return None

    def goal_description(self, goal: str) -> str:
        """Describe in words what `goal_test` tests."""
        return goal

    def state_env(self) -> tuple[str, dict[str, Any]]:
        """Return id and arguments of an environment that observes the true state, for agents."""
        return self.env_id, self.env_kwargs

    def set_state_options(self, state: Sequence[float]) -> dict[str, Any] | None:
        """Return options of ``env.reset`` that set the true state; None if it cannot be set."""
        return None

    def seconds_per_step(self) -> float:
        """Return the simulated seconds per step.

        The argument `dt` if the environment is given one, else the inverse of
        ``metadata["render_fps"]``, which defaults to 30 as in Gymnasium's own recorder.
        """
        if "dt" in self.env_kwargs:
            return float(self.env_kwargs["dt"])
        if not self.env_id:
            return 1.0 / _DEFAULT_FPS
        from worldmodel.data.adapters import make_single

        env: gym.Env[Any, Any] = make_single(self.env_id, self.env_kwargs)
        try:
            return 1.0 / float(env.metadata.get("render_fps") or _DEFAULT_FPS)
        finally:
            env.close()


def register_plugin(env_ids: Sequence[str], plugin: type[EnvPlugin]) -> None:
    """Register a plug-in for some environments.

    Args:
        env_ids: ids of the environments, without a leading ``module:``.
        plugin: class of the plug-in.
    """
    _plugins.update(dict.fromkeys(env_ids, plugin))


def plugin_class(env_id: str | None) -> type[EnvPlugin]:
    """Return the plug-in registered for an environment; `EnvPlugin` itself if there is none."""
    for module in _MODULES:
        importlib.import_module(module)
    return _plugins.get(str(env_id).rpartition(":")[2], EnvPlugin)


def choose_readout(name: str, plugin: EnvPlugin, state_dim: int) -> Readout:
    """Make the readout that `evaluation.readout` names.

    Args:
        name: ``auto`` for the plug-in's, or a name that `READOUTS` resolves.
        plugin: plug-in of the environment.
        state_dim: size d of a state.
    """
    if name == "auto":
        return plugin.readout(state_dim)
    readout: Readout = READOUTS.resolve(name)(state_dim)
    return readout


def find_plugin(env_id: str | None, env_kwargs: Mapping[str, Any] | None = None) -> EnvPlugin:
    """Make the plug-in of an environment.

    Args:
        env_id: id of a registered environment, ``id`` or ``module:id``; None for data without one.
        env_kwargs: arguments of its constructor.
    """
    return plugin_class(env_id)(env_id or "", env_kwargs or {})
