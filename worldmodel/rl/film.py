"""A video of an agent in the real environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.evaluation import step_seconds
from worldmodel.playback.canvas import compose
from worldmodel.playback.strips import curve_strip
from worldmodel.playback.writers import write_video
from worldmodel.rl.worlds import Worlds

LONGEST = 1_000
"""Steps that are filmed at most."""


def film(worlds: Worlds, agent: Any, seed: int, path: Path, algo: str) -> Path:
    """Film one episode in the real environment, the reward under it; gives the path."""
    env = worlds.config.env
    dt = step_seconds(env.id, env.kwargs)
    frames, rewards = _play(worlds, agent, seed)
    label = f"{algo.upper()} trained on {worlds.on}, in reality"
    write_video(path, _images(frames, rewards, label, dt, f"seed {seed}"), 1.0 / dt)
    return path


def _play(worlds: Worlds, agent: Any, seed: int) -> tuple[list[np.ndarray], list[float]]:
    envs = worlds.real(1, render_mode="rgb_array")
    observations, _ = envs.reset(seed=seed)
    frames, rewards, ended = [_frame(envs)], list[float](), False
    while not ended and len(rewards) < LONGEST:
        actions, _ = agent.predict(observations, deterministic=True)
        observations, reward, terminated, truncated, _ = envs.step(actions)
        frames.append(_frame(envs))
        rewards.append(float(reward[0]))
        ended = bool(terminated[0] | truncated[0])
    envs.close()
    return frames, rewards


def _frame(envs: Any) -> np.ndarray:
    return np.asarray(envs.render()[0])


def _images(
    frames: list[np.ndarray], rewards: list[float], label: str, dt: float, note: str
) -> Iterator[np.ndarray]:
    low, high = np.floor(10 * min(0.0, *rewards)) / 10, np.ceil(10 * max(0.1, *rewards)) / 10
    for k, frame in enumerate(frames):
        top = compose((frame,), (label,), f"t = {k * dt:.2f} s", note)
        strip = curve_strip(
            rewards[:k], len(rewards) - 1, "reward", top.shape[1], low=low, high=high
        )
        yield np.concatenate([top, strip])
