"""Videos: real episodes beside their open-loop forecasts, written as mp4 or GIF."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image

from worldmodel.evaluation.forecast import open_loop
from worldmodel.evaluation.probes import Probes
from worldmodel.files import replacing
from worldmodel.models import WorldModel
from worldmodel.viz.canvas import compose
from worldmodel.viz.forecast_error import AngleError

PANELS = ("ground truth", "forecast", "reconstruction")

_GIF_COLORS = 128
_PALETTE_FRAMES = 12
_MAX_NAMED_ANGLES = 2
"""With more angles than this, a caption has room for their mean error only."""


class ForecastClip(NamedTuple):
    """One episode at steps k = 0 to K; all arrays show the same step at the same index.

    Attributes:
        truth: uint8 (K+1, H, W, C), the true frames S-1 to S-1+K of the episode.
        forecast: uint8 (K+1, H, W, C), decoded from latents that are predicted open loop from the
            observation at k = 0.
        reconstruction: uint8 (K+1, H, W, C), decoded from the latents of the true observations.
        latents: float32 (K+1, D), latents of the forecast.
        encoded: float32 (K+1, D), latents of the true observations.
    """

    truth: np.ndarray
    forecast: np.ndarray
    reconstruction: np.ndarray
    latents: np.ndarray
    encoded: np.ndarray


def forecast_clip(wm: WorldModel, frames: np.ndarray, actions: np.ndarray) -> ForecastClip:
    """Forecast and reconstruct one episode.

    Args:
        wm: a world model with a decoder.
        frames: uint8 (L, H, W, C), L > S.
        actions: (L-1, A), or (L-1,) if discrete, as recorded.

    Raises:
        ValueError: If the model has no decoder, or the episode is too short for one step.
    """
    latents = open_loop(wm, frames[None], actions[None])[:, 0]
    times = range(wm.frames.first, len(frames))
    encoded = wm.encode(np.concatenate([wm.frames.observe(frames[None], t) for t in times]))
    return ForecastClip(
        truth=frames[wm.frames.first :],
        forecast=decode_newest(wm, latents),
        reconstruction=decode_newest(wm, encoded),
        latents=latents.cpu().numpy(),
        encoded=encoded.cpu().numpy(),
    )


def decode_newest(wm: WorldModel, latents: torch.Tensor) -> np.ndarray:
    """Decode latents (N, D) to their newest frames, uint8 (N, H, W, C).

    Raises:
        ValueError: If the model has no decoder.
    """
    if wm.decoder is None:
        raise ValueError("the model has no decoder, so there is nothing to show; train on pixels")
    return wm.frames.newest(wm.decode(latents.nan_to_num()))


def forecast_video(
    wm: WorldModel,
    frames: np.ndarray,
    actions: np.ndarray,
    path: str | Path,
    *,
    dt: float,
    fps: float | None = None,
    states: np.ndarray | None = None,
    probes: Probes | None = None,
) -> None:
    """Write a video of held-out episodes, one after another.

    Three panels: the ground truth; the forecast, predicted open loop from the first observation and
    decoded; and the reconstruction, encoded and decoded at every step. All three show the same
    step k, from 0 to K = L - S. The file is written completely or not at all.

    Args:
        wm: a world model with a decoder.
        frames: uint8 (E, L, H, W, C), C 1 or 3, L > S.
        actions: (E, L-1, A), or (E, L-1) if discrete, as recorded.
        path: path of the video, which ends in ``.mp4`` (H.264, yuv420p) or ``.gif``.
        dt: seconds per step.
        fps: frames per second; by default 1 / dt, which is real time.
        states: float64 (E, L, d), true states, to show the angle error of the forecast.
        probes: fitted probes that read angles; required with `states`.

    Raises:
        ValueError: If the model has no decoder, the episodes are too short for one step, the
            suffix is neither ``.mp4`` nor ``.gif``, or only one of `states` and `probes` is given.
        FileNotFoundError: If the directory of `path` does not exist.
        OSError: If the file cannot be written.
    """
    images = forecast_frames(wm, frames, actions, dt=dt, states=states, probes=probes)
    write_video(path, images, 1.0 / dt if fps is None else fps)


def forecast_frames(
    wm: WorldModel,
    frames: np.ndarray,
    actions: np.ndarray,
    *,
    dt: float,
    states: np.ndarray | None = None,
    probes: Probes | None = None,
) -> Iterator[np.ndarray]:
    """Draw the E (K+1) frames of `forecast_video`, each uint8 (H', W', 3) with even sides."""
    if (states is None) != (probes is None):
        raise ValueError("give states and probes together: angle errors need both")
    for i in range(len(frames)):
        episode = forecast_clip(wm, frames[i], actions[i])
        notes = [""] * len(episode.truth)
        if states is not None and probes is not None:
            error = AngleError(probes.mlp, probes.readout)
            by_step = error.per_angle(episode.latents, states[i, wm.frames.first :])
            notes = [_note(errors, probes.readout.angle_names) for errors in by_step]
        panels = zip(episode.truth, episode.forecast, episode.reconstruction, strict=True)
        for k, shown in enumerate(panels):
            caption = f"episode {i + 1} of {len(frames)}     t = {k * dt:.2f} s     k = {k}"
            yield compose(shown, PANELS, caption, notes[k])


def _note(errors: np.ndarray, names: tuple[str, ...]) -> str:
    if len(names) > _MAX_NAMED_ANGLES:
        return f"mean angle error of forecast {errors.mean():.2f} rad"
    named = "   ".join(f"{name} {error:.2f}" for name, error in zip(names, errors, strict=True))
    return f"angle error of forecast   {named} rad"


def check_video_path(path: str | Path) -> Path:
    """Check, before anything is computed, that a video can be written to a path.

    Raises:
        ValueError: If the suffix is neither ``.mp4`` nor ``.gif``.
        FileNotFoundError: If the directory does not exist.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"cannot write a video to {path}; give a path that ends in .mp4 or .gif")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the directory {path.parent} does not exist; create it first")
    return path


def write_video(path: str | Path, images: Iterable[np.ndarray], fps: float) -> None:
    """Write an mp4 or a GIF, completely or not at all.

    Args:
        path: path of the video, which ends in ``.mp4`` or ``.gif``.
        images: images uint8 (H, W, 3), both sides even.
        fps: frames per second.

    Raises:
        ValueError: If the suffix is neither ``.mp4`` nor ``.gif``.
        FileNotFoundError: If the directory does not exist.
        OSError: If the file cannot be written.
    """
    path = check_video_path(path).absolute()  # ffmpeg takes "-name.mp4" for an option
    with replacing(path) as temporary:
        try:
            _WRITERS[path.suffix](temporary, images, fps)
        except BrokenPipeError as error:
            raise OSError(f"ffmpeg could not write {path}; is the disk full?") from error


def write_mp4(path: Path, images: Iterable[np.ndarray], fps: float) -> None:
    """Write an mp4 that every player opens: H.264, yuv420p, index at the front.

    Args:
        path: path of the video, which ends in ``.mp4``.
        images: images uint8 (H, W, 3), both sides even.
        fps: frames per second.

    Raises:
        OSError: If the file does not hold all frames in the end, e.g. on a full disk.
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
    """Write a looping GIF with one palette for all frames, so that colors do not flicker.

    Args:
        path: path of the GIF, which ends in ``.gif``.
        images: images uint8 (H, W, 3); all are held in memory.
        fps: frames per second; GIF rounds the duration of a frame to 10 ms.
    """
    frames = list(images)
    sample = frames[:: max(1, len(frames) // _PALETTE_FRAMES)]
    palette = Image.fromarray(np.concatenate(sample)).quantize(
        _GIF_COLORS, Image.Quantize.FASTOCTREE
    )
    first, *rest = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    )
    duration = round(1000 / fps)
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)


_WRITERS: dict[str, Callable[[Path, Iterable[np.ndarray], float], None]] = {
    ".mp4": write_mp4,
    ".gif": write_gif,
}
