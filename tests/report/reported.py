"""A report of the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from free_hands import FreeHands
from tiny_model import DT, TinyModel, simulate, write_buffer

from worldmodel.evaluation import HeldOut, choose_readout, evaluate, fit_probes
from worldmodel.report import ReportRun, gather_media


def facts(name: str, seed: int = 0) -> dict[str, Any]:
    """What a run was made with."""
    return {
        "name": name,
        "env": "Hands-v0",
        "policy": "passive",
        "objective": "vicreg",
        "seed": seed,
        "epochs": {"phase1": 3, "phase2": 2},
        "parameters": {"encoder": 1234},
    }


def reported(folder: Path) -> ReportRun:
    """Evaluate the tiny model and gather what its report shows."""
    model, task = TinyModel(rate=1.2, channels=3), FreeHands()
    train = write_buffer(folder / "train", *simulate(60, 12, 1), 0, channels=3)
    held = write_buffer(folder / "held", *simulate(40, 45, 2), 20_000, channels=3)
    probes = fit_probes(model, train, choose_readout(task, 4))
    heldout = HeldOut(held, passive=held, driven=held)
    metrics = evaluate(
        model, train, heldout, dt=DT, task=task, privileged_updates=20, probes=probes
    )
    media = gather_media(model, held, probes.mlp, task.energy)
    return ReportRun("hands", {"run": facts("hands"), **metrics}, media)
