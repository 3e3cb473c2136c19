"""Observations a second of the batched pixel environment beside Gymnasium's own way to pixels.

Run with `OMP_NUM_THREADS=1 python benchmarks/bench_envs.py`; Gymnasium's resize needs
`opencv-python-headless`. Both sides give 64x64 RGB, two frames stacked, physics included, and are
timed in turn so that other load falls on both. Ours runs in one thread.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import gymnasium as gym
import numba
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import AddRenderObservation, FrameStackObservation, ResizeObservation

import worldmodel

IMAGE_SIZE, FRAME_STACK = 64, 2
PENDULUM = {"image_size": IMAGE_SIZE, "frame_stack": FRAME_STACK, "start": "uniform"}


def acrobot_pixels(env: gym.Env) -> gym.Env:
    """Acrobot seen as stacked frames through Gymnasium's wrappers."""
    pixels = AddRenderObservation(env, render_only=True)
    return FrameStackObservation(ResizeObservation(pixels, (IMAGE_SIZE, IMAGE_SIZE)), FRAME_STACK)


def make_acrobot(num_envs: int) -> VectorEnv:
    """The peer: synchronous, as many copies as asked."""
    options = {"vectorization_mode": "sync", "wrappers": [acrobot_pixels]}
    return gym.make_vec("Acrobot-v1", num_envs, render_mode="rgb_array", **options)


def make_pendulum(num_envs: int) -> VectorEnv:
    """Ours, from uniform starts."""
    return gym.make_vec("DoublePendulumPixels-v0", num_envs, **PENDULUM)


def make_single(_: int) -> gym.Env:
    """Ours, one at a time."""
    return gym.make("DoublePendulumPixels-v0", **PENDULUM)


def rate(env: VectorEnv | gym.Env, seconds: float) -> float:
    """Observations a second over at least `seconds`, random actions drawn beforehand."""
    count = getattr(env, "num_envs", 1)
    actions = [env.action_space.sample() for _ in range(16)]
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        _, _, _, truncated, _ = env.step(actions[steps % 16])
        if count == 1 and np.ndim(truncated) == 0 and truncated:
            env.reset()
        steps += 1
    return steps * count / (time.perf_counter() - start)


def describe_machine() -> str:
    """Processor, cores and versions."""
    versions = {
        "python": platform.python_version(),
        "gymnasium": gym.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "worldmodel": worldmodel.__version__,
    }
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}\n{listed}"


def processor() -> str:
    """Name of the processor."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    """Time all contenders in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one repeat")
    args = parser.parse_args()
    contenders: dict[str, tuple[Callable[[int], VectorEnv | gym.Env], int]] = {
        "DoublePendulumPixels-v0, batch of 64": (make_pendulum, 64),
        "DoublePendulumPixels-v0, batch of 8": (make_pendulum, 8),
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
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    print(f"command: python {' '.join(sys.argv)}, OMP_NUM_THREADS {threads}")
    print(f"{IMAGE_SIZE}x{IMAGE_SIZE} RGB, {FRAME_STACK} frames, observations a second,")
    print(f"median (lowest to highest) of {args.repeats} repeats of {args.seconds} s\n")
    for name, values in rates.items():
        spread = f"({min(values):,.0f} to {max(values):,.0f})"
        print(f"{name:40} {statistics.median(values):>10,.0f}  {spread}")


if __name__ == "__main__":
    main()
