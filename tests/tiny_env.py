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
