"""Measure the pixel environments against Gymnasium's own wrappers for pixel observations.

    OMP_NUM_THREADS=1 python benchmarks/bench_envs.py

Prints observations per second, physics included: 64x64 RGB, two stacked frames. The environments
take turns, so that other load on the machine affects all of them. Each runs in a single thread.
Gymnasium's resizing needs `opencv-python-headless`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import AddRenderObservation, FrameStackObservation, ResizeObservation
from machine import describe_machine

import worldmodel  # noqa: F401

IMAGE_SIZE, FRAME_STACK = 64, 2
PENDULUM = {"image_size": IMAGE_SIZE, "frame_stack": FRAME_STACK, "start": "uniform"}


def stack_pixels(env: gym.Env) -> gym.Env:
    """Wrap an environment so that it observes stacked frames."""
    pixels = AddRenderObservation(env, render_only=True)
    return FrameStackObservation(ResizeObservation(pixels, (IMAGE_SIZE, IMAGE_SIZE)), FRAME_STACK)


def make_acrobot(num_envs: int) -> VectorEnv:
    """Make Gymnasium's Acrobot with pixel wrappers."""
    options = {"vectorization_mode": "sync", "wrappers": [stack_pixels]}
    return gym.make_vec("Acrobot-v1", num_envs, render_mode="rgb_array", **options)


def make_pendulum(num_envs: int) -> VectorEnv:
    """Make the native vector environment."""
    return gym.make_vec("DoublePendulumPixels-v0", num_envs, **PENDULUM)


def make_single(_: int) -> gym.Env:
    """Make a single environment."""
    return gym.make("DoublePendulumPixels-v0", **PENDULUM)


def rate(env: VectorEnv | gym.Env, seconds: float) -> float:
    """Measure observations per second for at least `seconds`; actions are drawn beforehand."""
    count = getattr(env, "num_envs", 1)
    actions = [env.action_space.sample() for _ in range(16)]
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        _, _, _, truncated, _ = env.step(actions[steps % 16])
        if count == 1 and np.ndim(truncated) == 0 and truncated:
            env.reset()
        steps += 1
    return steps * count / (time.perf_counter() - start)


def main() -> None:
    """Measure all environments in turn and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of a repeat")
    args = parser.parse_args()
    contenders: dict[str, tuple[Callable[[int], VectorEnv | gym.Env], int]] = {
        "DoublePendulumPixels-v0, vector of 64": (make_pendulum, 64),
        "DoublePendulumPixels-v0, vector of 8": (make_pendulum, 8),
        "DoublePendulumPixels-v0, single": (make_single, 1),
        "Acrobot-v1 + wrappers, sync of 8": (make_acrobot, 8),
        "Acrobot-v1 + wrappers, sync of 1": (make_acrobot, 1),
    }
    envs = {name: make(num_envs) for name, (make, num_envs) in contenders.items()}
    for env in envs.values():
        env.reset(seed=0)
        rate(env, 0.2)
    rates: dict[str, list[float]] = {name: [] for name in envs}
    for _ in range(args.repeats):
        for name, env in envs.items():
            rates[name].append(rate(env, args.seconds))
    print(describe_machine())
    print(f"{IMAGE_SIZE}x{IMAGE_SIZE} RGB, {FRAME_STACK} frames, observations per second,")
    print(f"median (minimum to maximum) of {args.repeats} repeats of {args.seconds} s\n")
    for name, values in rates.items():
        spread = f"({min(values):,.0f} to {max(values):,.0f})"
        print(f"{name:40} {statistics.median(values):>10,.0f}  {spread}")


if __name__ == "__main__":
    main()
