"""Two ways in which joint-embedding training fails, and what prevents them.

    python examples/phenomena.py collapse     no regulariser, variance hinge, VICReg, SIGReg
    python examples/phenomena.py blindness    identity predictor against the residual one

Every configuration is trained for the same number of updates on the same trajectories and judged
on validation episodes. Writes docs/phenomena-<name>.json, and its table into docs/phenomena.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from worldmodel.config import Config, build_config
from worldmodel.data import ReplayBuffer
from worldmodel.datasets import environment, open_datasets
from worldmodel.evaluation import (
    choose_readout,
    collapse,
    evaluation_set,
    fit_probes,
    pendulum_task,
)
from worldmodel.evaluation.forecast import angle_errors_by_step, forecast_latents, latent_errors
from worldmodel.evaluation.observations import all_times, encode_at, states_at
from worldmodel.evaluation.scores import score_probe
from worldmodel.evaluation.summaries import median_by_step
from worldmodel.files import replacing
from worldmodel.models import ModelSpec, WorldModel, describe_actions
from worldmodel.training.jepa import JEPATrainer
from worldmodel.training.memory import reuse_large_allocations

CONFIGURATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "collapse": {
        "prediction error alone, no EMA": {
            "objective": {"name": "prediction"},
            "phase1": {"ema_start": 0.0},
        },
        "prediction error alone": {"objective": {"name": "prediction"}},
        "variance hinge": {"objective": {"name": "variance"}},
        "VICReg": {"objective": {"name": "vicreg"}},
        "SIGReg": {"objective": {"name": "sigreg"}},
    },
    "blindness": {
        "identity": {"model": {"predictor": "identity"}},
        "residual": {"model": {"predictor": "residual"}},
    },
}

COLUMNS = {
    "effective_rank": ("effective rank", ".1f"),
    "std": ("mean σ", ".3f"),
    "latent_error": ("latent error at k = 5, over persistence", ".2f"),
    "angle_r2": ("MLP probe R², worst of sin, cos θ", ".2f"),
    "omega_r2": ("MLP probe R², worst of ω", ".2f"),
    "error_10": ("angle error at k = 10, rad", ".2f"),
    "error_20": ("at k = 20, rad", ".2f"),
}

Figures = dict[str, float | None]


def train(config: Config, buffer: ReplayBuffer, updates: int) -> WorldModel:
    """Phase 1 alone, for a fixed number of updates."""
    torch.manual_seed(config.seed)
    spec = ModelSpec(
        frame_shape=buffer.frame_shape,
        frame_stack=config.frame_stack,
        actions=describe_actions(buffer.action_space),
        **config.model.model_dump(),
    )
    model = WorldModel(spec)
    trainer = JEPATrainer(model, buffer, config)
    trainer.total = updates
    while trainer.step < updates:
        trainer.update()
    return model.eval().requires_grad_(False)


def judge(model: WorldModel, train_buffer: ReplayBuffer, validation: ReplayBuffer) -> Figures:
    """The figures of one trained model, see `COLUMNS`."""
    readout = choose_readout(pendulum_task("DoublePendulumPixels-v0"), train_buffer.state_dim)
    probe = fit_probes(model, train_buffer, readout).mlp
    episodes, times = all_times(validation, model.frame_stack)
    latents = encode_at(model, validation, episodes, times)
    states = states_at(validation, episodes, times)
    r2 = score_probe(readout, probe.predict(latents), states, episodes)["r2"]
    forecast = forecast_latents(model, validation)
    angles = median_by_step(angle_errors_by_step(model, validation, forecast, probe).forecast)
    error = latent_errors(model, validation, forecast)
    statistics = collapse(latents)
    return {
        "effective_rank": statistics.effective_rank,
        "std": float(statistics.std.mean()),
        "latent_error": _ratio(error["error"]["5"], error["persistence"]["5"]),
        "angle_r2": min(value for name, value in r2.items() if "theta" in name),
        "omega_r2": min(r2["omega1"], r2["omega2"]),
        "error_10": float(angles[10]),
        "error_20": float(angles[20]),
    }


def _ratio(error: float | None, persistence: float | None) -> float | None:
    """None if there is nothing to divide: a latent that does not change at all."""
    return None if error is None or not persistence else error / persistence


def run(
    name: str, options: argparse.Namespace, console: Console
) -> Iterator[tuple[str, list[Figures]]]:
    """Train and judge every configuration with every seed."""
    base = {
        "data": {"size": options.size, "dir": str(options.data_dir)},
        "image_size": options.image_size,
    }
    shared = build_config(base)
    with (
        open_datasets(shared, console) as data,
        evaluation_set(
            "validation",
            training_seeds=data.train.seeds,
            policy="passive",
            episodes=options.episodes,
            **environment(shared),
        ) as validation,
    ):
        for label, changes in CONFIGURATIONS[name].items():
            figures = []
            for seed in options.seeds:
                config = build_config(base, changes, {"seed": seed})
                model = train(config, data.train, options.updates)
                figures.append(judge(model, data.train, validation))
                console.print(f"{label}, seed {seed}: {figures[-1]}")
            yield label, figures


def table(results: dict[str, list[Figures]]) -> str:
    """Mean and spread over seeds, as Markdown."""
    heads = ["", *(title for title, _ in COLUMNS.values())]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for label, figures in results.items():
        cells = [label]
        for key, (_, form) in COLUMNS.items():
            values = [value for f in figures if (value := f[key]) is not None]
            told = f"{np.mean(values):{form}} ± {np.std(values):{form}}" if values else "none"
            partial = f" ({len(values)} of {len(figures)} seeds)"
            cells.append(told + partial * (0 < len(values) < len(figures)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(name: str, results: dict[str, list[Figures]], options: argparse.Namespace) -> None:
    """Keep the figures, and put the table between its markers in phenomena.md."""
    facts = {"updates": options.updates, "seeds": options.seeds, "trajectories": options.size}
    with replacing(options.out / f"phenomena-{name}.json") as path:
        path.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")
    page = options.out / "phenomena.md"
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = page.read_text() if page.exists() else ""
    if begin not in text:
        text += f"{begin}\n{end}\n"
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    note = (
        f"{options.updates} updates on {options.size} trajectories, mean ± standard deviation of "
        f"seeds {', '.join(map(str, options.seeds))}; validation episodes."
    )
    with replacing(page) as path:
        path.write_text(f"{before}{begin}\n{table(results)}\n\n{note}\n{end}{after}")


def main() -> None:
    """Parse the command line, train, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CONFIGURATIONS)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=4000, help="training trajectories")
    parser.add_argument("--episodes", type=int, default=128, help="validation episodes")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    reuse_large_allocations()
    console = Console(stderr=True, highlight=False)
    results = dict(run(options.name, options, console))
    write(options.name, results, options)
    print(table(results))


if __name__ == "__main__":
    main()
