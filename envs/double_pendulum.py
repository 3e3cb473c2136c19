"""Single double-pendulum environments: from state or coordinates, and from pixels."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from .observations import Observer, PixelObserver, require_size, vector_observer
from .physics import Floats
from .raster import Frames, Scene
from .task import ACTUATED, Task, pop_state, push, require, start_history
from .window import Window

_KEYS = (("a", "d"), ("j", "l"))


class _PendulumEnv(gym.Env[npt.NDArray[Any], npt.NDArray[np.float32]]):
    """A task seen through an observer."""

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array"],
        "render_fps": 20,
    }

    def __init__(
        self, task: Task, observer: Observer, render_mode: str | None, render_size: int
    ) -> None:
        modes = self.metadata["render_modes"]
        choices = f"None or one of {', '.join(map(repr, modes))}"
        require(render_mode is None or render_mode in modes, "render_mode", render_mode, choices)
        require_size("render_size", render_size)
        self.task = task
        self.metadata = {**self.metadata, "render_fps": task.fps}
        self.render_mode = render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (task.action_size,), np.float32)
        self.observation_space = observer.space
        self._observer = observer
        self._scene = Scene(task.lengths, int(render_size))
        self._window = Window(int(render_size), task.fps) if render_mode == "human" else None
        self._history: Floats | None = None  # (1, S, 4)
        self._steps = 0
        self._torques = np.zeros(2)
        self._reward = 0.0

    @property
    def state(self) -> Floats:
        """The current state `[θ1, θ2, ω1, ω2]`, (4,) float64, a copy."""
        return self._started()[0, -1].copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Start an episode; `options={"state": [θ1, θ2, ω1, ω2]}` sets the state."""
        super().reset(seed=seed)
        states = pop_state(options, 1)
        if states is None:
            states = self.task.draw_start(self.np_random)[None]
        self._history = start_history(states, self._observer.stack)
        self._steps, self._torques, self._reward = 0, np.zeros(2), 0.0
        self._show()
        return self._observe(), {"state": self.state}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Hold the torques for `dt` seconds."""
        history = self._started()
        actions = np.asarray(action)[None]
        states, rewards = self.task.advance(history[:, -1], actions)
        self._history = push(history, states)
        self._steps += 1
        self._torques, self._reward = self.task.torques(actions)[0], float(rewards[0])
        self._show()
        return self._observe(), self._reward, False, False, {"state": self.state}

    def render(self) -> Frames | None:
        """The state as (render_size, render_size, 3) uint8, or None after updating the window."""
        if self.render_mode == "rgb_array":
            return self._scene.draw(self._started()[:, -1])[0]
        if self.render_mode is None:
            gym.logger.warn('render() needs a render mode: make(..., render_mode="rgb_array")')
        self._show()
        return None

    def get_keys_to_action(self) -> dict[str, npt.NDArray[np.float32]]:
        """Keys for `gymnasium.utils.play`: a, d turn the shoulder and j, l the elbow."""
        joints = [("", *_KEYS[joint]) for joint in ACTUATED[self.task.torque]]
        turn = dict(zip(itertools.chain(*_KEYS), (-1.0, 1.0, -1.0, 1.0))) | {"": 0.0}
        combinations = itertools.product(*joints)
        return {"".join(c): np.array([turn[k] for k in c], np.float32) for c in combinations}

    def close(self) -> None:
        """Close the window."""
        if self._window is not None:
            self._window.close()

    def _started(self) -> Floats:
        if self._history is None:
            raise ResetNeeded("the environment has no state yet: call reset() first")
        return self._history

    def _observe(self) -> npt.NDArray[Any]:
        return self._observer(self._started())[0]

    def _show(self) -> None:
        if self._window is not None:
            frame = self._scene.draw(self._started()[:, -1])[0]
            effort = self._torques / self.task.max_torque
            self._window.show(frame, effort, self._steps * self.task.dt, self._reward)


class DoublePendulumEnv(_PendulumEnv):
    """Double pendulum seen as numbers."""

    def __init__(
        self,
        render_mode: str | None = None,
        observation: str = "coordinates",
        frame_stack: int = 2,
        render_size: int = 512,
        **task: Any,
    ) -> None:
        settings = Task(**task)
        observer = vector_observer(settings, observation, frame_stack)
        super().__init__(settings, observer, render_mode, render_size)


class DoublePendulumPixelsEnv(_PendulumEnv):
    """Double pendulum seen as images."""

    def __init__(
        self,
        render_mode: str | None = None,
        image_size: int = 64,
        grayscale: bool = False,
        frame_stack: int = 2,
        render_size: int = 512,
        **task: Any,
    ) -> None:
        settings = Task(**task)
        observer = PixelObserver(settings, image_size, grayscale, frame_stack)
        super().__init__(settings, observer, render_mode, render_size)
