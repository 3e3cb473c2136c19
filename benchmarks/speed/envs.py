"""Environments against Gymnasium's wrappers for pixel observations, and collection against them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import AddRenderObservation, FrameStackObservation, ResizeObservation

import worldmodel  # noqa: F401
from benchmarks.speed.table import Context, Functions, Row, published, rate
from worldmodel.data import collect

SIDE, STACK = 64, 2
PENDULUM = {"image_size": SIDE, "frame_stack": STACK, "start": "uniform"}
COLLECTED = (
    ("DoublePendulumPixels-v0", 2000, 30, "passive"),
    ("DoublePendulumPixels-v0", 2000, 30, "random"),
    ("DoublePendulumPixels-v0", 300, 200, "passive"),
    ("DoublePendulum-v0", 2000, 30, "random"),
    ("CartPole-v1", 20, 30, "random"),
)
WORLD_COLLECT = 156
"""Frames/s of `World.collect` of stable-worldmodel 0.1.1, classic control from pixels, 8 envs."""


def stack_pixels(env: gym.Env) -> gym.Env:
    """Wrap an environment so that it observes stacked frames."""
    pixels = AddRenderObservation(env, render_only=True)
    return FrameStackObservation(ResizeObservation(pixels, (SIDE, SIDE)), STACK)


def make_acrobot(count: int) -> VectorEnv:
    """Make Gymnasium's Acrobot with pixel wrappers."""
    options = {"vectorization_mode": "sync", "wrappers": [stack_pixels]}
    return gym.make_vec("Acrobot-v1", count, render_mode="rgb_array", **options)


def make_pendulum(count: int, image_size: int = SIDE) -> VectorEnv:
    """Make the native vector environment."""
    settings = PENDULUM | {"image_size": image_size}
    return gym.make_vec("DoublePendulumPixels-v0", count, **settings)


def make_single(_: int) -> gym.Env:
    """Make a single environment."""
    return gym.make("DoublePendulumPixels-v0", **PENDULUM)


def stepper(env: VectorEnv | gym.Env, steps: int) -> Callable[[], None]:
    """Make a function that takes some steps; actions are drawn beforehand."""
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(16)]

    def step() -> None:
        for i in range(steps):
            _, _, _, truncated, _ = env.step(actions[i % 16])
            if np.ndim(truncated) == 0 and truncated:
                env.reset()

    return step


def env(context: Context) -> Iterator[Row]:
    """Observations per second, physics included: 64x64 RGB, two stacked frames."""
    scale = context.size(10, 1)
    made: dict[str, tuple[Callable[[int], VectorEnv | gym.Env], int, int]] = {
        "single": (make_single, 1, 40 * scale),
        "vector of 8": (make_pendulum, 8, 40 * scale),
        "vector of 64": (make_pendulum, 64, 10 * scale),
    }
    peer = "Acrobot-v1, AddRenderObservation, resized, stacked"
    if find_spec("cv2") is not None:
        made |= {
            "1": (make_acrobot, 1, 2 * scale),
            "sync of 8": (make_acrobot, 8, scale),
            "sync of 64": (make_acrobot, 64, 2),
        }
    functions = {name: stepper(make(n), steps) for name, (make, n, steps) in made.items()}
    times = context.measure(functions)
    counts = {name: n * steps for name, (_, n, steps) in made.items()}
    pairs = {"single": "1", "vector of 8": "sync of 8", "vector of 64": "sync of 64"}
    for ours, theirs in pairs.items():
        work = f"DoublePendulumPixels-v0, {ours}"
        beside = (f"{peer}, {theirs}", times[theirs], counts[theirs]) if theirs in times else ()
        yield rate("env", work, times[ours], counts[ours], "frames/s", *beside)


def collector(
    context: Context, env_id: str, episodes: int, steps: int, policy: str, form: str = "none"
) -> Callable[[], None]:
    """Make a function that collects a buffer, from nothing until it is closed."""
    path = context.folder / "collected"
    kwargs = {"start": "uniform"} if env_id.startswith("DoublePendulum") else {}

    def run() -> None:
        shutil.rmtree(path, ignore_errors=True)
        collect(
            env_id,
            path,
            episodes=episodes,
            seeds=range(episodes),
            steps=steps,
            policy=policy,
            env_kwargs=kwargs,
            observation="vector" if env_id == "DoublePendulum-v0" else "auto",
            workers=1,
            compression=form,  # type: ignore[arg-type]
        ).close()

    return run


def collection(context: Context) -> Iterator[Row]:
    """Frames per second into a replay buffer, one process, against stepping the environment."""
    for env_id, full, steps, policy in COLLECTED:
        episodes = context.size(full, 2)
        work = f"{env_id}, {policy}, {episodes} x {steps} steps"
        functions: Functions = {"none": collector(context, env_id, episodes, steps, policy)}
        count = episodes * (steps + 1)
        if env_id == "CartPole-v1":
            times = context.measure(functions)
            row = rate("collection", work, times["none"], count, "frames/s")
            yield published(row, "stable-worldmodel 0.1.1", WORLD_COLLECT)
            continue
        kwargs = {"frame_stack": 1} if env_id == "DoublePendulumPixels-v0" else {}
        limit = gym.make_vec(env_id, min(32, episodes), start="uniform", **kwargs)
        stepped = steps * max(1, episodes // 32)
        functions["env"] = stepper(limit, stepped)
        functions["lz4"] = collector(context, env_id, episodes, steps, policy, "lz4")
        times = context.measure(functions)
        beside = ("the vector environment alone", times["env"], stepped * limit.num_envs)
        yield rate("collection", work, times["none"], count, "frames/s", *beside)
        if kwargs:
            form = ("uncompressed", times["none"])
            yield rate("collection", f"{work}, lz4", times["lz4"], count, "frames/s", *form)
