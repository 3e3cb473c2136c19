"""Labelled panels side by side on a dark canvas, as frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

PANEL = 256
"""Longest side of a panel in pixels."""
MARGIN = 20
GAP = 16
STRIP = 46
"""Height of the strips above and below the panels, in pixels."""

BACKGROUND = (10, 12, 18)
BORDER = (52, 58, 74)
_LABEL = (236, 238, 243)
CAPTION = (164, 170, 184)
_LABEL_SIZE = 17
CAPTION_SIZE = 15


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels at which a frame of that height and width is shown."""
    scale = PANEL / max(height, width)
    return round(height * scale), round(width * scale)


def panel_origin(index: int, height: int, width: int) -> tuple[int, int]:
    """Top and left pixel of a panel that shows frames of that height and width."""
    return STRIP, MARGIN + index * (panel_size(height, width)[1] + GAP)


def enlarge(frame: np.ndarray) -> np.ndarray:
    """Enlarge a frame to panel size, smoothly.

    Args:
        frame: uint8 (H, W, C), C 1 or 3.

    Returns:
        uint8 (H', W', 3), see `panel_size`.
    """
    rgb = np.broadcast_to(frame, (*frame.shape[:2], 3))
    height, width = panel_size(*frame.shape[:2])
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def compose(
    frames: Sequence[np.ndarray], labels: Sequence[str], caption: str, note: str = ""
) -> np.ndarray:
    """Draw one frame of a video.

    Args:
        frames: P frames uint8 (H, W, C) of one size, C 1 or 3.
        labels: P labels, above the panels.
        caption: Below the panels, on the left.
        note: Below the panels, on the right.

    Returns:
        uint8 (H', W', 3), both sides even, as video codecs want.
    """
    height, width = panel_size(*frames[0].shape[:2])
    _, right = panel_origin(len(frames) - 1, *frames[0].shape[:2])
    size = (_even(right + width + MARGIN), _even(2 * STRIP + height))
    image = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        top, left = panel_origin(i, *frame.shape[:2])
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=BORDER)
        image.paste(Image.fromarray(enlarge(frame)), (left, top))
        draw.text((left, STRIP // 2), label, _LABEL, font(_LABEL_SIZE), anchor="lm")
    middle = STRIP + height + STRIP // 2
    small = font(CAPTION_SIZE)
    draw.text((MARGIN, middle), caption, CAPTION, small, anchor="lm")
    draw.text((right + width, middle), note, CAPTION, small, anchor="rm")
    return np.asarray(image)


def _even(length: int) -> int:
    return length + length % 2


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships, so that labels look the same on every machine."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
