"""Compare configurations with the same training budget.

    python benchmarks/learning NAME --updates 700 --seeds 0 1 2
    python benchmarks/learning NAME --minutes 4

Trains phase 1 of every configuration of an experiment (see experiments.py) and evaluates the model
on validation episodes, and again after refinement with `--refine` or where the experiment asks for
it. Every result is saved to docs/learning/NAME.json at once, and a second call trains only the
models whose results are missing or were made with another configuration. If none of the saved
results could be kept, as with another budget, the script stops: give another `--out`, or remove the
file. At the end it writes the table into the experiment's page in docs/, and a plot of the errors
against steps ahead and against minutes of training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from evaluation import evaluate_model
from experiments import EXPERIMENTS, Experiment
from tables import Row, write_plot, write_table

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.config import Config, build_config
from worldmodel.data import ReplayBuffer
from worldmodel.data.datasets import Datasets, evaluation_set, open_datasets
from worldmodel.files import write_text
from worldmodel.models import ModelSpec, WorldModel
from worldmodel.optim import Phase, cosine, tune_cpu
from worldmodel.phases import jepa_phase, refinement_phase, update_target
from worldmodel.terminal import TerminalProgress

sys.path.append(str(Path(__file__).parents[1]))
from machine import describe_machine

POINTS = 6
"""Evaluations during training."""

TIMED_UPDATES = 30
"""Updates that are timed to convert a budget in minutes to updates."""

RECIPE: dict[str, Any] = {
    "env": True,
    "observation": True,
    "image_size": True,
    "frame_stack": True,
    "data": {"size", "steps", "policy", "env_kwargs", "state_key"},
    "model": True,
    "objective": True,
    "phase1": True,
    "refinement": True,
    "evaluation": {"readout", "probe"},
}
"""Keys of the configuration that affect a row, without the seed."""


def new_model(config: Config, buffer: ReplayBuffer) -> WorldModel:
    """Make a model with the weights that the configuration's seed gives."""
    torch.manual_seed(config.seed)
    return WorldModel(ModelSpec.of(config, buffer.frame_shape, buffer.action_space))


def make_phase(model: WorldModel, buffer: ReplayBuffer, config: Config, updates: int) -> Phase:
    """Make phase 1 with schedules over `updates` instead of `phase1.updates`."""
    phase, settings = jepa_phase(model, buffer, config), config.phase1

    def update_momentum(update: int) -> None:
        momentum = cosine(settings.ema_start, settings.ema_end, update / updates)
        update_target(model.target_encoder, model.encoder, momentum)

    phase.updates, phase.after_update = updates, update_momentum
    return phase


def budget(config: Config, buffer: ReplayBuffer, options: argparse.Namespace) -> int:
    """Choose the number of updates; with `--minutes`, by timing some of them."""
    if options.minutes is None:
        return options.updates
    phase = make_phase(new_model(config, buffer), buffer, config, TIMED_UPDATES + 1)
    phase.update()
    start = time.perf_counter()
    phase.run()
    return round(60 * options.minutes * TIMED_UPDATES / (time.perf_counter() - start))


def train(
    model: WorldModel,
    config: Config,
    data: Datasets,
    validation: ReplayBuffer,
    updates: int,
    points: int,
) -> Row:
    """Train a model, and evaluate it at the end and `points` times before.

    Returns:
        The keys of a row that describe training and evaluation.
    """
    phase = make_phase(model, data.train, config, updates)
    marks = {round(updates * (i + 1) / (points + 1)) for i in range(points)}
    seconds, curve = 0.0, []
    while phase.step < updates:
        start = time.perf_counter()
        phase.update()
        seconds += time.perf_counter() - start
        if phase.step in marks:
            error = evaluate_model(model.eval(), data.train, validation, config)["error"]
            curve.append({"updates": phase.step, "seconds": seconds, "error": error})
            model.train()
    final = evaluate_model(model.eval(), data.train, validation, config)
    curve.append({"updates": updates, "seconds": seconds, "error": final["error"]})
    return {"updates": updates, "seconds": seconds, "curve": curve, **final}


def refine(
    model: WorldModel, config: Config, data: Datasets, validation: ReplayBuffer
) -> dict[str, Row]:
    """Refine a model and evaluate it again.

    Returns:
        The key `refined` of a row.
    """
    start = time.perf_counter()
    phase = refinement_phase(model, data.train, config)
    if phase is None:
        raise SystemExit(f"there is nothing to refine with {config.refinement} and {config.model}")
    phase.run()
    seconds = time.perf_counter() - start
    refined = evaluate_model(model.eval(), data.train, validation, config)
    return {"refined": {"seconds": seconds, **refined}}


def configuration(
    experiment: Experiment, label: str, seed: int, options: argparse.Namespace
) -> Config:
    """Build the configuration with a label and a seed."""
    settings = {
        "data": {"dir": str(options.data_dir), **options.size},
        "refinement": {"updates": options.refine},
        "seed": seed,
        **options.image_size,
    }
    return build_config(experiment.base, experiment.configurations[label], settings)


def recipe(config: Config, options: argparse.Namespace) -> str:
    """Compute a digest of everything that affects a row except its seed."""
    content = config.model_dump(mode="json", include=RECIPE) | {"episodes": options.episodes}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def is_current(row: Row, experiment: Experiment, options: argparse.Namespace) -> bool:
    """Check whether a saved row has the configuration that the experiment would train now."""
    if row["label"] not in experiment.configurations:
        return False
    config = configuration(experiment, row["label"], row["seed"], options)
    return row.get("recipe") == recipe(config, options)


def load_rows(
    path: Path, limit: dict[str, float], experiment: Experiment, options: argparse.Namespace
) -> list[Row]:
    """Load the saved rows that are still valid; stop rather than overwrite a file without any."""
    if not path.exists():
        return []
    saved = json.loads(path.read_text())
    rows = [row for row in saved["rows"] if is_current(row, experiment, options)]
    if saved["budget"] != limit:
        rows = []
    if saved["rows"] and not rows:
        raise SystemExit(
            f"{path} has results of {saved['budget']}, or of another configuration, and none of "
            "the requested ones; give another --out, or remove the file to train all models again"
        )
    return rows


def new_rows(
    experiment: Experiment, saved: list[Row], options: argparse.Namespace, callbacks: list[Callback]
) -> Iterator[Row]:
    """Train and evaluate the configurations and seeds that are not among the saved rows."""
    done = {(row["label"], row["seed"]) for row in saved}
    for label in experiment.configurations:
        for seed in options.seeds:
            if (label, seed) in done:
                continue
            config = configuration(experiment, label, seed, options)
            with (
                open_datasets(config, callbacks) as data,
                evaluation_set(
                    "validation",
                    config,
                    data.train.seeds,
                    config.data.policy,
                    episodes=options.episodes,
                ) as validation,
            ):
                updates = budget(config, data.train, options)
                model = new_model(config, data.train)
                row = train(model, config, data, validation, updates, options.points)
                if options.refine:
                    row |= refine(model, config, data, validation)
            CallbackList(callbacks).on_message(
                f"{label}, seed {seed}: {row['error']}, {row['worst_linear']:.2f} linear"
            )
            yield {"label": label, "seed": seed, "recipe": recipe(config, options), **row}


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--updates", type=int, help="budget (default: the experiment's own)")
    parser.add_argument("--minutes", type=float, help="budget in minutes, instead of --updates")
    parser.add_argument("--refine", type=int, help="updates of refinement after phase 1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--points", type=int, default=POINTS, help="evaluations during training")
    parser.add_argument("--size", type=int, help="number of training trajectories")
    parser.add_argument("--episodes", type=int, default=256, help="number of validation episodes")
    parser.add_argument("--image-size", type=int, help="height and width of a frame in pixels")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    experiment = EXPERIMENTS[options.name]
    options.updates = options.updates or experiment.updates
    options.refine = experiment.refine if options.refine is None else options.refine
    options.size = {} if options.size is None else {"size": options.size}
    options.image_size = {} if options.image_size is None else {"image_size": options.image_size}
    return options


def main() -> None:
    """Train what is missing, save it, and write table and plot."""
    options = parse_options()
    experiment = EXPERIMENTS[options.name]
    tune_cpu()
    print(describe_machine(), file=sys.stderr)
    limit = {"minutes": options.minutes} if options.minutes else {"updates": options.updates}
    if options.refine:
        limit["updates of refinement"] = options.refine
    path = options.out / "learning" / f"{options.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"budget": limit, "rows": load_rows(path, limit, experiment, options)}
    labels = list(experiment.configurations)
    for row in new_rows(experiment, result["rows"], options, [TerminalProgress()]):
        result["rows"].append(row)
        result["rows"].sort(key=lambda row: (labels.index(row["label"]), row["seed"]))
        write_text(path, json.dumps(result, indent=1) + "\n")
    print(write_table(options.name, experiment, result, options.out / experiment.page))
    write_plot(result, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
