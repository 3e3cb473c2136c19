"""Your own decoder: transposed convolutions.

worldmodel train --set model.decoder=examples.own_decoder:MyDecoder
"""

from torch import Tensor, nn


class MyDecoder(nn.Module):
    """Maps latents (B, D) to images float32 (B, H, W, S*C), about [0, 1]."""

    def __init__(self, frame_shape, frame_stack, latent_dim, width):
        super().__init__()
        side, _, channels = frame_shape
        self.net = nn.Sequential(
            nn.Linear(latent_dim, 4 * width * (side // 8) ** 2),
            nn.ReLU(),
            nn.Unflatten(1, (4 * width, side // 8, side // 8)),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, frame_stack * channels, 4, 2, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).permute(0, 2, 3, 1)
