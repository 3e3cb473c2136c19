"""Encoders: from an observation to the latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 4
"""Side of the stem's patches, in pixels."""

MOTION_GAIN = 4.0
"""Weight of frame differences against the newest frame at the start of training."""


class MotionStem(nn.Module):
    """One convolution over 4 x 4 patches of a stack of frames, parametrised by motion.

    The output is ``appearance(newest) + gain * motion(differences of successive frames)``. Both
    are linear, so they are folded into one convolution over the raw stack: no difference image
    is ever made, and small motions weigh enough from the first update on.
    """

    def __init__(
        self, channels: int, frame_stack: int, out_channels: int, gain: float = MOTION_GAIN
    ) -> None:
        super().__init__()
        self.gain = gain
        self.frame_stack = frame_stack
        self.appearance = nn.Conv2d(channels, out_channels, PATCH, PATCH)
        differences = channels * max(frame_stack - 1, 1)
        self.motion = nn.Conv2d(differences, out_channels, PATCH, PATCH, bias=False)

    def kernel(self) -> Tensor:
        """Weights (out_channels, S*C, 4, 4) of the equivalent convolution over pixels in 0..255."""
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
        return F.conv2d(images, self.kernel(), self.appearance.bias, stride=PATCH)


class ConvEncoder(nn.Module):
    """Convolutional encoder of a stack of frames.

    A patch stem that makes motion stand out, strided convolutions that shrink the map to 4 x 4 at
    most, and two linear layers. Nothing is pooled, so positions survive.

    Args:
        image_size: side of the square frames in pixels, a multiple of 16.
        channels: channels C of one frame.
        frame_stack: frames S in an observation.
        latent_dim: size D of the latent.
        width: channel multiplier; the stem has ``2 * width`` channels.
    """

    def __init__(
        self, image_size: int, channels: int, frame_stack: int, latent_dim: int, width: int
    ) -> None:
        super().__init__()
        c, side = 2 * width, image_size // PATCH
        layers: list[nn.Module] = [MotionStem(channels, frame_stack, c), nn.ReLU()]
        while side > 4:
            layers += [nn.Conv2d(c, 2 * c, 3, 2, 1), nn.ReLU()]
            c, side = 2 * c, (side + 1) // 2
        layers += [nn.Flatten(), nn.Linear(c * side * side, 256), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(256, latent_dim))

    def forward(self, observation: Tensor) -> Tensor:
        """Encode uint8 observations (B, H, W, S*C), oldest frame first, to float32 (B, D)."""
        images = observation.permute(0, 3, 1, 2).float()
        return self.net(images)


class VectorEncoder(nn.Module):
    """MLP encoder of stacked vector observations (B, S*d) to latents (B, D)."""

    def __init__(self, size: int, latent_dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(size, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, latent_dim),
        )

    def forward(self, observation: Tensor) -> Tensor:
        """Encode float32 observations (B, S*d) to float32 (B, D)."""
        return self.net(observation.float())
