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

PENALTY = 0.02


def teach(
    run: Path,
    *,
    on: str,
    algo: str,
    steps: int,
    seed: int,
    envs: int | None,
    rounds: int,
    dream_steps: int | None,
    ensemble: int,
    penalty: float | None,
    device: str,
    console: Console,
) -> dict[str, Any]:
    """Train an agent as `rl` does, or as `dyna` does if there are `rounds`.

    Args:
        run: A run directory.
        on: See `Lesson`, as for `algo`, `steps`, `seed` and `envs`.
        rounds: Of acting and learning from it.
        dream_steps: See `Guards`; None for its own.
        ensemble: Predictors whose disagreement is penalised; 0 for none. They are trained if the
            run does not have them yet.
        penalty: See `Guards`; None for 0.02.
        device: See `worldmodel.load`.
        console: Shows progress.

    Raises:
        RunError: There is no finished run.
        ValueError: An argument does not fit the run or the others.
    """
    if on != "dream" and (rounds or ensemble or dream_steps or penalty is not None):
        raise ValueError(
            f"--rounds, --dream-steps, --ensemble and --penalty are for dreams, and --on is {on!r}"
        )
    if penalty is not None and not ensemble:
        raise ValueError("--penalty is for disagreement, and there is no --ensemble; use 2 or more")
    if ensemble == 1:
        raise ValueError("--ensemble is 1, and one predictor cannot disagree; use 2 or more")
    Run(run).config()
    members = ensemble_of(run, ensemble, device, console) if ensemble else None
    guards = Guards(
        dream_steps=dream_steps or Guards.dream_steps,
        ensemble=members,
        penalty=PENALTY if penalty is None else penalty,
    )
    lesson = Lesson(on, algo, steps, seed, envs, guards)
    if rounds:
        return dyna(run, lesson, rounds, device=device, console=console)
    return rl(run, lesson, device=device, console=console)


def ensemble_of(run: Path, size: int, device: str, console: Console) -> Ensemble:
    """The run's ensemble of that size, trained if there is none yet."""
    wm, path = load(run, device), Run(run).models / f"ensemble_{size}.pt"
    if path.exists():
        return load_ensemble(path, wm)
    console.print(f"Training an ensemble of {size} predictors, once for this run ...")
    with (
        open_datasets(Run(run).config(), console) as data,
        progress_bar(console, "ensemble", size) as bar,
    ):
        ensemble = train_ensemble(wm, data.train, size, 0, bar)
    save_ensemble(path, ensemble)
    return ensemble
