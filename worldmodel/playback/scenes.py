"""What a model makes of an episode: the truth, its forecast and its reconstruction, in step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from worldmodel.evaluation.forecast import newest_frame, open_loop
from worldmodel.evaluation.observations import observation_at
from worldmodel.models import WorldModel


class Scene(NamedTuple):
    """One episode at steps k = 0 to K, all three in step.

    Attributes:
        truth: uint8 (K+1, H, W, C), the true frames S-1 to S-1+K of the episode.
        forecast: uint8 (K+1, H, W, C), decoded from latents unrolled open loop from the
            observation at k = 0.
        reconstruction: uint8 (K+1, H, W, C), decoded from the latents of the true observations.
        latents: float32 (K+1, D), of the forecast.
        encoded: float32 (K+1, D), of the true observations.
    """

    truth: np.ndarray
    forecast: np.ndarray
    reconstruction: np.ndarray
    latents: np.ndarray
    encoded: np.ndarray


def scene(wm: WorldModel, frames: np.ndarray, actions: np.ndarray) -> Scene:
    """Forecast and reconstruct one episode.

    Args:
        wm: A world model with a decoder.
        frames: uint8 (L, H, W, C), L > S.
        actions: (L-1, A), or (L-1,) if discrete, as recorded.

    Raises:
        ValueError: If the model has no decoder, or no step fits.
    """
    latents = open_loop(wm, frames[None], actions[None])[:, 0]
    encoded = _encode_all(wm, frames)
    return Scene(
        truth=frames[wm.frame_stack - 1 :],
        forecast=decode_newest(wm, latents, frames.shape[-1]),
        reconstruction=decode_newest(wm, encoded, frames.shape[-1]),
        latents=latents.cpu().numpy(),
        encoded=encoded.cpu().numpy(),
    )


def reconstruct(wm: WorldModel, frames: np.ndarray) -> np.ndarray:
    """Decode the encoding of every observation of an episode.

    Args:
        wm: A world model with a decoder.
        frames: uint8 (L, H, W, C).

    Returns:
        uint8 (L-S+1, H, W, C), the newest frame of each.
    """
    return decode_newest(wm, _encode_all(wm, frames), frames.shape[-1])


def _encode_all(wm: WorldModel, frames: np.ndarray) -> torch.Tensor:
    times = range(wm.frame_stack - 1, len(frames))
    observations = [observation_at(frames[None], t, wm.frame_stack) for t in times]
    return wm.encode(np.concatenate(observations))


def decode_newest(wm: WorldModel, latents: torch.Tensor, channels: int) -> np.ndarray:
    """Decode latents (N, D) and keep the newest frame, uint8 (N, H, W, C).

    Raises:
        ValueError: If the model has no decoder.
    """
    if wm.decoder is None:
        raise ValueError("the model has no decoder, so there is nothing to show; train on pixels")
    return newest_frame(wm.decode(latents), channels)
