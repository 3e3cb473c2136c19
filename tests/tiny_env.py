"""A tiny configurable environment whose frames encode their own step and seed.

Registered as ``Tiny-v0``; ``"tiny_env:Tiny-v0"`` needs no import. The first two numbers of a
frame are the step and the low byte of the seed that the episode was reset with, 255 without one.
The reward is the number of steps so far, and the state is (step, seed).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import register

register(id="Tiny-v0", entry_point="tiny_env:TinyEnv")


class TinyEnv(gym.Env[np.ndarray, Any]):
    """Counts its steps.

    Args:
        actions: ``"box"``, ``"discrete"``, or ``"from_one"``: discrete, but not counted from 0.
        observation: ``"image"`` (uint8, ``(size, size, C * frame_stack)``) or ``"vector"``
            (float32, ``(3 * frame_stack,)``).
        length: fewest and most steps per episode, drawn from the seed; 0 for no end.
        terminates: whether episodes end by termination, else by truncation.
        size: side of image observations.
        channels: of image observations.
        frame_stack: frames per observation, newest last.
        state: whether ``info["state"]`` is given.
        extra_info: adds half the step as ``info["half"]``, and as both of ``info["pair"]``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        actions: str = "box",
        observation: str = "image",
        length: tuple[int, int] = (5, 5),
        terminates: bool = False,
        size: int = 8,
        channels: int = 3,
        frame_stack: int = 1,
        state: bool = True,
        extra_info: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.length, self.terminates = length, terminates
        self.state, self.extra_info = state, extra_info
        self._frame_shape = (size, size, channels) if observation == "image" else (3,)
        self._stack = frame_stack
        *sides, last = self._frame_shape
        shape = (*sides, last * frame_stack)
        if observation == "image":
            self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        else:
            self.observation_space = gym.spaces.Box(0, 255, shape, np.float32)
        if actions == "box":
            self.action_space = gym.spaces.Box(
                np.array([-1, -2], np.float32), np.array([1, 2], np.float32)
            )
        else:
            self.action_space = gym.spaces.Discrete(3, start=1 if actions == "from_one" else 0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._seed = -1 if seed is None else seed
        self._last = int(self.np_random.integers(self.length[0], self.length[1], endpoint=True))
        self._step = 0
        self._frames = [self._draw(self._frame_shape)] * self._stack
        return self._observe()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action} is outside {self.action_space}"
        self._step += 1
        self._frames = [*self._frames[1:], self._draw(self._frame_shape)]
        ended = self._step == self._last
        observation, info = self._observe()
        end = (ended and self.terminates, ended and not self.terminates)
        return observation, float(self._step), *end, info

    def render(self) -> np.ndarray:
        """A 30 x 40 image: the step in the red channel, 200 in the blue one."""
        image = np.zeros((30, 40, 3), np.uint8)
        image[..., 0] = self._step
        image[..., 2] = 200
        return image

    def _draw(self, shape: tuple[int, ...]) -> np.ndarray:
        frame = np.full(shape, 7, self.observation_space.dtype)
        frame.reshape(-1)[:2] = self._step, self._seed & 255
        return frame

    def _observe(self) -> tuple[np.ndarray, dict[str, Any]]:
        state = np.array([self._step, self._seed], np.float64)
        info: dict[str, Any] = {"state": state} if self.state else {}
        if self.extra_info:
            info |= {"half": self._step / 2, "pair": np.full(2, self._step / 2)}
        return np.concatenate(self._frames, axis=-1), info


class SpacesEnv(gym.Env[Any, Any]):
    """Has the given spaces: every number that it observes is the step, and the reward is 1.

    Args:
        observation_space: a Box, or a Dict of them.
        action_space: of any kind.
        length: steps per episode.
        render_mode: ``"rgb_array"`` draws a square image, if `render_modes` has it.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        length: int = 4,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.length, self.render_mode = length, render_mode
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step, self.actions = 0, []
        return self._observe(self.observation_space), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.actions.append(action)
        self._step += 1
        ended = self._step == self.length
        return self._observe(self.observation_space), 1.0, ended, False, {}

    def render(self) -> np.ndarray:
        return np.full((16, 16, 3), 100 + self._step, np.uint8)

    def _observe(self, space: Any) -> Any:
        if isinstance(space, gym.spaces.Dict):
            return {name: self._observe(part) for name, part in space.spaces.items()}
        return np.full(space.shape, self._step, space.dtype)
