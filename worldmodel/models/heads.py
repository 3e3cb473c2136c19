"""Heads on the frozen latent: what a transition earns and whether it ends the episode."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OutcomeHead(nn.Module):
    """MLP on a transition (z, a, z') with one output: a reward, or the logit of termination."""

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
        return self.net(torch.cat((z, action, z_next), -1)).squeeze(-1)
