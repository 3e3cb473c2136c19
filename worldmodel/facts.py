"""What a run was made with, and what that means for its use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from worldmodel.config import Config
from worldmodel.models import WorldModel


def run_facts(path: Path, config: Config, model: WorldModel) -> dict[str, Any]:
    """The choices that tell runs apart, as JSON values.

    Returns:
        `name`, `mode`, `env`, `policy`, `objective`, `seed`, `latent_dim`, `trajectories`,
        `epochs` (of `phase1` and `phase2`) and `parameters` (part of the model -> how many).
    """
    return {
        "name": path.resolve().name,
        "mode": config.mode,
        "env": config.env.id,
        "policy": Path(config.data.policy).name,
        "objective": config.objective.name,
        "seed": config.seed,
        "latent_dim": model.spec.latent_dim,
        "trajectories": config.data.size,
        "epochs": {"phase1": config.phase1.epochs, "phase2": config.phase2.epochs},
        "parameters": {
            name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
        },
    }


def warn_if_passive(config: Config, console: Console) -> None:
    """Say so if the training data held no action, before somebody acts with the model."""
    if config.data.policy == "passive":
        console.print(
            "This model learned from passive data and does not know what actions do; "
            "train one with --policy random",
            style="bold red",
        )
