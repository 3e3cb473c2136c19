"""What is stored of an observation: one frame, never a stack.

A frame is the environment's own image, its ``rgb_array`` rendering, or a vector of coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

OBSERVATIONS = ("image", "render", "vector")


@dataclass(frozen=True)
class FrameSource:
    """Takes the newest frame of N environments.

    Attributes:
        kind: ``"image"``, ``"render"`` or ``"vector"``.
        shape: of one frame, ``(image_size, image_size, C)`` or ``(N,)``.
    """

    kind: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """``uint8`` for images, ``float32`` for vectors."""
        return np.dtype(np.float32 if self.kind == "vector" else np.uint8)

    def __call__(
        self, render: Callable[[], Any], observations: np.ndarray, which: np.ndarray
    ) -> Sequence[np.ndarray] | np.ndarray:
        """Frames of some of the environments.

        Args:
            render: draws all N environments; called if the source is a rendering.
            observations: (N, ...), what their last step or reset returned.
            which: (M,) int, the environments to take a frame of.

        Returns:
            M frames of `shape` and `dtype`.
        """
        if self.kind == "render":
            images = render()
            return [resize(images[i], self.shape[0]) for i in which]
        chosen = observations if len(which) == len(observations) else observations[which]
        if self.kind == "vector":
            return chosen[:, -self.shape[-1] :].astype(np.float32)
        if chosen.ndim == 3:
            chosen = chosen[..., None]
        newest = chosen[..., -self.shape[-1] :]
        if newest.shape[1:] == self.shape:
            return newest
        return [resize(image, self.shape[0]) for image in newest]


def frame_source(
    observation: str, env: gym.Env, observation_space: gym.Space, image_size: int
) -> FrameSource:
    """Decide what to store of an environment.

    Args:
        observation: ``"image"``, ``"render"``, ``"vector"``, or ``"auto"``: the first of these
            that the environment offers.
        env: the environment; only its metadata is read.
        observation_space: its observation without stacking.
        image_size: side of the stored images.

    Raises:
        ValueError: if the environment does not offer what is asked for.
    """
    offers = _offers(env, observation_space)
    kind = next(iter(offers), "auto") if observation == "auto" else observation
    if kind not in offers:
        raise ValueError(
            f"observation={observation!r}: the environment, observing {observation_space} and "
            f"rendering {env.metadata.get('render_modes', [])}, offers "
            f"{', '.join(offers) or 'none'} of {', '.join(OBSERVATIONS)}"
        )
    if kind == "vector":
        return FrameSource(kind, offers[kind])
    return FrameSource(kind, (image_size, image_size, offers[kind][-1]))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image (H, W, C) uint8 to (size, size, C) by averaging areas."""
    if image.shape[:2] == (size, size):
        return image
    if image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))
    planes = [
        Image.fromarray(np.ascontiguousarray(image[..., c])).resize(
            (size, size), Image.Resampling.BOX
        )
        for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _offers(env: gym.Env, space: gym.Space) -> dict[str, tuple[int, ...]]:
    """Shape of one frame by kind, in order of preference."""
    offers: dict[str, tuple[int, ...]] = {}
    if isinstance(space, gym.spaces.Box) and space.dtype == np.uint8:
        if len(space.shape) == 2:
            offers["image"] = (*space.shape, 1)
        elif len(space.shape) == 3 and space.shape[-1] in (1, 3, 4):
            offers["image"] = space.shape
    if "rgb_array" in env.metadata.get("render_modes", []):
        offers["render"] = (3,)
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        offers["vector"] = space.shape
    return offers
