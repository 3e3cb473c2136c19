"""What the trainers of both phases keep for exact resumption."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Stepping(Protocol):
    """A trainer that counts its updates."""

    step: int
    optimizers: list[torch.optim.Optimizer]


def progress_of(trainer: Stepping) -> dict[str, Any]:
    """The number of updates, and the state of the optimisers."""
    return {
        "step": trainer.step,
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
    }


def restore_progress(trainer: Stepping, state: dict[str, Any]) -> None:
    """Continue from `progress_of`; other keys of `state` are left alone."""
    trainer.step = state["step"]
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
