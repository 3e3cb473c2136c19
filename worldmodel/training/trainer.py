"""What all trainers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class Trainer(ABC):
    """Updates weights one call at a time, and can be stopped and resumed between any two.

    Attributes:
        step: Updates done.
        total: Updates to do.
        optimizers: Of the weights.
    """

    step: int = 0
    total: int
    optimizers: list[torch.optim.Optimizer]

    @abstractmethod
    def update(self) -> dict[str, Tensor]:
        """Do one update, and tell the terms of its loss, without gradients."""

    def finish(self) -> None:
        """Do all updates that are left."""
        while self.step < self.total:
            self.update()

    def state_dict(self) -> dict[str, Any]:
        """All that exact resumption needs, the model's weights left out."""
        return {
            "step": self.step,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.step = state["step"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
