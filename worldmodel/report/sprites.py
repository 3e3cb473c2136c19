"""Many small frames in one picture, as a data URI that a page can cut them from."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

_QUALITY = 82
_LARGEST = 16_000
"""Longest side of a picture in pixels; WebP ends at 16,383."""


def sprite_sheet(frames: np.ndarray, side: int) -> dict[str, Any]:
    """Lay frames out row by row in one WebP picture.

    Args:
        frames: uint8 (N, H, W, C), C 1 or 3.
        side: Longest side of a tile in pixels; larger frames are shrunk to it.

    Returns:
        `uri`, `width` and `height` of a tile, and `columns`: tile i starts at column i % columns
        and row i // columns.
    """
    height, width = _tile(frames.shape[1], frames.shape[2], side)
    columns = min(max(int(np.ceil(np.sqrt(len(frames) * height / width))), 1), _LARGEST // width)
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for i, frame in enumerate(frames):
        rgb = np.ascontiguousarray(np.broadcast_to(frame, (*frame.shape[:2], 3)))
        tile = Image.fromarray(rgb)
        if tile.size != (width, height):
            tile = tile.resize((width, height), Image.Resampling.BOX)
        sheet.paste(tile, (i % columns * width, i // columns * height))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=_QUALITY, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    return {"uri": uri, "width": width, "height": height, "columns": columns}


def _tile(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)
