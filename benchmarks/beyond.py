"""What does a model make of motions with more energy than it was trained on?

    python benchmarks/beyond.py RUN [RUN ...]

Passive double pendulums are started with energies between bounds that are multiples of the greatest
in the training data. Of each band it tells the median angle error of the open-loop forecast, the
share of true observations and of dreams that count as outside the domain of the training data, and
the median distance from its centre. Prints a Markdown table: means over the runs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console

from worldmodel import load
from worldmodel.datasets import environment, open_datasets
from worldmodel.envs.task import Task
from worldmodel.evaluation import pendulum_task
from worldmodel.evaluation.forecast import angle_errors, open_loop
from worldmodel.evaluation.heldout import SEEDS
from worldmodel.evaluation.observations import observation_at
from worldmodel.evaluation.probe_file import load_probe
from worldmodel.imagination import load_dream
from worldmodel.models import WorldModel
from worldmodel.run import Run

BANDS = ((0.0, 0.5), (0.5, 1.0), (1.0, 1.25), (1.25, 1.5), (1.5, 2.0))
"""Bounds of the energy above rest, in multiples of the greatest in the training data."""

EPISODES = 256
STEPS = 40
TOLD = (0, 5, 10, 20, 40)
DREAMED = 20


def starts(task: Task, low: float, high: float, seed: int) -> np.ndarray:
    """States (EPISODES, 4): energies uniform between bounds in J, angles uniform where they fit."""
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for wanted in rng.uniform(low, high, EPISODES):
        still = np.inf
        while still >= wanted:
            state = np.append(rng.uniform(-np.pi, np.pi, 2), rng.standard_normal(2))
            still, moving = task.energy(np.stack((state * (1, 1, 0, 0), state)))
        state[2:] *= np.sqrt((wanted - still) / (moving - still))
        found.append(state)
    return np.stack(found)


def filmed(config: Any, states: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (E, L, H, W, C) and states (E, L, 4) of passive pendulums; L = STEPS + 2."""
    world = environment(config)
    envs = gym.make_vec(
        world["env_id"],
        num_envs=len(states),
        image_size=config.image_size,
        **world["env_kwargs"],
    )
    observation, info = envs.reset(seed=0, options={"state": states})
    frames, true = [observation[..., -channels:]], [info["state"]]
    still = np.zeros(envs.action_space.shape, np.float32)
    for _ in range(STEPS + 1):
        observation, *_, info = envs.step(still)
        frames.append(observation[..., -channels:])
        true.append(info["state"])
    envs.close()
    return np.stack(frames, 1), np.stack(true, 1)


def band(wm: WorldModel, run: Path, task: Task, bounds: tuple[float, float]) -> list[float]:
    """Errors at `TOLD` in rad, shares outside (true, dreamed) and distance over the radius."""
    frames, true = filmed(
        Run(run).config(), starts(task, *bounds, SEEDS["heldout"].start), wm.spec.frame_shape[-1]
    )
    first = wm.frame_stack - 1
    actions = np.zeros((EPISODES, frames.shape[1] - 1, wm.spec.actions.dim), np.float32)
    dreamed = open_loop(wm, frames, actions)
    probe = load_probe(run)
    if probe is None:
        raise SystemExit(f"{run} has no probe of the angles")
    domain = load_dream(run, wm)["domain"]
    seen = torch.cat(
        [
            wm.encode(observation_at(frames, t, wm.frame_stack))
            for t in range(first, first + STEPS + 1)
        ]
    )
    errors = [
        float(
            np.median(angle_errors(probe.angles(dreamed[k].cpu().numpy()), true[:, first + k, :2]))
        )
        for k in TOLD
    ]
    outside = [domain.outside(z).float().mean().item() for z in (seen, dreamed[DREAMED])]
    return [*errors, *outside, float(domain.distance(seen).median()) / domain.radius]


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    rows: dict[tuple[float, float], list[list[float]]] = {bounds: [] for bounds in BANDS}
    with open(os.devnull, "w") as nowhere:
        for run in options.runs:
            config, wm = Run(run).config(), load(run, "cpu")
            task = pendulum_task(config.env.id, environment(config)["env_kwargs"])
            if task is None:
                raise SystemExit(f"{run} is no run on a double pendulum")
            with open_datasets(config, Console(file=nowhere)) as data:
                every = np.arange(len(data.train))
                greatest = task.energy(data.train.states(every, 0 * every, 1)[:, 0]).max()
            for low, high in BANDS:
                rows[low, high].append(band(wm, run, task, (low * greatest, high * greatest)))
    print("| energy | " + " | ".join(f"k = {k}" for k in TOLD), end=" | ")
    print(f"true outside | dreams outside at k = {DREAMED} | distance / radius |")
    print("| --- " * (len(TOLD) + 4) + "|")
    for (low, high), figures in rows.items():
        *errors, seen, dreamed, distance = np.mean(figures, axis=0)
        cells = [f"{low:g} to {high:g}", *(f"{e:.3f}" for e in errors)]
        print(f"| {' | '.join(cells)} | {seen:.1%} | {dreamed:.1%} | {distance:.2f} |")


if __name__ == "__main__":
    main()
