"""Anti-aliased rasteriser: states of the pendulum to uint8 frames.

Every shape is a capsule, a segment with a radius; a disc is a capsule of no length. The share of a
pixel that a capsule covers follows from the distance between the pixel's centre and the segment, so
a bob's place shows to a few hundredths of a pixel, and no frame depends on the one before. Only the
pixels of each row that a shape can reach are visited.
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
    """Pixel coordinates of the pivot and the sizes of all parts."""

    pivot_x: float
    pivot_y: float
    length1: float
    length2: float
    rod: float
    pivot: float
    bob: float


@njit(cache=True)
def _row_span(dx: float, dy: float, length2: float, py: float, reach: float) -> tuple[float, float]:
    """Range of x, from the segment's start, that row `py` may share with the capsule."""
    low, high = min(0.0, dx) - reach, max(0.0, dx) + reach
    if dy * dy > 1e-6 * length2:
        slope, half = dx / dy, reach * math.sqrt(length2) / abs(dy)
        return max(low, py * slope - half), min(high, py * slope + half)
    return low, high


@njit(cache=True)
def _blend(frame: Frames, i: int, j: int, channel: int, colour: Floats, cover: float) -> None:
    for k in range(colour.shape[0]):
        below = float(frame[i, j, channel + k])
        frame[i, j, channel + k] = np.uint8(below + cover * (colour[k] - below) + 0.5)


@njit(cache=True)
def _capsule(
    frame: Frames,
    channel: int,
    ax: float,
    ay: float,
    bx: float,
    by: float,
    radius: float,
    colour: Floats,
) -> None:
    """Blend the capsule from a to b, in pixels, over the channels that start at `channel`."""
    height, width, _ = frame.shape
    reach = radius + 0.5
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    inverse = 1.0 / length2 if length2 > 0.0 else 0.0
    top = max(0, math.floor(min(ay, by) - reach))
    bottom = min(height, math.ceil(max(ay, by) + reach))
    for i in range(top, bottom):
        py = i + 0.5 - ay
        low, high = _row_span(dx, dy, length2, py, reach)
        left = max(0, math.floor(ax + low))
        right = min(width, math.ceil(ax + high))
        for j in range(left, right):
            px = j + 0.5 - ax
            along = min(1.0, max(0.0, (px * dx + py * dy) * inverse))
            ex, ey = px - along * dx, py - along * dy
            distance2 = ex * ex + ey * ey
            if distance2 < reach * reach:
                distance = math.sqrt(distance2)
                cover = min(distance + 0.5, radius) + min(0.5 - distance, radius)
                _blend(frame, i, j, channel, colour, cover)


@njit(cache=True)
def _pendulum(
    frame: Frames,
    channel: int,
    theta1: float,
    theta2: float,
    layout: _Layout,
    colours: Floats,
) -> None:
    x0, y0 = layout.pivot_x, layout.pivot_y
    x1 = x0 + layout.length1 * math.sin(theta1)
    y1 = y0 + layout.length1 * math.cos(theta1)
    x2 = x1 + layout.length2 * math.sin(theta2)
    y2 = y1 + layout.length2 * math.cos(theta2)
    _capsule(frame, channel, x0, y0, x1, y1, layout.rod, colours[1])
    _capsule(frame, channel, x0, y0, x0, y0, layout.pivot, colours[2])
    _capsule(frame, channel, x1, y1, x2, y2, layout.rod, colours[3])
    _capsule(frame, channel, x1, y1, x1, y1, layout.bob, colours[4])
    _capsule(frame, channel, x2, y2, x2, y2, layout.bob, colours[5])


@njit(cache=True, nogil=True)
def _draw(histories: Floats, layout: _Layout, colours: Floats, frames: Frames) -> None:
    channels = colours.shape[1]
    for n in range(histories.shape[0]):
        for s in range(histories.shape[1]):
            theta1, theta2 = histories[n, s, 0], histories[n, s, 1]
            _pendulum(frames[n], s * channels, theta1, theta2, layout, colours)


class Scene:
    """The pendulum drawn at one size; the same scene serves observations and rendering.

    Args:
        lengths: of the two rods, in m; the outstretched pendulum fits the frame whatever they are.
        size: frame height and width in pixels, or one number for a square.
        grayscale: one channel instead of three.
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
        self._colours = palette @ np.array([_LUMINANCE]).T if grayscale else palette
        self._background = np.round(self._colours[0]).astype(np.uint8)
        self._size = height, width

    @property
    def channels(self) -> int:
        """Channels of one frame: 3, or 1 in grayscale."""
        return self._colours.shape[1]

    def draw_stacks(self, histories: Floats) -> Frames:
        """Draw the last S states of N pendulums as stacked frames.

        Args:
            histories: (N, S, 4) float64, oldest first.

        Returns:
            (N, H, W, S * C) uint8, oldest frame first.
        """
        count, stack = histories.shape[:2]
        height, width = self._size
        frames = np.empty((count, height, width, stack * self.channels), dtype=np.uint8)
        frames.reshape(count, height, -1)[:] = np.tile(self._background, width * stack)
        _draw(histories, self._layout, self._colours, frames)
        return frames

    def draw(self, states: Floats) -> Frames:
        """Draw N states.

        Args:
            states: (N, 4) float64.

        Returns:
            (N, H, W, C) uint8.
        """
        return self.draw_stacks(states[:, None])
