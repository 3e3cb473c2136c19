"""How well `worldmodel train --env ID` learns public environments from random actions.

    python -m benchmarks.environments ENV [ENV ...] [--seeds 0 1 2] [--set KEY=VALUE] [--validation]

Trains each environment with each seed, and prints one row per run: minutes with and without the
collection, PSNR of decoded frames at k = 0 and k = 10, persistence, latent errors, and warnings.
Rows are appended to ``results/environments.jsonl``. With ``--validation`` the episodes are
validation episodes, for choosing hyperparameters; without it they are held out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from worldmodel.config import build_config
from worldmodel.data.datasets import open_datasets
from worldmodel.evaluation.warnings import find_warnings
from worldmodel.run import Run
from worldmodel.settings import parse_settings
from worldmodel.terminal import TerminalProgress
from worldmodel.training import resume

RESULTS = Path("results/environments.jsonl")


def measure(env: str, seed: int, settings: list[str], validation: bool) -> dict[str, Any]:
    """Train and evaluate one run.

    Args:
        env: id of the environment.
        seed: random seed of the training.
        settings: as ``--set`` takes them.
        validation: evaluate on validation episodes instead of held-out ones.
    """
    layer = {
        "env": {"id": env},
        "seed": seed,
        "data": {"policy": "random"},
        "evaluation": {"split": "validation" if validation else "heldout"},
    }
    run = Run.create(build_config(layer, parse_settings(settings)))
    start = time.perf_counter()
    with open_datasets(run.config, [TerminalProgress()]):
        collected = time.perf_counter()
        metrics = resume(run.path).metrics
    end = time.perf_counter()
    frames, latent = metrics.forecast.frames, metrics.forecast.latent
    assert frames is not None
    k = "10" if "10" in latent.error else max(latent.error, key=int)
    return {
        "env": env,
        "encoder": run.config.model.encoder,
        "seed": seed,
        "settings": settings,
        "minutes": round((end - start) / 60, 1),
        "minutes_collecting": round((collected - start) / 60, 1),
        "k": int(k),
        "psnr_0": frames.psnr["0"],
        "psnr_k": frames.psnr[k],
        "psnr_persistence": frames.psnr_persistence[k],
        "latent_error": latent.error[k],
        "latent_persistence": latent.persistence[k],
        "reward_r2": metrics.heads.reward.r2,
        "termination_recall": metrics.heads.termination.recall,
        "warnings": [warning.name for warning in find_warnings(metrics)],
    }


def main() -> None:
    """Measure every combination that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("envs", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--validation", action="store_true")
    options = parser.parse_args()
    for env in options.envs:
        for seed in options.seeds:
            row = measure(env, seed, options.settings, options.validation)
            print(json.dumps(row), flush=True)
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
