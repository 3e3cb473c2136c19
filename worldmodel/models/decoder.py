"""The decoder: from the latent back to pixels, only to verify what the latent holds."""

from __future__ import annotations

from torch import Tensor, nn


class PixelDecoder(nn.Module):
    """Latents (B, D) to images (B, S*C, H, W) in [0, 1].

    Two linear layers lay out a coarse map, two convolutions refine it, and sub-pixel shuffles
    (arXiv:1609.05158) enlarge it by 2 and by 4.
    """

    def __init__(self, image_size: int, channels: int, latent_dim: int, width: int = 32) -> None:
        super().__init__()
        side = image_size // 8
        self.net = nn.Sequential(
            nn.Linear(latent_dim, 256),
            nn.ReLU(),
            nn.Linear(256, 2 * width * side * side),
            nn.ReLU(),
            nn.Unflatten(1, (2 * width, side, side)),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.ReLU(),
            nn.PixelShuffle(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 16 * channels, 1),
            nn.PixelShuffle(4),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents (B, D) to float32 images (B, S*C, H, W), about [0, 1]."""
        return self.net(z)
