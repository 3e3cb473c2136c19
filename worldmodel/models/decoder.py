"""The decoder: from the latent back to pixels, only to verify what the latent holds."""

from __future__ import annotations

from torch import Tensor, nn

PATCH = 4
"""Side of the patches that the last layer draws, in pixels."""


def to_patches(images: Tensor) -> Tensor:
    """Cut images (B, H, W, C) into (B, H/4 * W/4, 16 * C), row by row."""
    b, h, w, c = images.shape
    cut = images.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, c).transpose(2, 3)
    return cut.reshape(b, -1, PATCH * PATCH * c)


class PixelDecoder(nn.Module):
    """Latents (B, D) to images (B, H, W, S*C), about [0, 1].

    Linear layers lay out a map with one place for each 4 x 4 patch, a convolution lets
    neighbours agree, and a linear layer draws each patch. Training compares patches, whose order
    of pixels costs nothing to make.

    Args:
        image_size: side of the images in pixels, a multiple of 4.
        channels: channels S*C of an observation.
        latent_dim: size D of the latent.
        width: channels of the map.
    """

    def __init__(self, image_size: int, channels: int, latent_dim: int, width: int = 16) -> None:
        super().__init__()
        side = image_size // PATCH
        self.image_size = image_size
        self.layout = nn.Sequential(
            nn.Linear(latent_dim, 256),
            nn.ReLU(),
            nn.Linear(256, width * side * side),
            nn.ReLU(),
            nn.Unflatten(1, (width, side, side)),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
        )
        self.draw = nn.Linear(2 * width, PATCH * PATCH * channels)

    def patches(self, z: Tensor) -> Tensor:
        """Decode latents (B, D) to patches (B, H/4 * W/4, 16 * S*C), as `to_patches` cuts them."""
        return self.draw(self.layout(z).flatten(2).mT)

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents (B, D) to float32 images (B, H, W, S*C)."""
        side = self.image_size // PATCH
        cut = self.patches(z).unflatten(2, (PATCH, PATCH, -1)).unflatten(1, (side, side))
        return cut.transpose(2, 3).reshape(len(z), self.image_size, self.image_size, -1)
