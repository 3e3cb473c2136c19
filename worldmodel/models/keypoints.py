"""An encoder of where things are and how they move."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.models.encoder import PATCH

SHARPNESS = 30.0
"""Factor on the maps before the softmax. Maps start near zero, so without it every keypoint would
start at the centre of the frame and move too little to learn from."""

MOTION_GAIN = 10.0
"""Weight of keypoints' motion against their position at the start of training."""

PRODUCTS = 256


class KeypointEncoder(nn.Module):
    """Encoder of a stack of frames through keypoints.

    Each frame gives K = `width` maps, and each map a keypoint: the mean position under its softmax
    (spatial soft arg-max; Finn et al., "Deep Spatial Autoencoders for Visuomotor Learning",
    arXiv:1509.06113), and how strong the map is. What goes on to the latent, through one linear
    layer, are the newest keypoints, their motion since the frames before, their strength, and
    products of those. Anything that is a low-order function of positions and velocities is thereby
    open to a linear probe, as an angle's sine or, x vy - y vx, an angular velocity.

    Args:
        image_size: side of the square frames in pixels, a multiple of 4.
        channels: channels C of one frame.
        frame_stack: frames S in an observation.
        latent_dim: size D of the latent.
        width: keypoints K, and channels of the convolutions.
    """

    grid: Tensor

    def __init__(
        self, image_size: int, channels: int, frame_stack: int, latent_dim: int, width: int
    ) -> None:
        super().__init__()
        self.frame_stack = frame_stack
        self.maps = nn.Sequential(
            nn.Conv2d(channels, width, PATCH, PATCH),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )
        side = torch.linspace(-1, 1, image_size // PATCH)
        y, x = torch.meshgrid(side, side, indexing="ij")
        self.register_buffer("grid", torch.stack((x, y), -1).flatten(0, 1), persistent=False)
        features = (2 * frame_stack + 1) * width
        self.left = nn.Linear(features, PRODUCTS)
        self.right = nn.Linear(features, PRODUCTS)
        self.output = nn.Linear(features + PRODUCTS, latent_dim)

    def keypoints(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints of every frame, in [-1, 1], x to the right and y down, and their strength.

        Args:
            observation: uint8 (B, H, W, S*C), oldest frame first.

        Returns:
            float32 (S, B, K, 2) and (S, B, K).
        """
        b, h, w, stacked = observation.shape
        s = self.frame_stack
        frames = observation.reshape(b, h, w, s, stacked // s).permute(3, 0, 4, 1, 2)
        maps = self.maps(frames.flatten(0, 1).float() / 255).flatten(2)  # (S*B, K, cells)
        positions = (SHARPNESS * maps).softmax(-1) @ self.grid
        return positions.unflatten(0, (s, b)), maps.logsumexp(-1).unflatten(0, (s, b))

    def forward(self, observation: Tensor) -> Tensor:
        """Encode uint8 observations (B, H, W, S*C), oldest frame first, to float32 (B, D)."""
        positions, strength = self.keypoints(observation)
        positions = positions.flatten(2)  # (S, B, 2K)
        motion = MOTION_GAIN * (positions[1:] - positions[:-1])
        features = torch.cat((2 * positions[-1], *motion, strength[-1]), -1)
        products = self.left(features) * self.right(features)
        return self.output(torch.cat((features, products), -1))
