"""Frames in mp4 files: episodes one after another, written and read as a stream."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

CODEC, PIXEL_FORMAT = "h264", "yuv420p"
_QUALITY = "12"
"""Constant rate factor of x264: 0 is lossless, 23 the default."""
_OPTIONS = ["-crf", _QUALITY, "-g", "2", "-bf", "0", "-movflags", "+faststart"]
"""A key frame at every second frame, as LeRobot has it, so that any frame is found quickly."""
_SAFE_INPUT = ["-protocol_whitelist", "file", "-f", "mp4"]
"""Reads nothing but an mp4: playlists, which ffmpeg would follow to other files, are refused."""


def pixel_format(height: int, width: int) -> str:
    """Return the pixel format of a video: colors at half the resolution where sides are even."""
    return PIXEL_FORMAT if height % 2 == width % 2 == 0 else "yuv444p"


class VideoWriter:
    """Writes one mp4 file, H.264.

    Args:
        path: path of the file.
        height: height of the frames.
        width: width of the frames.
        fps: frames per second.

    Attributes:
        frames: frames written so far.
    """

    def __init__(self, path: Path, height: int, width: int, fps: float) -> None:
        self.path, self.frames = path, 0
        self._stream: Generator[None, Any, None] = imageio_ffmpeg.write_frames(
            str(path),
            (width, height),
            fps=fps,
            codec="libx264",
            pix_fmt_out=pixel_format(height, width),
            macro_block_size=1,
            quality=None,
            ffmpeg_log_level="error",
            output_params=_OPTIONS,
        )
        self._stream.send(None)

    def add(self, frames: np.ndarray) -> None:
        """Append frames uint8 (T, H, W, 3).

        Raises:
            OSError: If ffmpeg cannot write them, e.g. on a full disk.
        """
        for frame in frames:
            self._stream.send(np.ascontiguousarray(frame))
        self.frames += len(frames)

    def close(self) -> None:
        """Complete the file.

        Raises:
            OSError: If it does not hold all frames, e.g. on a full disk.
        """
        self._stream.close()
        written = imageio_ffmpeg.count_frames_and_secs(str(self.path))[0]
        if written != self.frames:
            raise OSError(f"{self.path} holds {written} of {self.frames} frames; is the disk full?")

    def abort(self) -> None:
        """Stop writing; the file is not complete."""
        self._stream.close()


class VideoReader:
    """Reads frames of mp4 files; consecutive calls in one file decode every frame once.

    Args:
        height: height that all frames must have.
        width: width that all frames must have.
        fps: frames per second of the files.
    """

    def __init__(self, height: int, width: int, fps: float) -> None:
        self._size, self._fps = (width, height), fps
        self._stream: Generator[Any, None, None] | None = None
        self._path, self._next = Path(), 0

    def read(self, path: Path, start: int, count: int) -> np.ndarray:
        """Read `count` frames from frame `start` on, uint8 (count, H, W, 3).

        Raises:
            ValueError: If the file is no mp4, or has other or fewer frames.
        """
        if self._stream is None or (path, start) != (self._path, self._next):
            self._open(path, start)
        assert self._stream is not None
        width, height = self._size
        frames = np.empty((count, height, width, 3), np.uint8)
        for i in range(count):
            frames[i] = np.frombuffer(self._take(start + i), np.uint8).reshape(height, width, 3)
        self._next = start + count
        return frames

    def close(self) -> None:
        """Stop decoding."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _open(self, path: Path, start: int) -> None:
        self.close()
        if not path.is_file():
            raise ValueError(f"{path} is missing; download the dataset again")
        seek = ["-ss", f"{(start - 0.5) / self._fps:.6f}"] if start else []
        self._stream = imageio_ffmpeg.read_frames(
            str(path.absolute()),
            input_params=[*_SAFE_INPUT, *seek],
            output_params=["-fps_mode", "passthrough"],
        )
        self._path = path
        try:
            found = next(self._stream)["size"]
        except (OSError, RuntimeError, StopIteration, KeyError) as error:
            raise ValueError(f"{path} is not a readable mp4 file") from error
        if tuple(found) != self._size:
            raise ValueError(
                f"{path} has frames of {found[0]} x {found[1]} pixels, but meta/info.json says "
                f"{self._size[0]} x {self._size[1]}"
            )

    def _take(self, number: int) -> bytes:
        assert self._stream is not None
        try:
            return next(self._stream)  # type: ignore[no-any-return]
        except (StopIteration, RuntimeError) as error:
            self.close()
            raise ValueError(f"{self._path} has no frame {number}; it is damaged") from error
