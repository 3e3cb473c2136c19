"""Which guard against exploiting model errors matters?

    python benchmarks/guards.py RUN --seeds 3

Trains PPO in the dream of a run with one guard changed at a time, and evaluates it in the real
environment on validation episodes. Prints a Markdown table: the reward per step in the real
environment, mean and standard deviation over seeds, its worst seed, and that in the dream.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from worldmodel import AgentConfig, Run
from worldmodel.rl.agents import learn, make_agent
from worldmodel.rl.envs import AgentEnvs
from worldmodel.rl.evaluation import Curve, real_evaluation, validation_seeds
from worldmodel.rl.guards import find_ensemble
from worldmodel.rl.tuned import resolve_agent


def configurations() -> dict[str, dict[str, Any]]:
    """List what is compared: a name and its settings of `AgentConfig`."""
    table: dict[str, dict[str, Any]] = {}
    for steps in (20, 50, 100, 200):
        table[f"{steps} steps, leaving terminates"] = {"dream_steps": steps}
    for steps in (100, 200):
        settings = {"dream_steps": steps, "leaving_terminates": False}
        table[f"{steps} steps, leaving truncates"] = settings
    for penalty in (0.005, 0.02, 0.1):
        name = f"100 steps, leaving terminates, 3 predictors, penalty {penalty}"
        table[name] = {"dream_steps": 100, "ensemble": {"size": 3, "penalty": penalty}}
    return table


def measure(envs: AgentEnvs, config: AgentConfig) -> tuple[float, float]:
    """Train an agent; returns its reward per step in the real environment and in the dream."""
    training = envs.training(config, find_ensemble(envs.run, config.ensemble))
    agent = make_agent(config, training)
    if learn(agent, envs, config, Curve(), "agent"):
        raise SystemExit("stopped")
    with real_evaluation(envs, config, validation_seeds(config)) as evaluate:
        real = evaluate(agent)["reward_per_step"]
    episodes = list(agent.ep_info_buffer or ())
    training.close()
    return real, sum(e["r"] for e in episodes) / sum(e["l"] for e in episodes)


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200_000)
    options = parser.parse_args()
    envs = AgentEnvs(Run(options.run, "cpu"), "dream")
    print("| | reward per step, real environment | worst seed | reward per step, dream |")
    print("| --- | --- | --- | --- |", flush=True)
    for name, settings in configurations().items():
        scores = [
            measure(
                envs,
                resolve_agent(
                    AgentConfig(seed=seed, steps=options.steps, eval_points=1, **settings),
                    envs.run.config.env.id,
                ),
            )
            for seed in range(options.seeds)
        ]
        real, dream = ([score[i] for score in scores] for i in (0, 1))
        mean, std = statistics.fmean(real), statistics.pstdev(real)
        row = f"{mean:.3f} ± {std:.3f} | {min(real):.3f} | {statistics.fmean(dream):.3f}"
        print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
