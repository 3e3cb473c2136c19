"""How time and memory grow with the batch, the image, the dataset and the environments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import psutil

from benchmarks.speed.envs import make_pendulum, stepper
from benchmarks.speed.sampling import LENGTH, disk, fill, pendulums, sampler
from benchmarks.speed.table import Context, Functions, Row, duration, rate
from benchmarks.speed.updates import new_phase
from worldmodel.data import ReplayBuffer
from worldmodel.optim import tuned_cpu
from worldmodel.phases import jepa_phase

BATCHES, IMAGES, ENVS = (32, 64, 128, 256, 512), (32, 64, 96, 128), (1, 8, 64, 256, 1024)
TRAJECTORIES = (1_000, 10_000, 100_000)
SMALL, SMALL_STEPS = (32, 32, 3), 20
"""Frames and steps of the datasets that grow: 100,000 trajectories take 6.5 GB, and even 1,000 more
than the caches of most processors."""

CHUNK, UPDATES = 128, 200


def growth(context: Context) -> Iterator[Row]:
    """Every figure stands beside that of the smallest size."""
    yield from batches(context)
    yield from images(context)
    yield from trajectories(context)
    yield from environments(context)


def batches(context: Context) -> Iterator[Row]:
    """Windows per second in updates of phase 1."""
    sizes = BATCHES[: context.size(len(BATCHES), 2)]
    buffer = pendulums(context, context.run.config.image_size)["none"]
    functions: Functions = {
        str(size): new_phase(jepa_phase, context, buffer, size).update for size in sizes
    }
    with tuned_cpu():
        times, first = context.measure(functions), sizes[0]
    for size in sizes:
        beside = (f"batch of {first}", times[str(first)], first)
        work = f"update of phase 1, batch of {size}"
        yield rate("growth", work, times[str(size)], size, "windows/s", *beside)


def images(context: Context) -> Iterator[Row]:
    """Pixels per second in the environment, and in sampling."""
    sizes = IMAGES[: context.size(len(IMAGES), 2)]
    steps, episodes = context.size(20, 2), context.size(200, 4)
    functions: Functions = {}
    for side in sizes:
        functions[f"env {side}"] = stepper(make_pendulum(32, side), steps)
        path = context.folder / f"images_{side}"
        fill(path, episodes, (side, side, 3))
        functions[f"sample {side}"] = sampler(ReplayBuffer.open(path), CHUNK, LENGTH)
    times, first = context.measure(functions), sizes[0]
    work = {"env": (32 * steps, "32 environments"), "sample": (CHUNK * LENGTH, "sampling")}
    for name, (frames, title) in work.items():
        for side in sizes:
            pixels, least = frames * side**2 / 1e6, frames * first**2 / 1e6
            beside = (f"{first}x{first}", times[f"{name} {first}"], least)
            row = f"{title}, images of {side}x{side}"
            yield rate("growth", row, times[f"{name} {side}"], pixels, "Mpixels/s", *beside)


def trajectories(context: Context) -> Iterator[Row]:
    """Time to open a dataset and to draw a batch of training, and the memory of a process."""
    sizes = [context.size(size, size // 100) for size in TRAJECTORIES][: context.size(3, 2)]
    paths = {size: context.folder / f"trajectories_{size}" for size in sizes}
    for size, path in paths.items():
        fill(path, size, SMALL, steps=SMALL_STEPS)
    functions: Functions = {}
    for size, path in paths.items():
        functions[f"open {size}"] = lambda path=path: ReplayBuffer.open(path).close()  # type: ignore[misc]
        functions[f"batches {size}"] = drawer(path)
    times, first = context.measure(functions), sizes[0]
    for size, path in paths.items():
        label, beside = (
            f"{size:,} trajectories, {disk(path) / 1e9:.2g} GB",
            f"{first:,} trajectories",
        )
        opened, least = times[f"open {size}"], times[f"open {first}"]
        yield duration("growth", f"open {label}", opened, beside, least)
        drawn, least = times[f"batches {size}"], times[f"batches {first}"]
        work = f"{CHUNK} windows of {LENGTH} frames of {label}"
        yield duration("growth", work, drawn, beside, least, count=UPDATES)
    memory = {size: memory_of(path) for size, path in paths.items()}
    for size, (private, mapped) in memory.items():
        least, _ = memory[first]
        beside = f"{first:,} trajectories"
        work = f"private memory of a process that samples from {size:,} trajectories"
        yield Row("growth", work, private, "MB", beside, least, private / least)
        work = f"pages of the page cache that it has mapped, {size:,} trajectories"
        yield Row("growth", work, mapped, "MB", beside, memory[first][1])


def drawer(path: Path):  # type: ignore[no-untyped-def]
    """Make a function that draws the windows of some updates of training."""
    from worldmodel.batches import WindowSampler

    sampler = WindowSampler(ReplayBuffer.open(path), LENGTH, CHUNK, seed=(0, 1))
    update = iter(range(10**9))

    def draw() -> None:
        for _ in range(UPDATES):
            sampler.windows(next(update))

    return draw


def memory_of(path: Path) -> tuple[float, float]:
    """Return the private and the mapped memory, in MB, of a process that has drawn batches."""
    command = [sys.executable, "-m", "benchmarks.speed.growth", str(path)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    private, mapped = json.loads(output)
    return private, mapped


def environments(context: Context) -> Iterator[Row]:
    """Steps per second of vector environments, real and imagined."""
    counts = ENVS[: context.size(len(ENVS), 2)]
    steps, run = context.size(10, 2), context.run
    functions: Functions = {}
    for count in counts:
        functions[f"real {count}"] = stepper(make_pendulum(count), steps)
        dreams = gym.make_vec("worldmodel/Latent-v0", num_envs=count, run=run)
        functions[f"imagined {count}"] = stepper(dreams, steps)
    times, first = context.measure(functions), counts[0]
    for kind in ("real", "imagined"):
        for count in counts:
            beside = (f"{first} environment", times[f"{kind} {first}"], first * steps)
            work = f"{count} {kind} environments"
            total = count * steps
            yield rate("growth", work, times[f"{kind} {count}"], total, "steps/s", *beside)


def main() -> None:
    """Draw batches from the buffer named on the command line, and print the memory in MB."""
    draw = drawer(Path(sys.argv[1]))  # keeps the buffer open
    draw()
    found = psutil.Process().memory_info()
    print(json.dumps(list(np.array([found.rss - found.shared, found.shared]) / 1e6)))


if __name__ == "__main__":
    main()
