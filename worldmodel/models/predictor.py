"""Predictors of the next latent: the residual one, and others to compare it with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualPredictor(nn.Module):
    """One step of latent dynamics, ``z + net(z, a)``.

    The output layer starts at zero, so an untrained predictor is the identity and an untrained
    rollout stays where it started.

    Args:
        latent_dim: size D of the latent.
        action_dim: size A of the action vector (one-hot for discrete actions).
        hidden: width of the two hidden layers.
    """

    def __init__(self, latent_dim: int, action_dim: int, hidden: int = 512) -> None:
        super().__init__()
        output = nn.Linear(hidden, latent_dim)
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
        self.net = nn.Sequential(
            nn.Linear(latent_dim + action_dim, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            output,
        )

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        """Map latents (B, D) and action vectors (B, A) to the next latents (B, D)."""
        return z + self.net(torch.cat((z, action), -1))

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """Open-loop rollout: latents (B, D), actions (T, B, A) to (T, B, D), `z` left out."""
        steps = []
        for action in actions:
            z = self(z, action)
            steps.append(z)
        return torch.stack(steps)


class DirectPredictor(ResidualPredictor):
    """The same network without the residual connection, ``net(z, a)``."""

    def __init__(self, latent_dim: int, action_dim: int, hidden: int = 512) -> None:
        super().__init__(latent_dim, action_dim, hidden)
        output = self.net[-1]
        assert isinstance(output, nn.Linear)
        output.reset_parameters()

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        """Map latents (B, D) and action vectors (B, A) to the next latents (B, D)."""
        return self.net(torch.cat((z, action), -1))


class IdentityPredictor(nn.Module):
    """Predicts that nothing changes: the weakest predictor, without parameters.

    An encoder trained with it is rewarded only for what two observations share, so it may forget
    whatever moves (see docs/phenomena.md).
    """

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        """Latents (B, D) as they are, whatever the action vectors (B, A)."""
        return z

    def unroll(self, z: Tensor, actions: Tensor) -> Tensor:
        """Latents (B, D) repeated: actions (T, B, A) to (T, B, D)."""
        return z.expand(len(actions), *z.shape)
