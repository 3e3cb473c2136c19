"""Dreaming and planning, beside what bounds them in the same run.

    python benchmarks/bench_imagination.py results/<run>

Prints medians of interleaved repetitions, and medians of the ratios of each.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch

import worldmodel
from worldmodel.imagination import CEM, PlanningPolicy, imagined_return

BATCH, STEPS, REPETITIONS = 1024, 50, 9
SAMPLES, ITERATIONS, HORIZON = 300, 5, 10
PEER = 610
"""Steps/s of LeWM in stable-worldmodel 0.1.1 on two cores, 1,024 candidates."""

Works = dict[str, Callable[[], None]]


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(works: Works) -> dict[str, list[float]]:
    """Times of each, interleaved, after one call of each that does not count."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPETITIONS):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times


def ratio(over: list[float], under: list[float]) -> float:
    """Median of the ratios of one repetition."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def dreaming(run: str, wm: worldmodel.WorldModel) -> Works:
    """Steps of dreams, of the bare parts, and of the real environment with the encoder."""
    one = gym.make("worldmodel/Latent-v0", run=run)
    many = gym.make_vec("worldmodel/Latent-v0", num_envs=BATCH, run=run)
    real = gym.make_vec("DoublePendulumPixels-v0", num_envs=BATCH)
    for env in (one, many, real):
        env.reset(seed=0)
    action = one.action_space.sample()
    actions = np.stack([action] * BATCH)
    sequence = torch.as_tensor(actions).expand(STEPS, -1, -1)

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

    def rolled() -> None:
        wm.rollout(many.unwrapped.latents, sequence)

    def encoded() -> None:
        wm.encode(real.step(actions)[0])

    return {
        "single": single,
        "batched": batched,
        "bare": bare,
        "rolled": rolled,
        "encoded": encoded,
    }


def planning(wm: worldmodel.WorldModel) -> Works:
    """One decision of CEM, and its evaluations of the model alone."""
    policy = PlanningPolicy(wm, optimizer=CEM(SAMPLES, ITERATIONS), horizon=HORIZON)
    z = torch.zeros(1, wm.spec.latent_dim, device=wm.device)
    first = z.expand(SAMPLES, -1)
    actions = torch.zeros(HORIZON, SAMPLES, wm.spec.actions.dim, device=wm.device)

    def decision() -> None:
        policy.plan(z)

    @torch.no_grad()
    def evaluations() -> None:
        for _ in range(ITERATIONS):
            latents = torch.cat([first[None], wm.predictor.unroll(first, actions)])
            imagined_return(wm, latents, actions)

    return {"decision": decision, "evaluations": evaluations}


def main() -> None:
    """Measure and print."""
    run = sys.argv[1]
    wm = worldmodel.load(run)
    versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{platform.machine()}, python {platform.python_version()}, {versions}")
    t = measure(dreaming(run, wm))
    median = {name: statistics.median(values) for name, values in t.items()}
    count = BATCH * STEPS
    print(f"one dream: {median['single'] / STEPS * 1e3:.2f} ms a step")
    print(
        f"{BATCH} dreams: {count / median['batched']:,.0f} steps/s, "
        f"{ratio(t['bare'], t['batched']):.2f} of the bare predictor and heads "
        f"({count / median['bare']:,.0f})"
    )
    slower = ratio([STEPS * s for s in t["encoded"]], t["batched"])
    print(
        f"{BATCH} real pixel environments and the encoder: {BATCH / median['encoded']:,.0f} "
        f"steps/s; dreams are {slower:.1f} times as fast"
    )
    rate = count / median["rolled"]
    print(f"rollout of {BATCH} candidates: {rate:,.0f} steps/s, {rate / PEER:.0f} times {PEER}")
    t = measure(planning(wm))
    print(
        f"CEM, {SAMPLES} samples x {ITERATIONS} iterations x horizon {HORIZON}: "
        f"{statistics.median(t['decision']):.3f} s, "
        f"{ratio(t['decision'], t['evaluations']):.2f} times its model evaluations"
    )


if __name__ == "__main__":
    main()
