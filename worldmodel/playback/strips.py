"""Strips to set under panels: a curve against time, and lines of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from worldmodel.playback.canvas import BACKGROUND, BORDER, CAPTION, CAPTION_SIZE, MARGIN, font

HEIGHT = 110
_CURVE = (233, 96, 66)
_TOP, _BOTTOM, _LEFT = 30, 14, 50


def curve_strip(
    values: Sequence[float] | np.ndarray,
    span: int,
    title: str,
    width: int,
    *,
    low: float = 0.0,
    high: float,
) -> np.ndarray:
    """Draw values against time.

    Args:
        values: The newest last; no more than `span` + 1 of them are drawn. NaN counts as `high`.
        span: Steps from the left to the right edge.
        title: What they are, with the unit; the newest is written beside it.
        width: In pixels.
        low: Value at the lower end of the scale.
        high: At the upper end; values beyond the ends are drawn at them.

    Returns:
        uint8 (HEIGHT, width, 3).
    """
    image = Image.new("RGB", (width, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(image)
    shown = np.nan_to_num(np.asarray(values[-span - 1 :], float), nan=high)
    left, right, top, bottom = _LEFT, width - MARGIN, _TOP, HEIGHT - _BOTTOM
    now = f"{title}: {shown[-1]:.2f}" if len(shown) else title
    draw.text((MARGIN, _TOP // 2), now, CAPTION, font(CAPTION_SIZE), anchor="lm")
    for y, value in ((bottom, low), (top, high)):
        draw.line((left, y, right, y), fill=BORDER)
        draw.text((left - 8, y), f"{value:.3g}", CAPTION, font(CAPTION_SIZE - 3), anchor="rm")
    x = left + np.arange(len(shown)) / max(span, 1) * (right - left)
    height = (np.clip(shown, low, high) - low) / max(high - low, 1e-9)
    points = list(zip(x.tolist(), (bottom - height * (bottom - top)).tolist()))
    if len(points) > 1:
        draw.line(points, fill=_CURVE, width=2, joint="curve")
    if points:
        (a, b), r = points[-1], 3
        draw.ellipse((a - r, b - r, a + r, b + r), fill=_CURVE)
    return np.asarray(image)


def text_strip(lines: Sequence[str], width: int) -> np.ndarray:
    """Lines of small text, uint8 (H, width, 3)."""
    step = CAPTION_SIZE + 6
    image = Image.new("RGB", (width, step * len(lines) + 12), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((MARGIN, 4 + step * i), line, CAPTION, font(CAPTION_SIZE - 2))
    return np.asarray(image)
