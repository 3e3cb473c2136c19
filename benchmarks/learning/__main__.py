"""Compare configurations under one budget.

    python benchmarks/learning NAME --updates 700 --seeds 0 1 2
    python benchmarks/learning NAME --minutes 4

Every configuration of the experiment (see experiments.py) is trained, phase 1 alone, and judged on
validation episodes, and again after refinement with `--refine` or where the experiment asks for it.
Each result is kept in docs/learning/NAME.json as soon as it is there, and a second call makes only
those that are missing or of another recipe. Where it would keep none, as under another budget, it
stops: give another `--out`, or remove that file. In the end the table goes into its page in docs/,
and a plot of error against steps ahead and against minutes of training beside the figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from experiments import EXPERIMENTS, Experiment
from judge import judge
from present import write_plot, write_table
from rich.console import Console

from worldmodel.config import Config, build_config
from worldmodel.data import ReplayBuffer
from worldmodel.datasets import Datasets, environment, open_datasets
from worldmodel.evaluation import evaluation_set
from worldmodel.files import replacing
from worldmodel.models import ModelSpec, WorldModel, describe_actions
from worldmodel.training.cpu import tune_cpu
from worldmodel.training.jepa import JEPATrainer
from worldmodel.training.refinement import refinement

CURVE = 6
"""Times that a model is judged while it trains."""

PACED = 30
"""Updates that tell how many fit into a budget of minutes."""

Row = dict[str, Any]


def new_model(config: Config, buffer: ReplayBuffer) -> WorldModel:
    """A model with the weights of the configuration's seed."""
    torch.manual_seed(config.seed)
    spec = ModelSpec(
        frame_shape=buffer.frame_shape,
        frame_stack=config.frame_stack,
        actions=describe_actions(buffer.action_space),
        **config.model.model_dump(),
    )
    return WorldModel(spec)


def budget(config: Config, buffer: ReplayBuffer, options: argparse.Namespace) -> int:
    """Updates to train for."""
    if options.minutes is None:
        return options.updates
    trainer = JEPATrainer(new_model(config, buffer), buffer, config)
    trainer.update()
    begun = time.perf_counter()
    for _ in range(PACED):
        trainer.update()
    return round(60 * options.minutes * PACED / (time.perf_counter() - begun))


def train(
    model: WorldModel,
    config: Config,
    data: Datasets,
    validation: ReplayBuffer,
    updates: int,
    points: int,
) -> Row:
    """Train with a schedule of `updates`, and judge at the end and `points` times before it."""
    trainer = JEPATrainer(model, data.train, config)
    trainer.total = updates
    marks = {round(updates * (i + 1) / (points + 1)) for i in range(points)}
    seconds, curve = 0.0, []
    while trainer.step < updates:
        begun = time.perf_counter()
        trainer.update()
        seconds += time.perf_counter() - begun
        if trainer.step in marks:
            error = judge(model.eval(), data.train, validation)["error"]
            curve.append({"updates": trainer.step, "seconds": seconds, "error": error})
            model.train()
    final = judge(model.eval(), data.train, validation)
    curve.append({"updates": updates, "seconds": seconds, "error": final["error"]})
    return {"updates": updates, "seconds": seconds, "curve": curve, **final}


def refine(
    model: WorldModel, config: Config, data: Datasets, validation: ReplayBuffer
) -> dict[str, Row]:
    """Refine a model as the configuration says, and judge it again: the key `refined` of a row."""
    begun = time.perf_counter()
    trainer = refinement(model, data.train, config)
    if trainer is None:
        raise SystemExit(f"Nothing to refine with {config.refinement} and {config.model}.")
    trainer.finish()
    seconds = time.perf_counter() - begun
    return {"refined": {"seconds": seconds, **judge(model.eval(), data.train, validation)}}


def configuration(
    experiment: Experiment, label: str, seed: int, options: argparse.Namespace
) -> Config:
    """The configuration behind a label."""
    place = {"data": {"dir": str(options.data_dir)}, **options.image_size}
    small = {"data": options.size, "refinement": {"updates": options.refine}}
    changes = experiment.configurations[label]
    return build_config(place, experiment.base, changes, small, {"seed": seed})


def recipe(config: Config, options: argparse.Namespace) -> str:
    """Digest of all that bears on a row but its seed."""
    aside: Any = {
        **dict.fromkeys(("seed", "device", "output_dir", "phase2"), True),
        "data": {"dir", "validation_size", "heldout_size"},
    }
    told = config.model_dump_json(exclude=aside) + str(options.episodes)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def current(experiment: Experiment, kept: list[Row], options: argparse.Namespace) -> list[Row]:
    """The kept rows that the experiment would make today."""

    def made_today(row: Row) -> bool:
        if row["label"] not in experiment.configurations:
            return False
        config = configuration(experiment, row["label"], row["seed"], options)
        return row.get("recipe") == recipe(config, options)

    return [row for row in kept if made_today(row)]


def kept_rows(
    path: Path, limit: dict[str, float], experiment: Experiment, options: argparse.Namespace
) -> list[Row]:
    """The rows of earlier calls that are still good; stops rather than lose those of a whole."""
    if not path.exists():
        return []
    before = json.loads(path.read_text())
    kept = current(experiment, before["rows"], options) if before["budget"] == limit else []
    if before["rows"] and not kept:
        raise SystemExit(
            f"{path} holds results of {before['budget']}, or of another size of the data, and none "
            "of what is asked for; give another --out, or remove the file to make all anew"
        )
    return kept


def rows(
    experiment: Experiment, kept: list[Row], options: argparse.Namespace, console: Console
) -> Iterator[Row]:
    """The rows that are not kept yet, one for each configuration and seed."""
    done = {(row["label"], row["seed"]) for row in kept}
    for label in experiment.configurations:
        for seed in options.seeds:
            if (label, seed) in done:
                continue
            config = configuration(experiment, label, seed, options)
            with (
                open_datasets(config, console) as data,
                evaluation_set(
                    "validation",
                    training_seeds=data.train.seeds,
                    policy=config.data.policy,
                    episodes=options.episodes,
                    **environment(config),
                ) as validation,
            ):
                updates = budget(config, data.train, options)
                model = new_model(config, data.train)
                row = train(model, config, data, validation, updates, options.points)
                if options.refine:
                    row |= refine(model, config, data, validation)
            console.print(f"{label}, seed {seed}: {row['error']}, {row['worst_linear']:.2f} linear")
            yield {"label": label, "seed": seed, "recipe": recipe(config, options), **row}


def main() -> None:
    """Parse the command line, run what is missing, and present it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--updates", type=int, help="the experiment's own if not given")
    parser.add_argument("--minutes", type=float, help="of training, instead of updates")
    parser.add_argument("--refine", type=int, help="updates of refinement after phase 1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--points", type=int, default=CURVE, help="judgements while training")
    parser.add_argument("--size", type=int, help="training trajectories")
    parser.add_argument("--episodes", type=int, default=256, help="validation episodes")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    experiment = EXPERIMENTS[options.name]
    options.updates = options.updates or experiment.updates
    options.refine = experiment.refine if options.refine is None else options.refine
    options.size = {} if options.size is None else {"size": options.size}
    options.image_size = {} if options.image_size is None else {"image_size": options.image_size}
    tune_cpu()
    console = Console(stderr=True, highlight=False)
    limit = {"minutes": options.minutes} if options.minutes else {"updates": options.updates}
    if options.refine:
        limit["updates of refinement"] = options.refine
    path = options.out / "learning" / f"{options.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"budget": limit, "rows": kept_rows(path, limit, experiment, options)}
    labels = list(experiment.configurations)
    for row in rows(experiment, result["rows"], options, console):
        result["rows"].append(row)
        result["rows"].sort(key=lambda row: (labels.index(row["label"]), row["seed"]))
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")
    print(write_table(options.name, experiment, result, options.out / experiment.page))
    write_plot(result, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
