"""Drawing: labelled panels, curves and text, as the frames of videos and of the window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

PANEL = 256
"""Longest side of a panel in pixels."""
CURVE_HEIGHT = 110
"""Height of a curve in pixels."""

_MARGIN = 20
_GAP = 16
_STRIP = 46
_CURVE_LEFT, _CURVE_TOP, _CURVE_BOTTOM = 50, 30, 14
"""Pixels left of, above and below the scale of a curve."""

BACKGROUND = (10, 12, 18)
BORDER = (52, 58, 74)
LABEL = (236, 238, 243)
CAPTION = (164, 170, 184)
_CURVE = (233, 96, 66)
_LABEL_SIZE, _CAPTION_SIZE = 17, 15


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width in pixels at which a frame of a given size is shown."""
    scale = PANEL / max(height, width)
    return round(height * scale), round(width * scale)


def panel_origin(index: int, height: int, width: int) -> tuple[int, int]:
    """Return the top and left pixel of a panel that shows frames of a given size."""
    return _STRIP, _MARGIN + index * (panel_size(height, width)[1] + _GAP)


def enlarge(frame: np.ndarray) -> np.ndarray:
    """Enlarge a frame to panel size, smoothly.

    Args:
        frame: uint8 (H, W, C), C 1 or 3.

    Returns:
        uint8 (H', W', 3), see `panel_size`.
    """
    height, width = panel_size(*frame.shape[:2])
    image = Image.fromarray(to_rgb(frame))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def to_rgb(frame: np.ndarray) -> np.ndarray:
    """Repeat the channel of a gray frame: (H, W, 1) or (H, W, 3) to contiguous (H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(frame, (*frame.shape[:2], 3)))


def compose(
    frames: Sequence[np.ndarray], labels: Sequence[str], caption: str, note: str = ""
) -> np.ndarray:
    """Draw one frame of a video: panels side by side, with text above and below.

    Args:
        frames: P frames uint8 (H, W, C) of one size, C 1 or 3.
        labels: P labels, drawn above the panels.
        caption: text below the panels, on the left.
        note: text below the panels, on the right.

    Returns:
        uint8 (H', W', 3), both sides even, as video codecs require.
    """
    height, width = panel_size(*frames[0].shape[:2])
    _, right = panel_origin(len(frames) - 1, *frames[0].shape[:2])
    size = (_even(right + width + _MARGIN), _even(2 * _STRIP + height))
    image = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        top, left = panel_origin(i, *frame.shape[:2])
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=BORDER)
        image.paste(Image.fromarray(enlarge(frame)), (left, top))
        draw.text((left, _STRIP // 2), label, LABEL, font(_LABEL_SIZE), anchor="lm")
    middle = _STRIP + height + _STRIP // 2
    small = font(_CAPTION_SIZE)
    draw.text((_MARGIN, middle), caption, CAPTION, small, anchor="lm")
    draw.text((right + width, middle), note, CAPTION, small, anchor="rm")
    return np.asarray(image)


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
        values: values, newest last; at most `span` + 1 of them are drawn. NaN is drawn at `high`.
        span: number of steps from the left to the right edge.
        title: name of the values, with their unit; the newest value is written beside it.
        width: width in pixels.
        low: value at the lower end of the scale.
        high: value at the upper end; values beyond the scale are drawn at its ends.

    Returns:
        uint8 (`CURVE_HEIGHT`, width, 3).
    """
    image = Image.new("RGB", (width, CURVE_HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(image)
    shown = np.nan_to_num(np.asarray(values[-span - 1 :], float), nan=high)
    left, right = _CURVE_LEFT, width - _MARGIN
    top, bottom = _CURVE_TOP, CURVE_HEIGHT - _CURVE_BOTTOM
    heading = f"{title}: {shown[-1]:.2f}" if len(shown) else title
    draw.text((_MARGIN, top // 2), heading, CAPTION, font(_CAPTION_SIZE), anchor="lm")
    for y, value in ((bottom, low), (top, high)):
        draw.line((left, y, right, y), fill=BORDER)
        draw.text((left - 8, y), f"{value:.3g}", CAPTION, font(_CAPTION_SIZE - 3), anchor="rm")
    x = left + np.arange(len(shown)) / max(span, 1) * (right - left)
    height = (np.clip(shown, low, high) - low) / max(high - low, 1e-9)
    points = list(zip(x.tolist(), (bottom - height * (bottom - top)).tolist(), strict=True))
    if len(points) > 1:
        draw.line(points, fill=_CURVE, width=2, joint="curve")
    if points:
        (a, b), r = points[-1], 3
        draw.ellipse((a - r, b - r, a + r, b + r), fill=_CURVE)
    return np.asarray(image)


def text_strip(lines: Sequence[str], width: int) -> np.ndarray:
    """Draw lines of small text, uint8 (H, width, 3)."""
    step = _CAPTION_SIZE + 6
    image = Image.new("RGB", (width, step * len(lines) + 12), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((_MARGIN, 4 + step * i), line, CAPTION, font(_CAPTION_SIZE - 2))
    return np.asarray(image)


def _even(length: int) -> int:
    return length + length % 2


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which matplotlib ships, so that text looks the same on every machine."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
