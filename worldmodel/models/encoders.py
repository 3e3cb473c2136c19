"""Encoders: from an observation to the latent.

An encoder is an ``nn.Module`` made by ``Encoder(frame_shape, frame_stack, latent_dim, width)``,
with `model.encoder_kwargs` as further arguments. Its ``forward`` maps observations (uint8
(B, H, W, S*C), oldest frame first, or float32 (B, S*d) for vectors) to latents float32 (B, D).
`model.encoder` chooses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.extras import require

if TYPE_CHECKING:
    from worldmodel.data.frames import FrameStack

PATCH = 4
"""Side of the first convolution's patches, in pixels."""


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Make a context that suspends autocast, for what 8 significant bits are too few for."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def encode_windows(
    encoder: nn.Module, stack: FrameStack, frames: Tensor, times: Sequence[int]
) -> Tensor:
    """Encode several observations of each window.

    An encoder may have a method ``encode_windows(frames, times)`` that does the same faster.

    Args:
        encoder: of a model.
        stack: how frames are stacked to observations.
        frames: of windows, uint8 (B, L, H, W, C) or float32 (B, L, d).
        times: T indices of the newest frame of an observation, each from S - 1 to L - 1.

    Returns:
        Latents float32 (T, B, D).

    Raises:
        IndexError: There are not S frames up to one of `times`.
    """
    for time in times:
        stack.require(time, frames.shape[1])
    own: Callable[[Tensor, Sequence[int]], Tensor] | None = getattr(encoder, "encode_windows", None)
    if own is not None:
        return own(frames, times).float()
    return torch.stack([encoder(stack.observe(frames, time)) for time in times]).float()


class Blur(nn.Module):
    """A Gaussian that smooths the images a convolution sees, folded into its kernel.

    Both are linear, so a larger kernel does both, and no smoothed image is ever made. The Gaussian
    is cut off at two standard deviations, and images are padded with 0.

    Args:
        sigma: standard deviation in pixels, at most 16; 0 for no smoothing.

    Raises:
        ValueError: If `sigma` is out of range.
    """

    gaussian: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        if not 0 <= sigma <= 16:
            raise ValueError(f"blur is {sigma}; expected up to 16 pixels, or 0 for none")
        self.radius = math.ceil(2 * sigma)
        offsets = torch.arange(-self.radius, self.radius + 1)
        weights = torch.exp(-offsets.square() / (2 * sigma**2)) if sigma else torch.ones(1)
        weights /= weights.sum()
        self.register_buffer("gaussian", torch.outer(weights, weights), persistent=False)

    def forward(self, kernel: Tensor) -> Tensor:
        """Map a kernel (O, C, k, k) to (O, C, k + 2r, k + 2r), to be used with a padding of r."""
        if not self.radius:
            return kernel
        planes = kernel.flatten(0, 1).unsqueeze(1)
        larger = F.conv2d(planes, self.gaussian[None, None], padding=2 * self.radius)
        return larger.view(*kernel.shape[:2], *larger.shape[2:])


class KeypointEncoder(nn.Module):
    """Encodes a stack of frames by keypoints.

    Each frame gives K = `width` maps, and each map a keypoint: the mean position under its softmax
    (spatial soft arg-max; Finn et al., "Deep Spatial Autoencoders for Visuomotor Learning",
    arXiv:1509.06113), and the log-sum-exp of the map as its strength. The features are the newest
    keypoints, their differences between successive frames, the newest strengths, and products of
    those. One linear layer maps them to the latent, so low-order functions of positions and
    velocities (the sine of an angle, the angular velocity x vy - y vx) are linearly decodable.

    Keypoints are float32 under autocast too: velocities are differences of positions, and in
    bfloat16 positions come in steps of up to an eighth of a pixel (of 64 per frame).

    Args:
        frame_shape: (H, W, C) of one frame, H = W a multiple of 4.
        frame_stack: frames S per observation.
        latent_dim: size D of the latent.
        width: keypoints K, and channels of the convolutions.
        sharpness: factor on the maps before the softmax. Maps start near zero; without it every
            keypoint starts at the center of the frame and hardly moves.
        motion_gain: initial weight of the keypoints' differences relative to their positions.
        products: number of products of features.
        blur: standard deviation in pixels of a Gaussian that smooths the frames; 0 for none. The
            first convolution sees patches of 4 x 4 pixels, and what is thinner or moves by less
            looks different in each position within a patch, so latents follow the grid of the
            patches. A blur of 2 to 3 reduces that.
    """

    side: Tensor

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        frame_stack: int,
        latent_dim: int,
        width: int = 16,
        *,
        sharpness: float = 30.0,
        motion_gain: float = 10.0,
        products: int = 256,
        blur: float = 0.0,
    ) -> None:
        super().__init__()
        image_size, _, channels = frame_shape
        self.frame_stack = frame_stack
        self.sharpness, self.motion_gain = sharpness, motion_gain
        self.maps = nn.Sequential(
            nn.Conv2d(channels, width, PATCH, PATCH),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1),
        )
        self.blur = Blur(blur)
        self.register_buffer("side", torch.linspace(-1, 1, image_size // PATCH), persistent=False)
        features = (2 * frame_stack + 1) * width
        self.left = nn.Linear(features, products)
        self.right = nn.Linear(features, products)
        self.output = nn.Linear(features + products, latent_dim)

    def keypoints(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the keypoints of single frames, in [-1, 1], x to the right and y down.

        Args:
            frames: uint8 (B, H, W, C).

        Returns:
            Positions float32 (B, K, 2) and strengths (B, K).
        """
        stem = self.maps[0]
        assert isinstance(stem, nn.Conv2d)
        with full_precision(frames.device):
            pixels = frames.permute(0, 3, 1, 2).float()
            kernel = self.blur(stem.weight / 255)
            patches = F.conv2d(pixels, kernel, stem.bias, stem.stride, self.blur.radius)
            maps = self.maps[1:](patches)
            cells = maps.contiguous().flatten(2)
            weights = (self.sharpness * cells).softmax(-1).view(maps.shape)
            positions = torch.stack((weights.sum(-2) @ self.side, weights.sum(-1) @ self.side), -1)
            # The log-sum-exp, in fewer passes over the maps than `logsumexp`.
            strength = cells[..., 0] - cells.log_softmax(-1)[..., 0]
        return positions, strength

    def forward(self, observation: Tensor) -> Tensor:
        """Encode uint8 observations (B, H, W, S*C), oldest frame first, to float32 (B, D)."""
        frames = observation.unflatten(-1, (self.frame_stack, -1)).unbind(-2)
        return self._encode([self.keypoints(frame) for frame in frames])

    def encode_windows(self, frames: Tensor, times: Sequence[int]) -> Tensor:
        """Encode the observations of windows; see `encode_windows`.

        Frames that several observations share are seen once.
        """
        first = self.frame_stack - 1
        needed = sorted({time - age for time in times for age in range(self.frame_stack)})
        found = {time: self.keypoints(frames[:, time]) for time in needed}
        stacks = [[found[t] for t in range(time - first, time + 1)] for time in times]
        return torch.stack([self._encode(stack) for stack in stacks])

    def _encode(self, keypoints: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Map the keypoints of S frames, oldest first, to latents (B, D)."""
        positions = torch.stack([position for position, _ in keypoints]).flatten(2)  # (S, B, 2K)
        motion = self.motion_gain * (positions[1:] - positions[:-1])
        features = torch.cat((2 * positions[-1], *motion, keypoints[-1][1]), -1)
        products = self.left(features) * self.right(features)
        latent: Tensor = self.output(torch.cat((features, products), -1))
        return latent


class MotionStem(nn.Module):
    """One convolution over 4 x 4 patches of a stack of frames, parametrized by motion.

    The output is ``appearance(newest) + gain * motion(differences of successive frames)``. Both
    are linear, so they are folded into one convolution over the raw stack: no difference image
    is ever made, and small motions have enough weight from the first update on.

    Args:
        channels: channels C of one frame.
        frame_stack: frames S per observation.
        out_channels: channels of the output.
        gain: initial weight of frame differences relative to the newest frame.
        blur: see `KeypointEncoder`.
    """

    def __init__(
        self,
        channels: int,
        frame_stack: int,
        out_channels: int,
        gain: float = 4.0,
        blur: float = 0.0,
    ) -> None:
        super().__init__()
        self.gain = gain
        self.blur = Blur(blur)
        self.frame_stack = frame_stack
        self.appearance = nn.Conv2d(channels, out_channels, PATCH, PATCH)
        differences = channels * max(frame_stack - 1, 1)
        self.motion = nn.Conv2d(differences, out_channels, PATCH, PATCH, bias=False)

    def kernel(self) -> Tensor:
        """Compute weights (out_channels, S*C, 4, 4) of the same convolution over pixels, 0..255."""
        appearance = self.appearance.weight
        if self.frame_stack == 1:
            return appearance / 255
        motion = self.gain * self.motion.weight
        still = torch.zeros_like(appearance)
        older, newer = torch.cat((motion, still), 1), torch.cat((still, motion), 1)
        newest = F.pad(appearance, (0, 0, 0, 0, motion.shape[1], 0))
        return (newest + newer - older) / 255

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 pixels 0..255 (B, S*C, H, W) to (B, out_channels, H/4, W/4)."""
        kernel = self.blur(self.kernel())
        return F.conv2d(images, kernel, self.appearance.bias, PATCH, self.blur.radius)


class ConvEncoder(nn.Module):
    """Convolutional encoder of a stack of frames.

    A patch stem that emphasizes motion, strided convolutions down to a map of 4 x 4 or less, and
    two linear layers. Nothing is pooled, so positions are preserved.

    Args:
        frame_shape: (H, W, C) of one frame, H = W a multiple of 16.
        frame_stack: frames S per observation.
        latent_dim: size D of the latent.
        width: channel multiplier; the stem has ``2 * width`` channels.
        blur: see `KeypointEncoder`.
    """

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        frame_stack: int,
        latent_dim: int,
        width: int = 16,
        *,
        blur: float = 0.0,
    ) -> None:
        super().__init__()
        image_size, _, channels = frame_shape
        c, side = 2 * width, image_size // PATCH
        stem = MotionStem(channels, frame_stack, c, blur=blur)
        layers: list[nn.Module] = [stem, nn.ReLU(inplace=True)]
        while side > 4:
            layers += [nn.Conv2d(c, 2 * c, 3, 2, 1), nn.ReLU(inplace=True)]
            c, side = 2 * c, (side + 1) // 2
        layers += [nn.Flatten(), nn.Linear(c * side * side, 256), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers, nn.Linear(256, latent_dim))

    def forward(self, observation: Tensor) -> Tensor:
        """Encode uint8 observations (B, H, W, S*C), oldest frame first, to float32 (B, D)."""
        latent: Tensor = self.net(observation.permute(0, 3, 1, 2).float())
        return latent


class TimmEncoder(nn.Module):
    """A backbone of timm and a linear layer, untrained at first.

    It needs the extra ``timm``. On a CPU even small backbones take ten times as long as `conv` or
    more; use them on a GPU, or where `conv` is not enough.

    Args:
        frame_shape: (H, W, C) of one frame, H = W.
        frame_stack: frames S per observation; they are the backbone's S*C input channels.
        latent_dim: size D of the latent.
        width: unused; there for the common signature.
        name: of the model, one of ``timm.list_models()``.
        options: further arguments of ``timm.create_model``, e.g. ``img_size`` and ``patch_size`` of
            a vision transformer.
    """

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        frame_stack: int,
        latent_dim: int,
        width: int = 16,
        *,
        name: str = "resnet10t",
        **options: object,
    ) -> None:
        super().__init__()
        timm = require("timm", "timm")
        if name not in timm.list_models():
            raise ValueError(f"name is {name!r}; expected one of timm.list_models(), as resnet10t")
        channels = frame_stack * frame_shape[2]
        self.backbone = timm.create_model(
            name, pretrained=False, in_chans=channels, num_classes=0, **options
        )
        self.output = nn.Linear(self.backbone.num_features, latent_dim)

    def forward(self, observation: Tensor) -> Tensor:
        """Encode uint8 observations (B, H, W, S*C), oldest frame first, to float32 (B, D)."""
        images = observation.permute(0, 3, 1, 2).float() / 127.5 - 1
        latent: Tensor = self.output(self.backbone(images))
        return latent


class MLPEncoder(nn.Module):
    """MLP encoder of stacked vector observations.

    Args:
        frame_shape: (d,) of one frame.
        frame_stack: frames S per observation.
        latent_dim: size D of the latent.
        width: unused; there for the common signature.
        hidden: width of both hidden layers.
    """

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        frame_stack: int,
        latent_dim: int,
        width: int = 16,
        *,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(frame_stack * frame_shape[0], hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, latent_dim),
        )

    def forward(self, observation: Tensor) -> Tensor:
        """Encode float32 observations (B, S*d) to float32 (B, D)."""
        latent: Tensor = self.net(observation.float())
        return latent
