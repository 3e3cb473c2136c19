"""Frames, and the observations stacked from them.

A buffer stores single frames: the environment's own image, its ``rgb_array`` rendering, or a
vector of coordinates. The model observes the newest S frames, joined on the last axis, oldest
first, so the first S - 1 frames of an episode complete no observation. `FrameStack` is the one
place that knows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium as gym
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

    from worldmodel.data.replay import ReplayBuffer

Array = TypeVar("Array", np.ndarray, "torch.Tensor")

_MIN_PICTURE = 8

OBSERVATIONS = ("image", "render", "vector")


@dataclass(frozen=True)
class FrameStack:
    """The newest S frames as one observation.

    Attributes:
        size: frames S per observation.
    """

    size: int

    @property
    def first(self) -> int:
        """Index of the first frame of an episode that completes an observation, S - 1."""
        return self.size - 1

    def window(self, steps: int) -> int:
        """Count the frames in a window with an observation and `steps` steps after it."""
        return self.size + steps

    def steps(self, frames: int) -> int:
        """Count the steps after the first observation of a window of `frames` frames."""
        return frames - self.size

    def shape(self, frame_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of an observation of frames (H, W, C) or (d,): (H, W, S*C) or (S*d,)."""
        *sides, last = frame_shape
        return (*sides, self.size * last)

    def observe(self, frames: Array, time: int) -> Array:
        """Stack the observation of each window whose newest frame is `time`.

        Args:
            frames: (B, L, H, W, C) or (B, L, d), an array or a tensor of any dtype.
            time: index of the newest frame, from S - 1 to L - 1.

        Returns:
            (B, H, W, S*C) or (B, S*d), of the same type and dtype.

        Raises:
            IndexError: there are not S frames up to `time`.
        """
        self.require(time, frames.shape[1])
        channels = frames.shape[-1]
        shape = (len(frames), *frames.shape[2:-1], self.size * channels)
        if not isinstance(frames, np.ndarray):
            stacked = frames.new_empty(shape)
            for i in range(self.size):
                part = slice(i * channels, (i + 1) * channels)
                stacked[..., part] = frames[:, time - self.first + i]
            return stacked
        out = np.empty(shape, frames.dtype)
        for i in range(self.size):  # channel by channel: five times as fast as np.concatenate
            for c in range(channels):
                out[..., i * channels + c] = frames[:, time - self.first + i, ..., c]
        return out

    def require(self, time: int, length: int) -> None:
        """Raise IndexError if no observation ends at index `time` of `length` frames."""
        if not self.first <= time < length:
            raise IndexError(
                f"no observation of {self.size} frames ends at index {time} of windows of "
                f"{length} frames; expected {self.first} to {length - 1}"
            )

    def join(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """Join S single frames, oldest first, into one observation."""
        return np.concatenate(list(frames), axis=-1)

    def repeat(self, frame: np.ndarray) -> np.ndarray:
        """Make the observation of a frame at rest: the same frame S times."""
        return self.join([frame] * self.size)

    def newest(self, observations: Any) -> np.ndarray:
        """Take the newest frame of observations or decoded stacks: (..., S*C) to (..., C)."""
        channels = observations.shape[-1] // self.size
        newest = observations[..., -channels:]
        return newest if isinstance(newest, np.ndarray) else newest.cpu().numpy()

    def read(self, buffer: ReplayBuffer, episodes: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Read observations of a buffer.

        Args:
            buffer: where the frames are.
            episodes: int (N,), episode of each observation.
            times: int (N,), index of the newest frame in its episode, at least S - 1.

        Returns:
            (N, H, W, S*C) or (N, S*d).
        """
        windows = buffer.windows(episodes, np.asarray(times) - self.first, self.size)
        return self.observe(windows.frames, self.first)

    def times(self, buffer: ReplayBuffer) -> tuple[np.ndarray, np.ndarray]:
        """List every (episode, time) of a buffer with an observation, as two int64 (N,) arrays."""
        counts = np.maximum(np.asarray(buffer.lengths) - self.first, 0)
        episodes = np.repeat(np.arange(len(counts)), counts)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        return episodes, np.arange(len(episodes)) - starts + self.first

    def sample_times(
        self, buffer: ReplayBuffer, count: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw at most `count` different (episode, time) pairs, in storage order."""
        episodes, times = self.times(buffer)
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(len(episodes))[:count])
        return episodes[chosen], times[chosen]


@dataclass(frozen=True)
class FrameSource:
    """Takes the newest frame of N environments.

    Attributes:
        kind: ``"image"``, ``"render"`` or ``"vector"``.
        shape: of one frame, ``(image_size, image_size, C)`` or ``(d,)``.
        letterbox: whether images of the environment are not square, so that frames have bars.
    """

    kind: str
    shape: tuple[int, ...]
    letterbox: bool = False

    @property
    def dtype(self) -> np.dtype:
        """``uint8`` for images, ``float32`` for vectors."""
        return np.dtype(np.float32 if self.kind == "vector" else np.uint8)

    def __call__(
        self, render: Callable[[], Any], observations: np.ndarray, which: np.ndarray
    ) -> Sequence[np.ndarray] | np.ndarray:
        """Take the frames of some of the environments.

        Args:
            render: draws all N environments; called only if frames are renderings.
            observations: (N, ...), from the last step or reset.
            which: int (M,), the environments to take a frame of.

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
    observation: str,
    env: gym.Env[Any, Any],
    observation_space: gym.Space[Any],
    image_size: int,
) -> FrameSource:
    """Choose what is stored of an environment.

    Args:
        observation: ``"image"``, ``"render"``, ``"vector"``, or ``"auto"``: the first of these
            that the environment offers.
        env: the environment; only its metadata is read.
        observation_space: of the environment without frame stacking.
        image_size: side of the stored images.

    Raises:
        ValueError: If the environment does not offer it.
    """
    offers = _offers(env, observation_space)
    kind = next(iter(offers), "auto") if observation == "auto" else observation
    if kind not in offers:
        raise ValueError(
            f"observation={observation!r}: the environment has observations {observation_space} "
            f"and render modes {env.metadata.get('render_modes', [])}, and so offers "
            f"{', '.join(offers) or 'none'} of {', '.join(OBSERVATIONS)}"
        )
    if kind == "vector":
        return FrameSource(kind, offers[kind])
    letterbox = kind == "image" and is_oblong(offers[kind])
    return FrameSource(kind, (image_size, image_size, offers[kind][-1]), letterbox)


def is_oblong(shape: Sequence[int]) -> bool:
    """Check whether images of shape (H, W, ...) are not square."""
    return shape[0] != shape[1]


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image (H, W, C) uint8 to (size, size, C) by averaging areas.

    An image that is not square keeps its aspect ratio, in the middle between two black bars.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    if height == width:
        return _resample(image, size, size)
    longest = max(height, width)
    height, width = (max(1, round(size * side / longest)) for side in (height, width))
    top, left = (size - height) // 2, (size - width) // 2
    frame = np.zeros((size, size, image.shape[2]), np.uint8)
    frame[top : top + height, left : left + width] = _resample(image, height, width)
    return frame


def _resample(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Stretch an image (H, W, C) uint8 to (height, width, C) by averaging areas."""
    box = Image.Resampling.BOX
    if image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), box))
    channels = [
        Image.fromarray(np.ascontiguousarray(image[..., c])).resize((width, height), box)
        for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _offers(env: gym.Env[Any, Any], space: gym.Space[Any]) -> dict[str, tuple[int, ...]]:
    """List the shape of one frame by kind, in order of preference.

    A rendering comes before an image of less than 8 pixels, which is a code rather than a picture.
    """
    offers: dict[str, tuple[int, ...]] = {}
    if isinstance(space, gym.spaces.Box) and space.dtype == np.uint8:
        if len(space.shape) == 2:
            offers["image"] = (*space.shape, 1)
        elif len(space.shape) == 3 and space.shape[-1] in (1, 3, 4):
            offers["image"] = space.shape
    if "rgb_array" in env.metadata.get("render_modes", []):
        coded = "image" in offers and max(offers["image"][:2]) < _MIN_PICTURE
        offers = {"render": (3,), **offers} if coded else {**offers, "render": (3,)}
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        offers["vector"] = space.shape
    return offers


def allow_no_display() -> None:
    """Keep SDL from searching for a display, and complaining, where there is none."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
