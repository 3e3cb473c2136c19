"""Your own predictor: a gated recurrent step.

worldmodel train --set model.predictor=examples.own_predictor:MyPredictor
"""

from torch import Tensor, nn


class MyPredictor(nn.Module):
    """Maps latents (B, D) and action vectors (B, A) to the next latents (B, D)."""

    def __init__(self, latent_dim, action_dim, hidden):
        super().__init__()
        self.action = nn.Sequential(nn.Linear(action_dim, hidden), nn.SiLU())
        self.cell = nn.GRUCell(hidden, latent_dim)

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return self.cell(self.action(action), z)
