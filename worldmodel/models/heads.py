"""Decoder, reward head and termination head: trained on the frozen encoder's latents.

A decoder is an ``nn.Module`` made by ``Decoder(frame_shape, frame_stack, latent_dim, width)``,
with `model.decoder_kwargs` as further arguments. Its ``forward`` maps latents (B, D) to images
float32 (B, H, W, S*C), about [0, 1]. `model.decoder` chooses it. It is trained by the MSE to the
observation, or by its own ``loss(z, observation)`` (uint8 (B, H, W, S*C)) if it defines one.

`HEADS` names the heads and their losses. An entry there is a new head: it is built, trained, saved
as ``models/NAME.pth`` and fine-tuned like the others, and is an attribute of `WorldModel`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 4
"""Side of the patches that the last layer draws, in pixels."""


def to_patches(images: Tensor) -> Tensor:
    """Cut images (B, H, W, C) into (B, H/4 * W/4, 16 * C), row by row."""
    b, h, w, c = images.shape
    cut = images.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, c).transpose(2, 3)
    return cut.reshape(b, -1, PATCH * PATCH * c)


def reconstruction_loss(decoder: nn.Module, z: Tensor, observation: Tensor) -> Tensor:
    """Compute the MSE of decoded pixels in [0, 1], or the decoder's own loss.

    Args:
        decoder: see the module.
        z: float32 (B, D).
        observation: uint8 (B, H, W, S*C).
    """
    own = getattr(decoder, "loss", None)
    if callable(own):
        loss: Tensor = own(z, observation)
        return loss
    return F.mse_loss(decoder(z).float(), observation.float() / 255)


class PatchDecoder(nn.Module):
    """Decodes latents patch by patch.

    Linear layers lay out a map with one cell per 4 x 4 patch, a convolution connects neighbors,
    and a linear layer draws each patch.

    Args:
        frame_shape: (H, W, C) of one frame, H = W a multiple of 4.
        frame_stack: frames S per observation.
        latent_dim: size D of the latent.
        width: channels of the map.
        older_weight: weight of the error of each older frame of a stack; that of the newest is 1.
            None for 1 in stacks of two frames, and 0.05 in longer ones, where equal weights blur
            the newest frame.
    """

    frame_weights: Tensor

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        frame_stack: int,
        latent_dim: int,
        width: int = 16,
        *,
        older_weight: float | None = None,
    ) -> None:
        super().__init__()
        self.image_size = frame_shape[0]
        if older_weight is None:
            older_weight = 1.0 if frame_stack <= 2 else 0.05
        weights = [older_weight] * (frame_stack - 1) + [1.0]
        self.total_weight, self.weighted = sum(weights), set(weights) != {1.0}
        self.register_buffer("frame_weights", torch.tensor(weights), persistent=False)
        side = self.image_size // PATCH
        self.layout = nn.Sequential(
            nn.Linear(latent_dim, 256),
            nn.ReLU(inplace=True),
            nn.Linear(256, width * side * side),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (width, side, side)),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.draw = nn.Linear(2 * width, PATCH * PATCH * frame_stack * frame_shape[-1])

    def patches(self, z: Tensor) -> Tensor:
        """Decode latents (B, D) to patches (B, H/4 * W/4, 16 * S*C), as `to_patches` cuts them."""
        patches: Tensor = self.draw(self.layout(z).flatten(2).mT)
        return patches

    def loss(self, z: Tensor, observation: Tensor) -> Tensor:
        """Compute the weighted mean over frames of the MSE of pixels in [0, 1].

        It is computed patch by patch, which saves reordering pixels.
        """
        decoded, true = self.patches(z).float(), to_patches(observation).float().mul_(1 / 255)
        if not self.weighted:
            return F.mse_loss(decoded, true)
        errors = (decoded - true).square()
        by_frame = errors.unflatten(-1, (PATCH * PATCH, len(self.frame_weights), -1))
        loss: Tensor = (by_frame.mean((0, 1, 2, 4)) * self.frame_weights).sum() / self.total_weight
        return loss

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents (B, D) to float32 images (B, H, W, S*C)."""
        side, count = self.image_size // PATCH, z.shape[0]
        cut = self.patches(z).reshape(count, side, side, PATCH, PATCH, -1)
        return cut.transpose(2, 3).reshape(count, self.image_size, self.image_size, -1)


class Transition(NamedTuple):
    """Steps of an environment in latent space.

    Attributes:
        z: float32 (B, D), latents before the step.
        actions: float32 (B, A), action vectors.
        z_next: float32 (B, D), encoded or predicted latents after it.
        rewards: float32 (B,).
        terminated: float32 (B,), 1 where the step ended the episode by termination.
    """

    z: Tensor
    actions: Tensor
    z_next: Tensor
    rewards: Tensor
    terminated: Tensor


def reward_loss(output: Tensor, step: Transition) -> Tensor:
    """Compute the mean squared error of predicted rewards (B,)."""
    return F.mse_loss(output, step.rewards)


def termination_loss(output: Tensor, step: Transition) -> Tensor:
    """Compute the binary cross-entropy of the logits of termination (B,)."""
    return F.binary_cross_entropy_with_logits(output, step.terminated)


HEADS: dict[str, Callable[[Tensor, Transition], Tensor]] = {
    "reward_head": reward_loss,
    "termination_head": termination_loss,
}
"""Heads of every model, each an `OutcomeHead`: name -> loss of its output (B,)."""


class OutcomeHead(nn.Module):
    """MLP on a transition (z, a, z') with one output: a reward, or the logit of termination.

    Args:
        latent_dim: size D of the latent.
        action_dim: size A of the action vector.
        hidden: width of both hidden layers.
    """

    def __init__(self, latent_dim: int, action_dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2 * latent_dim + action_dim, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, z: Tensor, action: Tensor, z_next: Tensor) -> Tensor:
        """Map (B, D), (B, A), (B, D) to (B,)."""
        output: Tensor = self.net(torch.cat((z, action, z_next), -1)).squeeze(-1)
        return output
