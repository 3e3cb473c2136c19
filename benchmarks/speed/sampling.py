"""Writing and sampling a replay buffer, against a bare NumPy gather and Stable-Baselines3."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer as SB3ReplayBuffer

from benchmarks.speed.table import Context, Row, duration, rate
from worldmodel.data import ReplayBuffer, collect, convert

BATCH, LENGTH, STEPS = 128, 18, 30
SPACE = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


def fill(
    path: Path, episodes: int, shape: tuple[int, ...], dtype: str = "uint8", steps: int = STEPS
) -> None:
    """Write episodes of random numbers into a new buffer."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (steps + 1, *shape)).astype(dtype)
    actions, rewards = np.zeros((steps, 2), np.float32), np.zeros(steps, np.float32)
    with ReplayBuffer.create(
        path, frame_shape=shape, frame_dtype=dtype, action_space=SPACE, metadata={}
    ) as buffer:
        for _ in range(episodes):
            buffer.add_episode(frames, actions, rewards, False)


def sampler(buffer: ReplayBuffer, batch: int, length: int) -> Callable[[], object]:
    """Make a function that draws a batch of windows into the same arrays."""
    rng, out = np.random.default_rng(0), buffer.empty_windows(batch, length)
    return lambda: buffer.sample(batch, length, rng, out=out)


def gatherer(buffer: ReplayBuffer, batch: int, length: int) -> Callable[[], object]:
    """Make a function that gathers frames alone; its windows may cross episodes."""
    rng, shape = np.random.default_rng(0), (buffer.num_frames, *buffer.frame_shape)
    path = buffer.path / "frames.bin"
    mapped = np.memmap(path, buffer.frame_dtype, mode="r", shape=shape).view(np.ndarray)
    return lambda: mapped[
        rng.integers(0, len(mapped) - length + 1, batch)[:, None] + np.arange(length)
    ]


def sb3_sampler(buffer: ReplayBuffer, frames: int, capacity: int) -> Callable[[], object]:
    """Make a function that draws transitions, two frames each, from a buffer in memory."""
    image = gym.spaces.Box(0, 255, buffer.frame_shape, np.uint8)
    memory = SB3ReplayBuffer(capacity, image, SPACE, device="cpu")
    shown = buffer.sample(capacity, 1, np.random.default_rng(0)).frames[:, 0]
    memory.observations[:, 0], memory.next_observations[:, 0] = shown, shown
    memory.pos, memory.full = 0, True
    return lambda: memory.sample(frames // 2)


def pendulums(context: Context, side: int = 64) -> dict[str, ReplayBuffer]:
    """Collect double pendulums once, and store them in both forms."""
    plain, lz4 = context.folder / f"pendulums_{side}", context.folder / f"pendulums_{side}_lz4"
    if not plain.exists():
        episodes = context.size(1000, 8)
        collect(
            "DoublePendulumPixels-v0",
            plain,
            episodes=episodes,
            seeds=range(episodes),
            steps=STEPS,
            policy="random",
            env_kwargs={"start": "uniform"},
            image_size=side,
            workers=1,
        ).close()
        convert(plain, lz4, to="buffer", compression="lz4")
    return {"none": ReplayBuffer.open(plain), "lz4": ReplayBuffer.open(lz4)}


def sampling(context: Context) -> Iterator[Row]:
    """Time batches of double pendulums in both forms and of vectors, and compare bytes on disk."""
    buffers = pendulums(context)
    plain, vectors = buffers["none"], context.folder / "vectors"
    fill(vectors, context.size(1000, 8), (4,), "float32")
    numbers = ReplayBuffer.open(vectors)
    frames = BATCH * LENGTH
    functions = {
        "none": sampler(plain, BATCH, LENGTH),
        "lz4": sampler(buffers["lz4"], BATCH, LENGTH),
        "gather": gatherer(plain, BATCH, LENGTH),
        "sb3": sb3_sampler(plain, frames, context.size(10_000, 100)),
        "vectors": sampler(numbers, BATCH, LENGTH),
        "gather vectors": gatherer(numbers, BATCH, LENGTH),
    }
    times = context.measure(functions, 10)
    part, work = "sampling", f"{BATCH} windows of {LENGTH} frames, 64x64 RGB"
    gather, unit = "bare NumPy gather of the frames", "frames/s"
    yield rate(part, work, times["none"], frames, unit, gather, times["gather"])
    sb3 = f"Stable-Baselines3 ReplayBuffer in memory, {frames // 2} transitions"
    yield rate(part, work, times["none"], frames, unit, sb3, times["sb3"])
    yield duration(part, f"{work}, lz4", times["lz4"], "uncompressed", times["none"])
    yield rate(
        part,
        "the same of 4 numbers",
        times["vectors"],
        frames,
        unit,
        gather,
        times["gather vectors"],
    )
    sizes = {form: disk(buffer.path) / len(buffer) for form, buffer in buffers.items()}
    yield Row(
        part,
        f"bytes per trajectory of {STEPS} steps, lz4",
        sizes["lz4"],
        "B",
        "uncompressed",
        sizes["none"],
        sizes["lz4"] / sizes["none"],
    )
    yield from _writing(context)


def _writing(context: Context) -> Iterator[Row]:
    episodes, path = context.size(300, 2), context.folder / "written"
    raw = np.zeros((episodes * (STEPS + 1), 64, 64, 3), np.uint8)

    def add() -> None:
        shutil.rmtree(path, ignore_errors=True)
        fill(path, episodes, (64, 64, 3))

    def write() -> None:
        path.with_suffix(".raw").write_bytes(raw)

    functions = {"buffer": add, "write": write}
    times = context.measure(functions)
    work = f"add_episode, {STEPS + 1} frames of 64x64 RGB"
    beside = ("one bare write of the bytes", times["write"])
    yield rate("sampling", work, times["buffer"], len(raw), "frames/s", *beside)


def disk(path: Path) -> int:
    """Return the bytes of a buffer's files."""
    return sum(file.stat().st_size for file in path.iterdir())
