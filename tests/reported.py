"""An evaluation of the tiny model, as a report shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from free_hands import FreeHands
from rich.console import Console
from tiny_model import TinyModel, simulate, write_buffer

from worldmodel.evaluation import (
    HeldOut,
    Metrics,
    RunSummary,
    evaluate,
    fit_probes,
    metrics_table,
)
from worldmodel.viz.media import gather_media
from worldmodel.viz.report import ReportRun


def run_summary(name: str, seed: int = 0) -> RunSummary:
    """What a run was made with."""
    return RunSummary(
        name=name,
        env="FreeHands-v0",
        observation="pixels",
        policy="passive",
        objective="vicreg",
        seed=seed,
        latent_dim=8,
        trajectories=60,
        updates={"phase1": 3, "refinement": 4, "phase2": 2},
        parameters={"encoder": 1234},
    )


def reported(folder: Path) -> ReportRun:
    """Evaluate the tiny model and gather what its report shows."""
    model, plugin = TinyModel(rate=1.2, channels=3), FreeHands()
    train = write_buffer(folder / "train", *simulate(60, 12, 1), 0, channels=3)
    held = write_buffer(folder / "held", *simulate(40, 45, 2), 20_000, channels=3)
    probes = fit_probes(model, train, plugin.readout(4))
    heldout = HeldOut(held, passive=held, driven=held)
    metrics = evaluate(model, train, heldout, plugin=plugin, reference_updates=20, probes=probes)
    media = gather_media(model, held, probes, plugin.energy)
    return ReportRun("hands", replace(metrics, run=run_summary("hands")), media)


def printed(metrics: Metrics) -> str:
    """The tables of an evaluation, as a wide terminal shows them."""
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(metrics_table(metrics))
    return console.export_text()
