"""Observers, which turn the latest states into observations for single and batched environments."""

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
    """A function from histories of states to observations."""

    @property
    def space(self) -> spaces.Space[Any]:
        """Space of a single observation."""

    @property
    def stack(self) -> int:
        """Number S of states in a history."""

    def __call__(self, history: Floats) -> npt.NDArray[Any]:
        """Compute observations.

        Args:
            history: The latest states, (N, S, 4) float64, oldest first.

        Returns:
            Observations, (N, *space.shape).
        """


def require_stack(frame_stack: object) -> None:
    """Check the number of stacked frames.

    Raises:
        ValueError: If `frame_stack` is not a positive integer.
    """
    require(is_count(frame_stack, 1), "frame_stack", frame_stack, "a positive integer, e.g. 2")


def require_size(name: str, size: object) -> None:
    """Check an image size in pixels.

    Raises:
        ValueError: If `size` is not an integer, or is below `MIN_IMAGE_SIZE`.
    """
    expected = f"an integer of at least {MIN_IMAGE_SIZE} pixels, for example 64"
    require(is_count(size, MIN_IMAGE_SIZE), name, size, expected)


class PixelObserver:
    """Observes stacked frames, (N, H, W, S*C) uint8, oldest first.

    Args:
        task: The task that is observed.
        image_size: Height and width of a frame in pixels.
        grayscale: Whether frames have one channel instead of three.
        frame_stack: Number S of frames per observation.

    Raises:
        ValueError: If an argument is not valid.
    """

    def __init__(self, task: Task, image_size: int, grayscale: bool, frame_stack: int) -> None:
        require_size("image_size", image_size)
        require_stack(frame_stack)
        require(isinstance(grayscale, bool), "grayscale", grayscale, "True or False")
        self.stack = int(frame_stack)
        self._scene = Scene(task.lengths, int(image_size), grayscale)
        shape = (int(image_size), int(image_size), self.stack * self._scene.channels)
        self.space = spaces.Box(0, 255, shape, np.uint8)

    def __call__(self, history: Floats) -> Frames:
        """Draw the states of histories (N, S, 4)."""
        return self._scene.draw_stacks(history)


class CoordinateObserver:
    """Observes the bobs' positions in m, (N, S*4) float32: x1, y1, x2, y2 per state, oldest first.

    Args:
        task: The task that is observed.
        frame_stack: Number S of states per observation.

    Raises:
        ValueError: If `frame_stack` is not a positive integer.
    """

    def __init__(self, task: Task, frame_stack: int) -> None:
        require_stack(frame_stack)
        self.stack = int(frame_stack)
        self._params = task.params
        elbow, tip = self._params.length1, self._params.length1 + self._params.length2
        high = np.tile(np.array([elbow, elbow, tip, tip], dtype=np.float32), self.stack)
        self.space = spaces.Box(-high, high, dtype=np.float32)

    def __call__(self, history: Floats) -> Float32s:
        """Compute the positions for histories (N, S, 4)."""
        xy = positions(history.reshape(-1, 4), self._params)
        return xy.reshape(len(history), -1).astype(np.float32)


class StateObserver:
    """Observes the newest state, (N, 6) float32: sin θ1, sin θ2, cos θ1, cos θ2, ω1, ω2."""

    stack = 1

    def __init__(self) -> None:
        unbounded = np.finfo(np.float32).max
        high = np.array([1.0, 1.0, 1.0, 1.0, unbounded, unbounded], dtype=np.float32)
        self.space = spaces.Box(-high, high, dtype=np.float32)

    def __call__(self, history: Floats) -> Float32s:
        """Compute the observations for histories (N, 1, 4)."""
        out = np.empty((len(history), 6), dtype=np.float32)
        _observe_states(history[:, -1], out)
        return out


@njit(cache=True)
def _observe_states(states: Floats, out: Float32s) -> None:
    for n in range(states.shape[0]):
        theta1, theta2 = states[n, 0], states[n, 1]
        out[n, 0], out[n, 1] = math.sin(theta1), math.sin(theta2)
        out[n, 2], out[n, 3] = math.cos(theta1), math.cos(theta2)
        out[n, 4], out[n, 5] = states[n, 2], states[n, 3]


def vector_observer(task: Task, observation: str, frame_stack: int) -> Observer:
    """Make the observer of `DoublePendulum-v0`.

    Args:
        task: The task that is observed.
        observation: `"coordinates"` or `"state"`.
        frame_stack: Number S of states per observation of coordinates; checked in either case.

    Raises:
        ValueError: If an argument is not valid.
    """
    require_stack(frame_stack)
    choices = "'coordinates' or 'state'"
    require(observation in ("coordinates", "state"), "observation", observation, choices)
    return StateObserver() if observation == "state" else CoordinateObserver(task, frame_stack)
