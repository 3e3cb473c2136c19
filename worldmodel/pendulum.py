"""The plug-in of the double pendulum: state readout, energy, chaos, reference model and goal.

Importing it is cheap: torch, numba and the environment itself are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from worldmodel.plugins import Energy, EnvPlugin, Readout, StateReadout, register_plugin

if TYPE_CHECKING:
    import torch

    from worldmodel.data import ReplayBuffer
    from worldmodel.envs.task import Task
    from worldmodel.evaluation_config import Reference
    from worldmodel.models import WorldModel
    from worldmodel.optim import Terms

STATE_DIM = 4
STATE_ENV = "DoublePendulum-v0"
TARGETS = ("sin_theta1", "sin_theta2", "cos_theta1", "cos_theta2", "omega1", "omega2")
UPRIGHT_HEIGHT = 0.9
"""Height of the tip, as a fraction of its range, above which the pendulum is upright."""

_SETTLE_SECONDS = 5.0
_OFFSET = 1e-6

Step = Callable[[np.ndarray], np.ndarray]


def angle_targets(states: np.ndarray) -> np.ndarray:
    """Convert angles to sine and cosine, beside angular velocities.

    Args:
        states: float (..., 4), [θ1, θ2, ω1, ω2] in rad and rad/s.

    Returns:
        float64 (..., 6), in the order of `TARGETS`; the last two in rad/s.
    """
    states = np.asarray(states, dtype=np.float64)
    theta, omega = states[..., :2], states[..., 2:]
    return np.concatenate([np.sin(theta), np.cos(theta), omega], axis=-1)


def angles_from_targets(targets: np.ndarray) -> np.ndarray:
    """Compute angles by atan2(sin, cos): (..., 6 or more), ordered as `TARGETS`, to (..., 2)."""
    angles: np.ndarray = np.arctan2(targets[..., 0:2], targets[..., 2:4])
    return angles


class PendulumReadout:
    """Sine and cosine of both angles, both angular velocities, and the energy: an
    `InvertibleReadout`.

    Args:
        energy: function from states (N, 4) to energies (N,) in J.
    """

    names: tuple[str, ...] = (*TARGETS, "energy")
    units: tuple[str, ...] = ("", "", "", "", "rad/s", "rad/s", "J")
    num_scored = len(TARGETS)
    angle_names: tuple[str, ...] = ("θ1", "θ2")

    def __init__(self, energy: Energy) -> None:
        self._energy = energy

    def targets(self, states: np.ndarray) -> np.ndarray:
        """Map states (..., 4) to targets float64 (..., 7)."""
        flat = np.asarray(states, np.float64).reshape(-1, STATE_DIM)
        energy = self._energy(flat).reshape(*np.shape(states)[:-1], 1)
        return np.concatenate([angle_targets(states), energy], axis=-1)

    def angles(self, targets: np.ndarray) -> np.ndarray:
        """Map targets (..., 7) to angles (..., 2) in rad, in (-π, π]."""
        return angles_from_targets(targets)

    def true_angles(self, states: np.ndarray) -> np.ndarray:
        """Map states (..., 4) to angles (..., 2) in rad."""
        return np.asarray(states)[..., :2]

    def states(self, targets: np.ndarray) -> np.ndarray:
        """Map targets (..., 7) to states (..., 4); the energy is ignored."""
        return np.concatenate([angles_from_targets(targets), targets[..., 4:6]], axis=-1)


class DoublePendulum(EnvPlugin):
    """What evaluation and planning know about the double pendulum.

    States are [θ1, θ2, ω1, ω2] in rad and rad/s, zero where it hangs down at rest.
    """

    config_defaults: ClassVar[Mapping[str, Any]] = {
        "data": {
            "size": 10_000,
            "steps": 30,
            "policy": "passive",
            "env_kwargs": {"start": "uniform"},
        },
        "frame_stack": 2,
        "model": {"encoder": "keypoints"},
        "objective": {"name": "vicreg", "horizon": 16},
    }
    default_goal = "upright"
    state_dim = STATE_DIM

    @cached_property
    def task(self) -> Task:
        """The physical settings, with dynamics and energy."""
        from worldmodel.data.adapters import make_single

        env = make_single(self.env_id, self.env_kwargs)
        try:
            task: Task = env.unwrapped.task  # type: ignore[attr-defined]
            return task
        finally:
            env.close()

    def readout(self, state_dim: int) -> Readout:
        """Read angles, velocities and energy; states of another size number by number."""
        return (
            PendulumReadout(self.task.energy) if state_dim == STATE_DIM else StateReadout(state_dim)
        )

    def energy(self, states: np.ndarray) -> np.ndarray:
        """Compute the total energy of states (N, 4), float64 (N,) in J; zero at rest."""
        energy: np.ndarray = self.task.energy(states)
        return energy

    def lyapunov_exponents(self, states: np.ndarray, seconds: float) -> np.ndarray | None:
        """Measure the largest Lyapunov exponents without torque, see `lyapunov_exponents`."""
        task = self.task

        def step(states: np.ndarray) -> np.ndarray:
            after: np.ndarray = task.advance(states, np.zeros((len(states), 2)))[0]
            return after

        return lyapunov_exponents(step, states, task.dt, seconds=seconds)

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
        """Train a `ReferenceModel` and measure the errors of its forecasts."""
        model = train_reference(wm, train_buffer, settings, updates=updates, seed=seed)
        return model.errors(states, actions)

    def goal_test(self, goal: str) -> Callable[[np.ndarray], bool] | None:
        """Return the test of ``"upright"``."""
        if goal != "upright":
            return None
        task = self.task
        return lambda state: bool(task.heights(np.asarray(state)[None])[0] > UPRIGHT_HEIGHT)

    def goal_description(self, goal: str) -> str:
        """Describe the goal in words."""
        return f"tip above {UPRIGHT_HEIGHT} of its range"

    def state_env(self) -> tuple[str, dict[str, Any]]:
        """Observe (sin θ, cos θ, ω) under the same physical settings."""
        return STATE_ENV, {**asdict(self.task), "observation": "state"}

    def set_state_options(self, state: Sequence[float]) -> dict[str, Any] | None:
        """Start an episode in [θ1, θ2, ω1, ω2]."""
        return {"state": list(state)}


def lyapunov_exponents(
    step: Step, starts: np.ndarray, dt: float, *, seconds: float, offset: float = _OFFSET
) -> np.ndarray:
    """Measure the largest Lyapunov exponent of each trajectory with a second, renormalized one.

    A neighbour starts at a distance `offset` in a random direction and is moved back to that
    distance after every step; the exponent is the mean logarithm of the growth (Benettin, Galgani
    and Strelcyn, Phys. Rev. A 14, 2338, 1976). The first 5 s, in which the difference turns to the
    direction of fastest growth, are left out.

    Args:
        step: function that advances states (N, 4) [θ1, θ2, ω1, ω2] by `dt`.
        starts: float64 (N, 4), initial states in rad and rad/s.
        dt: seconds per step.
        seconds: simulated time that is measured, after the first 5 s.
        offset: distance of the neighbour.

    Returns:
        float64 (N,), per second.
    """
    from worldmodel.evaluation.forecast import wrap_angle

    direction = np.random.default_rng(0).normal(size=starts.shape)
    states, neighbours = starts, starts + offset * _unit(direction)
    settle, measured = round(_SETTLE_SECONDS / dt), max(round(seconds / dt), 1)
    growth = np.zeros(len(starts))
    for i in range(settle + measured):
        states, neighbours = step(states), step(neighbours)
        difference = neighbours - states
        difference[:, :2] = wrap_angle(difference[:, :2])
        if i >= settle:
            growth += np.log(np.linalg.norm(difference, axis=1) / offset)
        neighbours = states + offset * _unit(difference)
    exponents: np.ndarray = growth / (measured * dt)
    return exponents


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


class ReferenceModel:
    """A predictor like the world model's, on the true state (sin θ, cos θ, ω / scale).

    It shows what a forecast from pixels could reach with a perfect encoder and a small latent.

    Args:
        wm: the world model, which converts actions to action vectors.
        action_dim: size A of an action vector.
        omega_scale: divisor of angular velocities, in rad/s.
        hidden: width of the hidden layers.
    """

    def __init__(self, wm: WorldModel, action_dim: int, omega_scale: float, hidden: int) -> None:
        import torch

        from worldmodel.models.predictors import ResidualPredictor

        self.action_vector = wm.action_vector
        self.scale = torch.tensor([1.0, 1.0, 1.0, 1.0, omega_scale, omega_scale])
        self.predictor = ResidualPredictor(len(TARGETS), action_dim, hidden)

    def features(self, states: np.ndarray) -> torch.Tensor:
        """Map states float64 (..., 4) to float32 (..., 6)."""
        import torch

        return torch.as_tensor(angle_targets(states), dtype=torch.float32) / self.scale

    def forecast(self, states: np.ndarray, actions: np.ndarray) -> torch.Tensor:
        """Forecast from states (B, 4) under actions (B, T, ...): features (T, B, 6)."""
        from worldmodel.models import unroll

        vectors = self.action_vector(actions).cpu().transpose(0, 1)
        return unroll(self.predictor, self.features(states), vectors)

    def errors(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Compute angle errors of forecasts from the true state.

        Args:
            states: float64 (B, K+1, 4), true states in rad and rad/s.
            actions: (B, K, A), or (B, K) if discrete, as recorded.

        Returns:
            float64 (K+1, B, 2) in rad, zero at k = 0; π where a forecast has diverged to NaN.
        """
        import torch

        from worldmodel.evaluation.forecast import angle_errors

        true = states[..., :2].swapaxes(0, 1)
        with torch.no_grad():
            forecast = self.forecast(states[:, 0], actions).numpy().astype(np.float64)
        return angle_errors(np.concatenate([true[:1], angles_from_targets(forecast)]), true)


def train_reference(
    wm: WorldModel, buffer: ReplayBuffer, settings: Reference, *, updates: int, seed: int = 0
) -> ReferenceModel:
    """Train a `ReferenceModel` on the states of training episodes.

    Minimizes the mean squared error of the features at every unrolled step. The global random
    state is untouched.

    Args:
        wm: the world model, which converts actions to action vectors.
        buffer: training episodes, with states.
        settings: hyperparameters; the horizon is limited by the longest episode.
        updates: number of updates, at least 1.
        seed: random seed of the initial weights and the windows.
    """
    import torch
    from torch.nn.functional import mse_loss

    from worldmodel.optim import Phase

    length = min(settings.horizon + 1, int(buffer.lengths.max()))
    size = settings.batch_size
    states, actions = sample_windows(buffer, np.random.default_rng(seed), length, size)
    action_dim, omega_scale = wm.action_vector(actions).shape[-1], float(np.std(states[..., 2:]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ReferenceModel(wm, action_dim, omega_scale, settings.hidden)
    rng = np.random.default_rng(seed)

    def loss(update: int) -> tuple[torch.Tensor, Terms]:
        states, actions = sample_windows(buffer, rng, length, size)
        predicted = model.forecast(states[:, 0], actions)  # (length - 1, B, 6)
        error = mse_loss(predicted, model.features(states[:, 1:]).transpose(0, 1))
        return error, {"prediction": error.detach()}

    Phase("reference", list(model.predictor.parameters()), loss, settings, updates).run()
    return model


def sample_windows(
    buffer: ReplayBuffer, rng: np.random.Generator, length: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows: states float64 (B, L, 4), and the actions (B, L-1, ...) in between."""
    from worldmodel.data.windows import count_windows, uniform_starts

    episodes, starts = uniform_starts(count_windows(buffer.lengths, length), count, rng)
    states = buffer.states(episodes, starts, length)
    return states, buffer.actions(episodes, starts, length)


register_plugin((STATE_ENV, "DoublePendulumPixels-v0"), DoublePendulum)
