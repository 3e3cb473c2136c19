"""The forecast video: truth, open-loop forecast and reconstruction side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from worldmodel.evaluation.forecast import angle_errors
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.models import WorldModel
from worldmodel.playback.canvas import compose
from worldmodel.playback.scenes import scene
from worldmodel.playback.writers import write_video

LABELS = ("ground truth", "forecast", "reconstruction")


def forecast_video(
    wm: WorldModel,
    frames: np.ndarray,
    actions: np.ndarray,
    path: str | Path,
    *,
    dt: float,
    fps: float | None = None,
    states: np.ndarray | None = None,
    probe: MLPProbe | None = None,
) -> None:
    """Write a video of held-out episodes, one after another.

    Three panels: the ground truth; the forecast, unrolled open loop from the first observation and
    decoded; and the reconstruction, encoded and decoded at every step. All three show the same
    step k, from 0 to K = L - S. The file appears whole or not at all.

    Args:
        wm: A world model with a decoder.
        frames: uint8 (E, L, H, W, C), C 1 or 3, L > S.
        actions: (E, L-1, A), or (E, L-1) if discrete, as recorded.
        path: Ends in `.mp4` (H.264, yuv420p) or `.gif`.
        dt: Seconds a step.
        fps: Frames a second; None is true to time, 1 / dt.
        states: float64 (E, L, 4), to show how far the angles of the forecast are off.
        probe: Reads the angles; needed with `states`.

    Raises:
        ValueError: If the model has no decoder, no step fits, the suffix is another, or only one
            of `states` and `probe` is given.
        FileNotFoundError: If the folder of `path` does not exist.
        OSError: If the file cannot be written.
    """
    images = forecast_frames(wm, frames, actions, dt=dt, states=states, probe=probe)
    write_video(path, images, 1.0 / dt if fps is None else fps)


def forecast_frames(
    wm: WorldModel,
    frames: np.ndarray,
    actions: np.ndarray,
    *,
    dt: float,
    states: np.ndarray | None = None,
    probe: MLPProbe | None = None,
) -> Iterator[np.ndarray]:
    """The frames of `forecast_video`, E (K+1) of uint8 (H', W', 3), with even sides."""
    if (states is None) != (probe is None):
        raise ValueError("give states and probe together: the probe reads what states are held to")
    for i in range(len(frames)):
        episode = scene(wm, frames[i], actions[i])
        off = None
        if states is not None and probe is not None:
            true = states[i, wm.frame_stack - 1 :, :2]
            off = angle_errors(probe.angles(episode.latents), true)  # (K+1, 2)
        for k, panels in enumerate(
            zip(episode.truth, episode.forecast, episode.reconstruction, strict=True)
        ):
            caption = f"episode {i + 1} of {len(frames)}     t = {k * dt:.2f} s     k = {k}"
            yield compose(panels, LABELS, caption, "" if off is None else _note(off[k]))


def _note(off: np.ndarray) -> str:
    return f"angle error of forecast   θ₁ {off[0]:.2f}   θ₂ {off[1]:.2f} rad"
