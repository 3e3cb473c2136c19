"""What dreams need beside the model, kept in its run directory."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldmodel.data import ReplayBuffer
from worldmodel.files import replacing
from worldmodel.imagination.domain import Domain, fit_domain
from worldmodel.imagination.starts import start_latents
from worldmodel.models import WorldModel
from worldmodel.run import RunError


def dream_path(run: str | Path) -> Path:
    """Where a run keeps it."""
    return Path(run) / "models" / "dream.pt"


def save_dream(run: str | Path, wm: WorldModel, buffer: ReplayBuffer) -> None:
    """Fit the domain on training episodes, draw starts from them, and write both."""
    write_dream(run, start_latents(wm, buffer), fit_domain(wm, buffer))


def write_dream(run: str | Path, starts: Tensor, domain: Domain) -> None:
    """Write what `load_dream` reads."""
    with replacing(dream_path(run)) as path:
        torch.save({"starts": starts, "domain": asdict(domain)}, path)


def load_dream(run: str | Path, wm: WorldModel) -> dict[str, Any]:
    """Read `starts` and `domain` as the environments take them, on the model's device.

    Raises:
        RunError: The file is missing or damaged.
    """
    path = dream_path(run)
    if not path.is_file():
        raise RunError(f"{path} is missing; `worldmodel evaluate {run}` writes it")
    try:
        content = torch.load(path, map_location=wm.device, weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged files
        raise RunError(f"{path} is damaged and cannot be read: {error}") from error
    return {"starts": content["starts"], "domain": Domain(**content["domain"])}
