"""Measure writing, sampling and collecting with the replay buffer.

    OMP_NUM_THREADS=1 python benchmarks/bench_replay.py

Sampling is compared with a bare NumPy gather, the upper limit. The methods take turns in random
order, so that other load on the machine affects all of them. Rates are per second of CPU time,
which excludes waiting for a busy machine; collection, which also waits for the disk, is reported
per second of wall time too. The files stay in the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
from machine import describe_machine

from worldmodel.data import ReplayBuffer, collect

BATCH, LENGTH, STEPS, WARMUP = 128, 10, 40, 10
SPACE = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
GATHER, SAMPLE = "numpy gather", "sample"
PENDULUM = {"start": "uniform"}


def fill(path: Path, frames: int, shape: tuple[int, ...], dtype: str) -> float:
    """Write random frames into a new buffer, and return the frames per CPU second."""
    rng = np.random.default_rng(0)
    chunk = rng.integers(0, 256, (STEPS + 1, *shape)).astype(dtype)
    actions, rewards = np.zeros((STEPS, 2), np.float32), np.zeros(STEPS, np.float32)
    start = time.process_time()
    with ReplayBuffer.create(
        path, frame_shape=shape, frame_dtype=dtype, action_space=SPACE, metadata={}
    ) as buffer:
        while buffer.num_frames < frames:
            buffer.add_episode(chunk, actions, rewards, False)
        return buffer.num_frames / (time.process_time() - start)


def samplers(path: Path) -> dict[str, Callable[[], object]]:
    """Make the methods to compare; bare gathers read frames only and may cross episodes."""
    buffer = ReplayBuffer.open(path)
    rng = np.random.default_rng(0)
    shape = (buffer.num_frames, *buffer.frame_shape)
    mapped = np.memmap(path / "frames.bin", buffer.frame_dtype, mode="r", shape=shape)
    mapped = mapped.view(np.ndarray)
    in_memory = mapped.copy()
    out = buffer.empty_windows(BATCH, LENGTH)

    def rows() -> np.ndarray:
        starts = rng.integers(0, len(mapped) - LENGTH + 1, BATCH)
        return starts[:, None] + np.arange(LENGTH)

    return {
        GATHER + ", memory map": lambda: mapped[rows()],
        GATHER + ", in memory": lambda: in_memory[rows()],
        SAMPLE + ", preallocated": lambda: buffer.sample(BATCH, LENGTH, rng, out=out),
        SAMPLE + ", new arrays": lambda: buffer.sample(BATCH, LENGTH, rng),
    }


def measure(methods: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Measure the median CPU seconds per call, after ten calls of each for warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    order = np.random.default_rng(0)
    for repeat in range(repeats + WARMUP):
        for name in order.permutation(list(methods)):
            start = time.process_time()
            result = methods[name]()
            if repeat >= WARMUP:
                seconds[name].append(time.process_time() - start)
            del result
    return {name: statistics.median(values) for name, values in seconds.items()}


def report_sampling(path: Path, title: str, repeats: int) -> None:
    """Print sequences per second of every method, also relative to the bare gather."""
    medians = measure(samplers(path), repeats)
    limit = medians[GATHER + ", memory map"]
    print(f"\n{title}: {BATCH} sequences of {LENGTH} frames, median of {repeats} repeats")
    for name, median in medians.items():
        rate = BATCH / median
        print(
            f"  {name:<26}{rate:>10,.0f} sequences/CPU s{limit / median:>8.0%} of the bare gather"
        )


def collection_rates(
    env_id: str, episodes: int, steps: int, policy: str, repeats: int
) -> tuple[float, float]:
    """Measure median frames per CPU second and per second, from nothing to a closed buffer."""
    rates = []
    kwargs = PENDULUM if env_id.startswith("DoublePendulum") else {}
    observation = "vector" if env_id == "DoublePendulum-v0" else "auto"
    for _ in range(repeats + 1):
        with tempfile.TemporaryDirectory() as directory:
            cpu, wall = time.process_time(), time.perf_counter()
            buffer = collect(
                env_id,
                Path(directory) / "data",
                episodes=episodes,
                seeds=range(episodes),
                steps=steps,
                policy=policy,
                env_kwargs=kwargs,
                observation=observation,
            )
            elapsed = time.process_time() - cpu, time.perf_counter() - wall
            rates.append([buffer.num_frames / seconds for seconds in elapsed])
    by_cpu, by_wall = np.median(rates[1:], axis=0)
    return by_cpu, by_wall


def report_collection(repeats: int) -> None:
    """Print frames per second for native environments and for one observed by rendering."""
    print(f"\ncollect, 64x64 RGB if not noted, one process, median of {repeats} after a warm-up")
    cases = [
        ("DoublePendulumPixels-v0", 2000, 30, "passive"),
        ("DoublePendulumPixels-v0", 2000, 30, "random"),
        ("DoublePendulumPixels-v0", 300, 200, "passive"),
        ("DoublePendulum-v0", 2000, 30, "random"),
        ("CartPole-v1", 20, 30, "random"),
    ]
    for env_id, episodes, steps, policy in cases:
        cpu, wall = collection_rates(env_id, episodes, steps, policy, repeats)
        size = f"{episodes} x {steps} steps"
        note = ", coordinates" if env_id == "DoublePendulum-v0" else ""
        rates = f"{cpu:>8,.0f} frames/CPU s{wall:>8,.0f} frames/s"
        print(f"  {env_id:<24} {policy:<8}{size:<16}{rates}{note}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--frames", type=int, default=40_000, help="64x64 RGB frames to sample from"
    )
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--collections", type=int, default=5)
    arguments = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as directory:
        images, vectors = Path(directory) / "images", Path(directory) / "vectors"
        rate = fill(images, arguments.frames, (64, 64, 3), "uint8")
        fill(vectors, arguments.frames, (4,), "float32")
        print(f"\nadd_episode, {STEPS + 1} frames of 64x64 RGB each: {rate:,.0f} frames/CPU s")
        report_sampling(images, "64x64 RGB uint8", arguments.repeats)
        report_sampling(vectors, "4 coordinates float32", arguments.repeats)
    report_collection(arguments.collections)


if __name__ == "__main__":
    main()
