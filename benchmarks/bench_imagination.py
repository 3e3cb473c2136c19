"""Measure imagined environments and planning against the model evaluations that limit them.

    OMP_NUM_THREADS=1 python benchmarks/bench_imagination.py results/<run>

The run must be one on `DoublePendulumPixels-v0`. The measured functions take turns, so that other
load on the machine affects all of them. Prints medians, and medians of the ratios per repetition.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from machine import describe_machine

from worldmodel import PlanningPolicy, Run, WorldModel
from worldmodel.models import unroll
from worldmodel.planning import CEM, imagined_return

BATCH, STEPS, REPETITIONS = 1024, 50, 9
SAMPLES, ITERATIONS, HORIZON = 300, 5, 10
PEER = 610
"""Steps/s of LeWM in stable-worldmodel 0.1.1 on two cores, 1,024 candidates."""

Functions = dict[str, Callable[[], None]]


def measure(functions: Functions) -> dict[str, list[float]]:
    """Measure the seconds per call of each function in turn, after one call for warm-up."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(REPETITIONS):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(numerators: list[float], denominators: list[float]) -> float:
    """Compute the median of the ratios per repetition."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def imagination(run: Run) -> Functions:
    """Measure the speed of imagined environments, of the bare networks, and of real ones."""
    wm = run.model
    one = gym.make("worldmodel/Latent-v0", run=run)
    many = gym.make_vec("worldmodel/Latent-v0", num_envs=BATCH, run=run)
    sizes = {"image_size": run.config.image_size, "frame_stack": run.config.frame_stack}
    real = gym.make_vec("DoublePendulumPixels-v0", num_envs=BATCH, **sizes)
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
            z_next = wm.predictor(z, vectors)
            wm.reward_head(z, vectors, z_next)
            wm.termination_head(z, vectors, z_next).sigmoid()
            z = z_next

    def rollout() -> None:
        wm.rollout(many.unwrapped.latents, sequence)

    def real_steps() -> None:
        wm.encode(real.step(actions)[0])

    return {
        "single": single,
        "batched": batched,
        "bare": bare,
        "rollout": rollout,
        "real": real_steps,
    }


def planning(wm: WorldModel) -> Functions:
    """Time one decision of CEM, and the model evaluations that it needs."""
    policy = PlanningPolicy(wm, optimizer=CEM(SAMPLES, ITERATIONS), horizon=HORIZON)
    z = torch.zeros(1, wm.spec.latent_dim, device=wm.device)
    first = z.expand(SAMPLES, -1)
    actions = torch.zeros(HORIZON, SAMPLES, wm.spec.actions.dim, device=wm.device)

    def decision() -> None:
        policy.plan(z)

    @torch.no_grad()
    def evaluations() -> None:
        for _ in range(ITERATIONS):
            latents = torch.cat([first[None], unroll(wm.predictor, first, actions)])
            imagined_return(wm, latents, actions)

    return {"decision": decision, "evaluations": evaluations}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run directory")
    run = Run(parser.parse_args().run)
    print(describe_machine())
    print(
        f"{run.model.device}, {torch.get_num_threads()} torch threads, {REPETITIONS} repetitions\n"
    )
    t = measure(imagination(run))
    median = {name: statistics.median(values) for name, values in t.items()}
    count = BATCH * STEPS
    print(f"1 imagined environment: {median['single'] / STEPS * 1e3:.2f} ms per step")
    print(
        f"{BATCH} imagined environments: {count / median['batched']:,.0f} steps/s, "
        f"{ratio(t['bare'], t['batched']):.2f} of the predictor and the heads alone "
        f"({count / median['bare']:,.0f} steps/s)"
    )
    speedup = ratio([STEPS * seconds for seconds in t["real"]], t["batched"])
    print(
        f"{BATCH} real pixel environments with the encoder: {BATCH / median['real']:,.0f} steps/s; "
        f"imagined ones are {speedup:.1f} times as fast"
    )
    rate = count / median["rollout"]
    print(
        f"rollout of {BATCH} candidates: {rate:,.0f} steps/s, {rate / PEER:.0f} times LeWM in "
        f"stable-worldmodel 0.1.1 on two cores ({PEER} steps/s)"
    )
    t = measure(planning(run.model))
    print(
        f"CEM, {SAMPLES} samples x {ITERATIONS} iterations x horizon {HORIZON}: "
        f"{statistics.median(t['decision']):.3f} s per decision, "
        f"{ratio(t['decision'], t['evaluations']):.2f} times its model evaluations alone"
    )


if __name__ == "__main__":
    main()
