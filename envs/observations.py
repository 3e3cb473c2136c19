"""Observations as functions of the last states, the same for single and batched environments.

An observer has the `space` of one observation and the number `stack` of states it needs; called
with histories, (N, stack, 4) float64, oldest first, it returns N observations.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from numba import njit

from .physics import Floats, positions
from .raster import Frames, Scene
from .task import Task, is_count, require

Float32s = npt.NDArray[np.float32]

MIN_IMAGE_SIZE = 8


class Observer(Protocol):
    """Turns histories of states into observations."""

    @property
    def space(self) -> spaces.Space[Any]:
        """Space of one observation."""

    @property
    def stack(self) -> int:
        """Number of states in a history."""

    def __call__(self, history: Floats) -> npt.NDArray[Any]:
        """Observe (N, stack, 4) float64 as (N, *space.shape)."""


def require_stack(frame_stack: object) -> None:
    """Raise ValueError unless `frame_stack` is a positive integer."""
    require(is_count(frame_stack, 1), "frame_stack", frame_stack, "a positive integer, e.g. 2")


def require_size(name: str, size: object) -> None:
    """Raise ValueError unless `size` is an image size in pixels."""
    expected = f"an integer of at least {MIN_IMAGE_SIZE} pixels, for example 64"
    require(is_count(size, MIN_IMAGE_SIZE), name, size, expected)


class PixelObserver:
    """Frames, (N, H, W, S * C) uint8, oldest first."""

    def __init__(self, task: Task, image_size: int, grayscale: bool, frame_stack: int) -> None:
        require_size("image_size", image_size)
        require_stack(frame_stack)
        require(isinstance(grayscale, bool), "grayscale", grayscale, "True or False")
        self.stack = int(frame_stack)
        self._scene = Scene(task.lengths, int(image_size), grayscale)
        shape = (int(image_size), int(image_size), self.stack * self._scene.channels)
        self.space = spaces.Box(0, 255, shape, np.uint8)

    def __call__(self, history: Floats) -> Frames:
        """Draw every state of the history."""
        return self._scene.draw_stacks(history)


class CoordinateObserver:
    """Positions of both bobs in m, (N, S * 4) float32: x1, y1, x2, y2 a state, oldest first."""

    def __init__(self, task: Task, frame_stack: int) -> None:
        require_stack(frame_stack)
        self.stack = int(frame_stack)
        self._params = task.params
        elbow, tip = self._params.length1, self._params.length1 + self._params.length2
        high = np.tile(np.array([elbow, elbow, tip, tip], dtype=np.float32), self.stack)
        self.space = spaces.Box(-high, high, dtype=np.float32)

    def __call__(self, history: Floats) -> Float32s:
        """Locate the bobs of every state of the history."""
        xy = positions(history.reshape(-1, 4), self._params)
        return xy.reshape(len(history), -1).astype(np.float32)


class StateObserver:
    """The newest state, (N, 6) float32: sin θ1, sin θ2, cos θ1, cos θ2, ω1, ω2."""

    stack = 1

    def __init__(self) -> None:
        fastest = np.finfo(np.float32).max
        high = np.array([1.0, 1.0, 1.0, 1.0, fastest, fastest], dtype=np.float32)
        self.space = spaces.Box(-high, high, dtype=np.float32)

    def __call__(self, history: Floats) -> Float32s:
        """Observe the newest state of the history."""
        out = np.empty((len(history), 6), dtype=np.float32)
        _sines(history[:, -1], out)
        return out


@njit(cache=True)
def _sines(states: Floats, out: Float32s) -> None:
    for n in range(states.shape[0]):
        theta1, theta2 = states[n, 0], states[n, 1]
        out[n, 0], out[n, 1] = math.sin(theta1), math.sin(theta2)
        out[n, 2], out[n, 3] = math.cos(theta1), math.cos(theta2)
        out[n, 4], out[n, 5] = states[n, 2], states[n, 3]


def vector_observer(task: Task, observation: str, frame_stack: int) -> Observer:
    """The observer of `DoublePendulum-v0`, named by its `observation` argument."""
    require_stack(frame_stack)
    choices = "'coordinates' or 'state'"
    require(observation in ("coordinates", "state"), "observation", observation, choices)
    return StateObserver() if observation == "state" else CoordinateObserver(task, frame_stack)
