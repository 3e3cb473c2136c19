"""Rows of frames on a page, labelled and aligned to the pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

INK = "#23262f"
FAINT = "#6f7583"
_FRAME = "#c6cad4"

_CELL, _GAP = 1.3, 0.07
_LEFT, _EDGE = 1.3, 0.22
_TITLE, _HEADINGS = 0.44, 0.26
"""Sizes in inches: a picture's longest side, between pictures, left of them, around the page, the
height of a title and of a line of headings."""


@dataclass(frozen=True)
class Strip:
    """Rows of frames under one title.

    Attributes:
        title: Above the rows.
        rows: label -> uint8 (N, H, W, C), C 1 or 3, as many frames in each row.
        headings: N of them, above the columns; none if empty.
    """

    title: str
    rows: Mapping[str, np.ndarray]
    headings: Sequence[str] = ()

    @property
    def columns(self) -> int:
        """N, frames in a row."""
        return len(next(iter(self.rows.values())))


def draw_strips(strips: Sequence[Strip]) -> Figure:
    """Draw strips below each other on one page; all frames have the same size."""
    height, width = next(iter(strips[0].rows.values())).shape[1:3]
    cell = _CELL * height / max(height, width), _CELL * width / max(height, width)
    columns = max(strip.columns for strip in strips)
    page = _Page(
        width=_LEFT + columns * (cell[1] + _GAP) - _GAP + _EDGE,
        height=_EDGE + sum(_strip_height(strip, cell[0]) for strip in strips),
    )
    top = 0.0
    for strip in strips:
        _draw_strip(page, strip, top, cell)
        top += _strip_height(strip, cell[0])
    return page.figure


class _Page:
    """A figure addressed in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")

    def text(self, x: float, y: float, text: str, **style: str | float) -> None:
        self.figure.text(x / self.width, 1.0 - y / self.height, text, **style)  # type: ignore[arg-type]

    def picture(self, x: float, y: float, cell: tuple[float, float], frame: np.ndarray) -> None:
        height, width = cell
        box = (
            x / self.width,
            1.0 - (y + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes = self.figure.add_axes(box)
        axes.imshow(np.broadcast_to(frame, (*frame.shape[:2], 3)), interpolation="lanczos")
        axes.set_aspect("auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=_FRAME, linewidth=0.7)


def _strip_height(strip: Strip, cell: float) -> float:
    headings = _HEADINGS if strip.headings else 0.0
    return _TITLE + headings + len(strip.rows) * (cell + _GAP)


def _draw_strip(page: _Page, strip: Strip, top: float, cell: tuple[float, float]) -> None:
    page.text(_EDGE, top + 0.72 * _TITLE, strip.title, size=11, weight="bold", color=INK)
    y = top + _TITLE
    for i, heading in enumerate(strip.headings):
        centre = _LEFT + i * (cell[1] + _GAP) + cell[1] / 2
        page.text(centre, y + 0.65 * _HEADINGS, heading, size=8.5, color=FAINT, ha="center")
    y += _HEADINGS if strip.headings else 0.0
    for label, frames in strip.rows.items():
        page.text(_EDGE, y + cell[0] / 2, label, size=9.5, color=INK, va="center")
        for i, frame in enumerate(frames):
            page.picture(_LEFT + i * (cell[1] + _GAP), y, cell, frame)
        y += cell[0] + _GAP
