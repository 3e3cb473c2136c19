"""What `worldmodel rl` asks for: one training, or the loop, with guards around dreams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from worldmodel.datasets import open_datasets
from worldmodel.imagination.ensemble import (
    Ensemble,
    load_ensemble,
    save_ensemble,
    train_ensemble,
)
from worldmodel.progress import progress_bar
from worldmodel.rl.dyna import dyna
from worldmodel.rl.guards import Guards
from worldmodel.rl.train import Lesson, rl
from worldmodel.run import Run, load


def teach(
    run: Path,
    *,
    on: str,
    algo: str,
    steps: int,
    seed: int,
    envs: int | None,
    rounds: int,
    dream_steps: int,
    ensemble: int,
    penalty: float,
    device: str,
    console: Console,
) -> dict[str, Any]:
    """Train an agent as `rl` does, or as `dyna` does if there are `rounds`.

    Args:
        run: A run directory.
        on: See `Lesson`, as for `algo`, `steps`, `seed` and `envs`.
        rounds: Of acting and learning from it.
        dream_steps: See `Guards`.
        ensemble: Predictors whose disagreement is penalised; 0 for none. They are trained if the
            run does not have them yet.
        penalty: See `Guards`.
        device: See `worldmodel.load`.
        console: Shows progress.

    Raises:
        RunError: There is no finished run.
        ValueError: An argument does not fit the run or the others.
    """
    if on != "dream" and (rounds or ensemble):
        raise ValueError(f"--rounds and --ensemble are for dreams, and --on is {on!r}")
    if ensemble == 1:
        raise ValueError("--ensemble is 1, and one predictor cannot disagree; use 2 or more")
    Run(run).config()
    members = ensemble_of(run, ensemble, device, console) if ensemble else None
    guards = Guards(dream_steps=dream_steps, ensemble=members, penalty=penalty)
    lesson = Lesson(on, algo, steps, seed, envs, guards)
    if rounds:
        return dyna(run, lesson, rounds, device=device, console=console)
    return rl(run, lesson, device=device, console=console)


def ensemble_of(run: Path, size: int, device: str, console: Console) -> Ensemble:
    """The run's ensemble of that size, trained if there is none yet."""
    wm, path = load(run, device), Run(run).models / f"ensemble_{size}.pt"
    if path.exists():
        return load_ensemble(path, wm)
    with (
        open_datasets(Run(run).config(), console) as data,
        progress_bar(console, "ensemble", size) as bar,
    ):
        ensemble = train_ensemble(wm, data.train, size, 0, bar)
    save_ensemble(path, ensemble)
    return ensemble
