"""Predictors: one step of latent dynamics under an action.

A predictor is an ``nn.Module`` made by ``Predictor(latent_dim, action_dim, hidden)``, with
`model.predictor_kwargs` as further arguments. Its ``forward`` maps latents (B, D) and action
vectors (B, A) to the next latents (B, D). `model.predictor` chooses it. Action vectors are scaled
to [-1, 1], one-hot for discrete actions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unroll(predictor: nn.Module, z: Tensor, actions: Tensor) -> Tensor:
    """Roll out open loop: latents (B, D), action vectors (T, B, A), T >= 1, to (T, B, D).

    The latent before the first action is not part of the result.
    """
    steps = []
    for action in actions:
        z = predictor(z, action)
        steps.append(z)
    return torch.stack(steps)


class ResidualPredictor(nn.Module):
    """One step of latent dynamics, ``z + net(z, a)``.

    The output layer starts at zero, so an untrained predictor is the identity and an untrained
    rollout stays where it started.

    Args:
        latent_dim: size D of the latent.
        action_dim: size A of the action vector.
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
        change: Tensor = self.net(torch.cat((z, action), -1))
        return z + change


class DirectPredictor(ResidualPredictor):
    """The same network without the residual connection, ``net(z, a)``."""

    def __init__(self, latent_dim: int, action_dim: int, hidden: int = 512) -> None:
        super().__init__(latent_dim, action_dim, hidden)
        output = self.net[-1]
        assert isinstance(output, nn.Linear)
        output.reset_parameters()

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        """Map latents (B, D) and action vectors (B, A) to the next latents (B, D)."""
        prediction: Tensor = self.net(torch.cat((z, action), -1))
        return prediction


class IdentityPredictor(nn.Module):
    """Predicts no change: the weakest predictor, without parameters.

    An encoder trained with it is only rewarded for what two observations share, so it may ignore
    everything that moves (see docs/phenomena.md).
    """

    def __init__(self, latent_dim: int, action_dim: int, hidden: int = 512) -> None:
        super().__init__()

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        """Return latents (B, D) unchanged."""
        return z
