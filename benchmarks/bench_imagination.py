"""Dreamed steps a second, beside the bare predictor and heads in the same run.

    python benchmarks/bench_imagination.py results/<run>

Prints medians of interleaved repetitions.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch

import worldmodel

BATCH, STEPS, REPETITIONS = 1024, 50, 9


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    run = sys.argv[1]
    wm = worldmodel.load(run)
    one = gym.make("worldmodel/Latent-v0", run=run)
    many = gym.make_vec("worldmodel/Latent-v0", num_envs=BATCH, run=run)
    one.reset(seed=0)
    many.reset(seed=0)
    action = one.action_space.sample()
    actions = np.stack([action] * BATCH)

    def single() -> None:
        for _ in range(STEPS):
            *_, terminated, truncated, _ = one.step(action)
            if terminated or truncated:
                one.reset()

    def batched() -> None:
        for _ in range(STEPS):
            many.step(actions)

    @torch.no_grad()
    def bare() -> None:
        z = many.unwrapped.latents
        vectors = wm.action_vector(actions)
        for _ in range(STEPS):
            following = wm.predictor(z, vectors)
            wm.reward_head(z, vectors, following)
            wm.termination_head(z, vectors, following).sigmoid()
            z = following

    works = {"single": single, "batched": batched, "bare": bare}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPETITIONS):
        for name, work in works.items():
            times[name].append(seconds(work))
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"one dream: {median['single'] / STEPS * 1e3:.2f} ms a step")
    print(f"{BATCH} dreams: {BATCH * STEPS / median['batched']:,.0f} steps/s")
    print(f"bare predictor and heads: {BATCH * STEPS / median['bare']:,.0f} steps/s")
    ratios = [bare / env for bare, env in zip(times["bare"], times["batched"], strict=True)]
    print(f"dreams / bare: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
