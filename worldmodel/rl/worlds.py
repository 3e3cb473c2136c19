"""What agents can be trained on, each as Stable-Baselines3 takes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
from gymnasium import spaces

from worldmodel.config import Config
from worldmodel.data.environments import find_spec, make_batch
from worldmodel.evaluation import pendulum_task
from worldmodel.imagination import LatentVectorEnv, VectorLatentObservation, load_dream
from worldmodel.models import WorldModel
from worldmodel.reality import make_envs
from worldmodel.rl.guards import Guards, guard
from worldmodel.run import Run, load

View = Literal["state", "latent", "dream", "pixels"]

_LEAST_SIDE = 36

VIEWS: dict[View, str] = {
    "state": "the real environment's true state",
    "latent": "the real environment through the frozen encoder",
    "dream": "the model alone, never a real step",
    "pixels": "the real environment's frames, with a convolutional network of the agent's own",
}
"""What an agent sees, and where it is trained."""


@dataclass(frozen=True)
class Worlds:
    """A run's environments, as one kind of agent sees them.

    Attributes:
        run: Its directory.
        on: What the agent is trained on.
        config: The run's configuration.
        wm: Its model.
    """

    run: Path
    on: View
    config: Config
    wm: WorldModel

    @property
    def model_steps(self) -> int:
        """Real steps in the model's training data; 0 if the agent needs no model.

        Episodes that ended early count as long as they were, or as the longest there could be if
        the run's ``metrics.json`` is missing.
        """
        if self.on not in ("latent", "dream"):
            return 0
        run, data = Run(self.run), self.config.data
        told = run.load_metrics()["data"] if run.metrics.exists() else {}
        return int(told.get("train_steps", data.size * data.steps))

    def training(self, num_envs: int, guards: Guards) -> gym.vector.VectorEnv:
        """Where the agent is trained: N environments that are only reset when told to."""
        if self.on != "dream":
            return self.real(num_envs)
        dream = LatentVectorEnv(
            self.wm,
            num_envs,
            **load_dream(self.run, self.wm),
            max_episode_steps=guards.dream_steps,
            autoreset_mode="Disabled",
        )
        return guard(dream, guards)

    def real(self, num_envs: int, render_mode: str | None = None) -> gym.vector.VectorEnv:
        """Where the agent is judged: the real environment, as the agent sees it."""
        if self.on == "state":
            return state_envs(self.config, num_envs, render_mode)
        envs = make_envs(self.run, num_envs, render_mode)
        if self.on == "pixels":
            return envs
        return VectorLatentObservation(envs, self.wm, load_dream(self.run, self.wm)["domain"])


def open_worlds(run: Path, on: str, device: str = "cpu") -> Worlds:
    """Open a finished run for agents of one kind.

    Raises:
        RunError: There is no finished run.
        ValueError: There is no such kind, or it does not fit the run.
    """
    if on not in VIEWS:
        raise ValueError(f"--on is {on!r}; expected one of {', '.join(VIEWS)}")
    config, wm = Run(run).config(), load(run, device)
    if on == "pixels":
        _require_pixels(run, wm)
    worlds = Worlds(run, on, config, wm)
    worlds.real(1).close()
    return worlds


def _require_pixels(run: Path, wm: WorldModel) -> None:
    side, *rest = wm.spec.frame_shape
    if not rest:
        raise ValueError(
            f"{run} learned from vectors and shows no pixels; use --on latent, dream or state"
        )
    if side < _LEAST_SIDE:
        raise ValueError(
            f"{run} has frames of {side} pixels, and the convolutional network of "
            f"Stable-Baselines3 needs {_LEAST_SIDE}; use --on latent, dream or state"
        )


def state_envs(
    config: Config, num_envs: int, render_mode: str | None = None
) -> gym.vector.VectorEnv:
    """The real environment of a run with its true state as observation.

    The pendulum's is (sin θ, cos θ, ω); other environments show their own vector.

    Raises:
        ValueError: The environment has no vector observation.
    """
    spec, kwargs = _state_env(config)
    native = spec.id == _PENDULUM
    if render_mode is not None:
        kwargs["render_mode"] = render_mode
    envs = make_batch(spec, kwargs, native=native, num_envs=num_envs)
    space = envs.single_observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        envs.close()
        raise ValueError(
            f"{spec.id} shows {space} and no vector that could be its state; use another --on"
        )
    return envs


_PENDULUM = "DoublePendulum-v0"


def _state_env(config: Config) -> tuple[gym.envs.registration.EnvSpec, dict[str, Any]]:
    task = pendulum_task(config.env.id, config.env.kwargs)
    if task is None:
        return find_spec(config.env.id), dict(config.env.kwargs)
    return gym.spec(_PENDULUM), {**asdict(task), "observation": "state"}
