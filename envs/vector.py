"""Vector environments that simulate and draw N double pendulums in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from .observations import Observer, PixelObserver, require_size, vector_observer
from .physics import Floats
from .raster import Frames, Scene
from .task import Task, is_count, pop_state, push, require, start_history

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def _autoreset_mode(value: AutoresetMode | str) -> AutoresetMode:
    names = [mode.value for mode in AutoresetMode]
    valid = isinstance(value, AutoresetMode) or value in names
    require(valid, "autoreset_mode", value, f"an AutoresetMode or one of {names}")
    return AutoresetMode(value)


class _PendulumVectorEnv(VectorEnv[Array, Array, Array]):
    """N copies of a task with an observer."""

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        task: Task,
        observer: Observer,
        num_envs: int,
        max_episode_steps: int | None,
        autoreset_mode: AutoresetMode | str,
        render_mode: str | None,
        render_size: int,
    ) -> None:
        require(is_count(num_envs, 1), "num_envs", num_envs, "a positive integer")
        limit_valid = max_episode_steps is None or is_count(max_episode_steps, 1)
        expected = "a positive integer, or None for no limit"
        require(limit_valid, "max_episode_steps", max_episode_steps, expected)
        modes = (None, "rgb_array")
        require(render_mode in modes, "render_mode", render_mode, "None or 'rgb_array'")
        require_size("render_size", render_size)
        self.task = task
        self.num_envs = int(num_envs)
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {
            **self.metadata,
            "render_fps": task.fps,
            "autoreset_mode": self.autoreset_mode,
        }
        self.render_mode = render_mode
        self.single_observation_space = observer.space
        self.single_action_space = spaces.Box(-1.0, 1.0, (task.action_size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._observer = observer
        self._scene = Scene(task.lengths, int(render_size))
        self._generators: list[np.random.Generator | None] = [None] * self.num_envs
        self._seeds: list[int] = [-1] * self.num_envs
        self._history: Floats | None = None  # (N, S, 4)
        self._steps = np.zeros(self.num_envs, dtype=np.int64)
        self._done = np.zeros(self.num_envs, dtype=np.bool_)

    @property
    def states(self) -> Floats:
        """A copy of the current states `[θ1, θ2, ω1, ω2]`, (N, 4) float64, in rad and rad/s.

        Raises:
            ResetNeeded: If the environments were not reset yet.
        """
        return self._current_history()[:, -1].copy()

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random generators of all environments."""
        return tuple(self._generator(i) for i in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seeds of all environments' random generators."""
        return tuple(self._seeds[i] for i, _ in enumerate(self.np_random))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Start episodes in all environments, or in those selected by a mask.

        Args:
            seed: An integer seeds environment i with `seed + i`, a sequence with its item i. None,
                also as an item, keeps the current generator.
            options: `"state"`, (4,) or (N, 4), sets the start states; `"reset_mask"`, (N,) bool,
                selects the environments to reset.

        Returns:
            The observations of all environments, and an info with the true `"state"`, (N, 4)
            float64.

        Raises:
            ResetNeeded: If a mask excludes environments that were never reset.
            ValueError: If an option is unknown or not valid, or there is not one seed per
                environment.
        """
        options = dict(options or {})
        mask = self._reset_mask(options.pop("reset_mask", None))
        states = pop_state(options, self.num_envs)
        self._seed(seed, mask)
        self._restart(mask, states)
        return self._observe(), self._info(mask)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Apply constant torques for `dt` seconds.

        Args:
            actions: Torques as fractions of `max_torque`, (N, A) in [-1, 1].

        Returns:
            Observations, rewards (N,) float64, terminated (always False) and truncated, both (N,)
            bool, and an info with the true `"state"`, (N, 4) float64. With autoreset mode
            `SAME_STEP`, the info also has `"final_obs"` and `"final_info"`.

        Raises:
            ResetNeeded: If the environments were not reset yet, or some have ended and the
                autoreset mode is `DISABLED`.
            ValueError: If the actions have another shape, or are NaN.
        """
        history = self._current_history()
        if self.autoreset_mode is AutoresetMode.DISABLED and self._done.any():
            ended = np.flatnonzero(self._done).tolist()
            raise ResetNeeded(
                f"environments {ended} have ended and autoreset is disabled; "
                'call reset(options={"reset_mask": mask}) first'
            )
        shape = np.shape(actions)
        expected = str(self.action_space.shape)
        require(shape == self.action_space.shape, "shape of actions", shape, expected)
        torques = self.task.torques(actions)
        states, rewards = self.task.advance(history[:, -1], torques)
        self._history = push(history, states)
        self._steps += 1
        if self._done.any():
            rewards[self._done] = 0.0
            self._restart(self._done)
        truncated = self._truncated()
        self._done = truncated.copy()
        info: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and truncated.any():
            info = self._final_info(truncated)
            self._restart(truncated)
        info |= self._info(np.ones(self.num_envs, dtype=np.bool_))
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        return self._observe(), rewards, terminated, truncated, info

    def render(self) -> tuple[Frames, ...] | None:
        """Render the current states.

        Returns:
            N frames, (render_size, render_size, 3) uint8 each; None without a render mode.

        Raises:
            ResetNeeded: If the environments were not reset yet.
        """
        if self.render_mode is None:
            gym.logger.warn('render() needs make_vec(..., render_mode="rgb_array")')
            return None
        return tuple(self._scene.draw(self._current_history()[:, -1]))

    def _current_history(self) -> Floats:
        if self._history is None:
            raise ResetNeeded("the environments have no state yet; call reset() first")
        return self._history

    def _observe(self) -> Array:
        return self._observer(self._current_history())

    def _info(self, mask: Mask) -> dict[str, Any]:
        return {"state": self.states, "_state": mask.copy()}

    def _final_info(self, mask: Mask) -> dict[str, Any]:
        final_obs = np.full(self.num_envs, None, dtype=object)
        observations = self._observer(self._current_history()[mask])
        for i, observation in zip(np.flatnonzero(mask), observations):
            final_obs[i] = observation
        return {
            "final_obs": final_obs,
            "_final_obs": mask.copy(),
            "final_info": self._info(mask),
            "_final_info": mask.copy(),
        }

    def _truncated(self) -> Mask:
        if self.max_episode_steps is None:
            return np.zeros(self.num_envs, dtype=np.bool_)
        return self._steps >= self.max_episode_steps

    def _generator(self, i: int) -> np.random.Generator:
        generator = self._generators[i]
        if generator is None:
            generator, self._seeds[i] = seeding.np_random()
            self._generators[i] = generator
        return generator

    def _seed(self, seed: int | Sequence[int | None] | None, mask: Mask) -> None:
        if seed is None:
            return
        if isinstance(seed, (int, np.integer)):
            seeds: list[int | None] = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        expected = f"an integer, or a sequence of {self.num_envs} seeds, one per environment"
        require(len(seeds) == self.num_envs, "seed", seed, expected)
        for i in np.flatnonzero(mask):
            if seeds[i] is not None:
                self._generators[i], self._seeds[i] = seeding.np_random(seeds[i])

    def _reset_mask(self, mask: Mask | None) -> Mask:
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        is_mask = isinstance(mask, np.ndarray) and mask.dtype == np.bool_
        valid = is_mask and mask.shape == (self.num_envs,) and bool(mask.any())
        expected = f"a bool array of shape ({self.num_envs},) with at least one True"
        require(valid, 'options["reset_mask"]', mask, expected)
        if not mask.all():
            self._current_history()
        return mask

    def _restart(self, mask: Mask, states: Floats | None = None) -> None:
        """Start episodes where `mask` is True, from `states`, (N, 4), or from random states."""
        chosen = np.flatnonzero(mask)
        if states is None:
            draws = [self.task.draw_start(self._generator(int(i))) for i in chosen]
            starts = np.stack(draws)
        else:
            starts = states[chosen]
        if self._history is None:
            self._history = np.empty((self.num_envs, self._observer.stack, 4))
        self._history[chosen] = start_history(starts, self._observer.stack)
        self._steps[chosen] = 0
        self._done[chosen] = False


class DoublePendulumVectorEnv(_PendulumVectorEnv):
    """Vector environment of `DoublePendulumEnv`, with identical observations and rewards.

    Args:
        num_envs: Number of pendulums N.
        max_episode_steps: Number of steps until truncation, or None for no limit.
        autoreset_mode: An `AutoresetMode` or its value, `"NextStep"`, `"SameStep"` or `"Disabled"`.
        render_mode: None, or `"rgb_array"`, with which `render` returns a tuple of frames.
        observation: `"coordinates"` or `"state"`.
        frame_stack: Number of steps per observation of coordinates.
        render_size: Height and width of rendered frames in pixels.
        **task: The fields of `Task`, see `DoublePendulumEnv`.

    Raises:
        TypeError: If an argument is unknown.
        ValueError: If an argument is not valid.
    """

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 200,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        observation: str = "coordinates",
        frame_stack: int = 2,
        render_size: int = 512,
        **task: Any,
    ) -> None:
        settings = Task.of(DoublePendulumVectorEnv, task)
        observer = vector_observer(settings, observation, frame_stack)
        limits = (num_envs, max_episode_steps, autoreset_mode)
        super().__init__(settings, observer, *limits, render_mode, render_size)


class DoublePendulumPixelsVectorEnv(_PendulumVectorEnv):
    """Vector environment of `DoublePendulumPixelsEnv`, with identical pixels and rewards.

    Args:
        num_envs: Number of pendulums N.
        max_episode_steps: Number of steps until truncation, or None for no limit.
        autoreset_mode: An `AutoresetMode` or its value, `"NextStep"`, `"SameStep"` or `"Disabled"`.
        render_mode: None, or `"rgb_array"`, with which `render` returns a tuple of frames.
        image_size: Height and width of a frame in pixels.
        grayscale: Whether frames have one channel instead of three.
        frame_stack: Number of frames per observation.
        render_size: Height and width of rendered frames in pixels.
        **task: The fields of `Task`, see `DoublePendulumEnv`.

    Raises:
        TypeError: If an argument is unknown.
        ValueError: If an argument is not valid.
    """

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 200,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        image_size: int = 64,
        grayscale: bool = False,
        frame_stack: int = 2,
        render_size: int = 512,
        **task: Any,
    ) -> None:
        settings = Task.of(DoublePendulumPixelsVectorEnv, task)
        observer = PixelObserver(settings, image_size, grayscale, frame_stack)
        limits = (num_envs, max_episode_steps, autoreset_mode)
        super().__init__(settings, observer, *limits, render_mode, render_size)
