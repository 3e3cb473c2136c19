"""Which guard against exploiting the model matters?

    python benchmarks/guards.py RUN --seeds 3

Trains PPO in the dream of a run with one guard changed at a time, and judges it in the real
environment on validation episodes. Prints a Markdown table: mean and spread over seeds of the
reward a step in reality, what the agent believed it earned in the dream, and its worst seed.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console

from worldmodel.rl.algorithms import make_agent
from worldmodel.rl.guards import Guards
from worldmodel.rl.judge import validation_seeds
from worldmodel.rl.learning import Curve
from worldmodel.rl.teach import ensemble_of
from worldmodel.rl.train import Lesson, learn, real_judge, training_envs
from worldmodel.rl.worlds import Worlds, open_worlds


def configurations(run: Path, console: Console) -> dict[str, Guards]:
    """What is compared."""
    members = ensemble_of(run, 3, "cpu", console)
    table = {}
    for steps in (20, 50, 100, 200):
        table[f"{steps} steps, leaving ends a dream"] = Guards(steps)
    for steps in (100, 200):
        table[f"{steps} steps, leaving only cuts it"] = Guards(steps, leaving_ends=False)
    for penalty in (0.005, 0.02, 0.1):
        name = f"100 steps, leaving ends it, 3 predictors, penalty {penalty}"
        table[name] = Guards(100, ensemble=members, penalty=penalty)
    return table


def row(worlds: Worlds, guards: Guards, seeds: range, steps: int, console: Console) -> list[Any]:
    """Mean, spread and least reward a step in reality, and the mean in the dream."""
    real, dreamed = [], []
    for seed in seeds:
        lesson = Lesson("dream", steps=steps, seed=seed, guards=guards)
        envs = training_envs(worlds, lesson)
        agent = make_agent(lesson.algo, envs, seed)
        if learn(agent, steps, Curve(), worlds, f"seed {seed}", console, points=1):
            raise SystemExit("stopped")
        with real_judge(worlds, validation_seeds()) as judged:
            real.append(judged(agent)["reward_a_step"])
        last = list(agent.ep_info_buffer)
        dreamed.append(sum(e["r"] for e in last) / sum(e["l"] for e in last))
        envs.close()
    spread = statistics.pstdev(real)
    return [statistics.fmean(real), spread, min(real), statistics.fmean(dreamed)]


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200_000)
    options = parser.parse_args()
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere)
        worlds = open_worlds(options.run, "dream")
        print("| | reward a step in reality | worst seed | believed, in the dream |")
        print("| --- | --- | --- | --- |", flush=True)
        for name, guards in configurations(options.run, console).items():
            seeds = range(options.seeds)
            mean, spread, least, dreamed = row(worlds, guards, seeds, options.steps, console)
            told = f"{mean:.3f} ± {spread:.3f} | {least:.3f} | {dreamed:.3f}"
            print(f"| {name} | {told} |", flush=True)


if __name__ == "__main__":
    main()
