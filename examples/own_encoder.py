"""Your own encoder: a small convolutional network with BatchNorm.

worldmodel train --set model.encoder=examples.own_encoder:MyEncoder
"""

import torch
from torch import Tensor, nn


class MyEncoder(nn.Module):
    """Maps uint8 observations (B, H, W, S*C) to latents float32 (B, D)."""

    def __init__(self, frame_shape, frame_stack, latent_dim, width):
        super().__init__()
        height, width_px, channels = frame_shape
        self.features = nn.Sequential(
            nn.Conv2d(frame_stack * channels, width, 4, 4),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            probe = torch.zeros(2, frame_stack * channels, height, width_px)
            size = self.features(probe).shape[1]
        self.output = nn.Linear(size, latent_dim)

    def forward(self, observation: Tensor) -> Tensor:
        images = observation.permute(0, 3, 1, 2).float() / 255
        return self.output(self.features(images))
