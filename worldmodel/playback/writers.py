"""Writing frames as H.264 video or as GIF."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from itertools import chain
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

from worldmodel.files import replacing

_COLOURS = 128
_PALETTE_FRAMES = 12


def write_mp4(path: Path, images: Iterable[np.ndarray], fps: float) -> None:
    """Write an mp4 that plays anywhere: H.264, yuv420p, index at the front.

    Args:
        path: Ends in `.mp4`.
        images: uint8 (H, W, 3) each, both sides even.
        fps: Frames a second.

    Raises:
        OSError: If the file does not hold all frames in the end, as on a full disk.
    """
    images = iter(images)
    first = next(images)
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (first.shape[1], first.shape[0]),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=None,
        ffmpeg_log_level="error",
        output_params=["-crf", "16", "-movflags", "+faststart"],
    )
    count = 0
    with closing(writer):
        writer.send(None)
        for image in chain([first], images):
            writer.send(np.ascontiguousarray(image))
            count += 1
    written = imageio_ffmpeg.count_frames_and_secs(str(path))[0]
    if written != count:
        raise OSError(f"{path} holds {written} of {count} frames; is the disk full?")


def write_gif(path: Path, images: Iterable[np.ndarray], fps: float) -> None:
    """Write an endless GIF with one palette for all frames, so that colours do not flicker.

    Args:
        path: Ends in `.gif`.
        images: uint8 (H, W, 3) each; all are held in memory.
        fps: Frames a second; GIF rounds the time of a frame to 10 ms.
    """
    frames = list(images)
    sample = frames[:: max(1, len(frames) // _PALETTE_FRAMES)]
    palette = Image.fromarray(np.concatenate(sample)).quantize(_COLOURS, Image.Quantize.FASTOCTREE)
    first, *rest = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    )
    duration = round(1000 / fps)
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)


_WRITERS = {".mp4": write_mp4, ".gif": write_gif}


def check_video_path(path: str | Path) -> Path:
    """Find out, before anything is computed, whether a video can go there.

    Raises:
        ValueError: If the suffix is neither `.mp4` nor `.gif`.
        FileNotFoundError: If the folder does not exist.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"cannot write a video to {path}; give a path that ends in .mp4 or .gif")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; make it first")
    return path


def write_video(path: str | Path, images: Iterable[np.ndarray], fps: float) -> None:
    """Write an `.mp4` or a `.gif`, whole or not at all.

    Args:
        path: Of the file.
        images: uint8 (H, W, 3) each, both sides even.
        fps: Frames a second.

    Raises:
        ValueError: See `check_video_path`, as for `FileNotFoundError`.
        OSError: If the file cannot be written.
    """
    path = check_video_path(path)
    with replacing(path) as temporary:
        _WRITERS[path.suffix](temporary, images, fps)
