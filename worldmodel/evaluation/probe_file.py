"""The probe of a run, kept beside its model so that playback can read angles."""

from __future__ import annotations

from pathlib import Path

import torch

from worldmodel.evaluation.probes import MLPProbe
from worldmodel.files import replacing
from worldmodel.run import RunError


def probe_path(run: str | Path) -> Path:
    """Where a run keeps it."""
    return Path(run) / "models" / "probe.pt"


def save_probe(run: str | Path, probe: MLPProbe) -> None:
    """Write a probe that reads a pendulum's angles."""
    with replacing(probe_path(run)) as path:
        torch.save(probe.state(), path)


def load_probe(run: str | Path) -> MLPProbe | None:
    """Read it; None if the run has none, as its environment has no angles.

    Raises:
        RunError: It is damaged.
    """
    path = probe_path(run)
    if not path.is_file():
        return None
    try:
        return MLPProbe.from_state(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load raises many types for damaged files
        raise RunError(
            f"{path} is damaged ({error}); `worldmodel evaluate {run}` writes it anew"
        ) from error
