"""Anti-aliased rasterizer that draws states of the pendulum as uint8 frames.

Rods are capsules, line segments with a radius, and bobs are discs. The coverage of a pixel is
computed from the distance between its center and the segment or the center of the disc, so the
position of a bob can be recovered to a few hundredths of a pixel. Every frame is drawn from
scratch, and in each row only the pixels that a shape can cover are visited.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

BACKGROUND = (17, 20, 31)
ROD1 = (128, 86, 80)
PIVOT = (196, 200, 212)
ROD2 = (92, 140, 168)
BOB1 = (240, 96, 66)
BOB2 = (96, 214, 255)

ROD_RADIUS = 0.016
PIVOT_RADIUS = 0.026
BOB_RADIUS = 0.058
MARGIN = 0.02

_LUMINANCE = (0.299, 0.587, 0.114)


class _Layout(NamedTuple):
    """Position of the pivot, lengths of the rods and radii of all parts, in pixels."""

    pivot_x: float
    pivot_y: float
    length1: float
    length2: float
    rod: float
    pivot: float
    bob: float


@njit(cache=True)
def _blend(
    row: Frames, j: int, channel: int, color: Floats, distance2: float, radius: float
) -> None:
    """Blend a shape into pixel `j`, whose center has a squared distance to the shape's axis."""
    distance = math.sqrt(distance2)
    cover = min(distance + 0.5, radius) + min(0.5 - distance, radius)
    for k in range(color.shape[0]):
        below = float(row[j, channel + k])
        row[j, channel + k] = np.uint8(below + cover * (color[k] - below) + 0.5)


@njit(cache=True)
def _capsule(
    frame: Frames,
    channel: int,
    ax: float,
    ay: float,
    bx: float,
    by: float,
    radius: float,
    color: Floats,
) -> None:
    """Draw the capsule from a to b, in pixels, into the channels from `channel` on.

    In each row, only the columns from `low` to `high`, relative to a, can be covered.
    """
    height, width, _ = frame.shape
    reach = radius + 0.5
    reach2 = reach * reach
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    inverse = 1.0 / length2 if length2 > 0.0 else 0.0
    steep = dy * dy > 1e-6 * length2
    slope, half = (dx / dy, reach * math.sqrt(length2) / abs(dy)) if steep else (0.0, 0.0)
    for i in range(
        max(0, math.floor(min(ay, by) - reach)), min(height, math.ceil(max(ay, by) + reach))
    ):
        row = frame[i]
        py = i + 0.5 - ay
        low, high = min(0.0, dx) - reach, max(0.0, dx) + reach
        if steep:
            low, high = max(low, py * slope - half), min(high, py * slope + half)
        for j in range(max(0, math.ceil(ax + low - 0.5)), min(width, math.floor(ax + high + 0.5))):
            px = j + 0.5 - ax
            along = min(1.0, max(0.0, (px * dx + py * dy) * inverse))
            ex, ey = px - along * dx, py - along * dy
            distance2 = ex * ex + ey * ey
            if distance2 < reach2:
                _blend(row, j, channel, color, distance2, radius)


@njit(cache=True)
def _disc(frame: Frames, channel: int, ax: float, ay: float, radius: float, color: Floats) -> None:
    """Draw the disc around a, in pixels; those that it covers completely need no blending."""
    height, width, _ = frame.shape
    reach, solid = radius + 0.5, max(0.0, radius - 0.5)
    reach2, solid2 = reach * reach, solid * solid
    for i in range(max(0, math.floor(ay - reach)), min(height, math.ceil(ay + reach))):
        row = frame[i]
        py = i + 0.5 - ay
        half = math.sqrt(max(0.0, reach2 - py * py))
        for j in range(max(0, math.ceil(ax - half - 0.5)), min(width, math.floor(ax + half + 0.5))):
            px = j + 0.5 - ax
            distance2 = px * px + py * py
            if distance2 < solid2:
                for k in range(color.shape[0]):
                    row[j, channel + k] = np.uint8(color[k] + 0.5)
            elif distance2 < reach2:
                _blend(row, j, channel, color, distance2, radius)


@njit(cache=True)
def _pendulum(
    frame: Frames,
    channel: int,
    theta1: float,
    theta2: float,
    layout: _Layout,
    colors: Floats,
) -> None:
    x0, y0 = layout.pivot_x, layout.pivot_y
    x1 = x0 + layout.length1 * math.sin(theta1)
    y1 = y0 + layout.length1 * math.cos(theta1)
    x2 = x1 + layout.length2 * math.sin(theta2)
    y2 = y1 + layout.length2 * math.cos(theta2)
    _capsule(frame, channel, x0, y0, x1, y1, layout.rod, colors[1])
    _disc(frame, channel, x0, y0, layout.pivot, colors[2])
    _capsule(frame, channel, x1, y1, x2, y2, layout.rod, colors[3])
    _disc(frame, channel, x1, y1, layout.bob, colors[4])
    _disc(frame, channel, x2, y2, layout.bob, colors[5])


@njit(cache=True, nogil=True)
def _draw(histories: Floats, layout: _Layout, colors: Floats, frames: Frames) -> None:
    channels = colors.shape[1]
    for n in range(histories.shape[0]):
        for s in range(histories.shape[1]):
            theta1, theta2 = histories[n, s, 0], histories[n, s, 1]
            _pendulum(frames[n], s * channels, theta1, theta2, layout, colors)


class Scene:
    """Draws the pendulum at a fixed size, for observations and for rendering.

    Args:
        lengths: Lengths of both rods, in m. The scale is chosen so that the fully extended pendulum
            fits into the frame.
        size: Height and width of a frame in pixels, or one number for a square.
        grayscale: Whether frames have one channel instead of three.
    """

    def __init__(
        self,
        lengths: tuple[float, float],
        size: int | tuple[int, int],
        grayscale: bool = False,
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        side = min(height, width)
        scale = side * (0.5 - BOB_RADIUS - MARGIN) / sum(lengths)
        self._layout = _Layout(
            pivot_x=0.5 * width,
            pivot_y=0.5 * height,
            length1=scale * lengths[0],
            length2=scale * lengths[1],
            rod=side * ROD_RADIUS,
            pivot=side * PIVOT_RADIUS,
            bob=side * BOB_RADIUS,
        )
        palette = np.array([BACKGROUND, ROD1, PIVOT, ROD2, BOB1, BOB2], dtype=np.float64)
        self._colors = palette @ np.array([_LUMINANCE]).T if grayscale else palette
        self._size = height, width
        self._empty = np.empty((0, 0, 0), dtype=np.uint8)

    @property
    def channels(self) -> int:
        """Channels C of a frame: 3, or 1 for grayscale."""
        return int(self._colors.shape[1])

    def draw_stacks(self, histories: Floats) -> Frames:
        """Draw the latest S states of N pendulums as stacked frames.

        Args:
            histories: States, (N, S, 4) float64, oldest first.

        Returns:
            Frames, (N, H, W, S*C) uint8, oldest first.
        """
        count, stack = histories.shape[:2]
        height, width = self._size
        shape = height, width, stack * self.channels
        if self._empty.shape != shape:
            self._empty = np.empty(shape, dtype=np.uint8)
            self._empty.reshape(-1, self.channels)[:] = np.round(self._colors[0])
        frames = np.empty((count, *shape), dtype=np.uint8)
        frames[:] = self._empty
        _draw(histories, self._layout, self._colors, frames)
        return frames

    def draw(self, states: Floats) -> Frames:
        """Draw N states as single frames.

        Args:
            states: States, (N, 4) float64.

        Returns:
            Frames, (N, H, W, C) uint8.
        """
        return self.draw_stacks(states[:, None])
