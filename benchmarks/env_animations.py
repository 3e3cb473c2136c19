"""Animations of this package's environments, for their pages.

    python -m benchmarks.env_animations [--folder docs/environments]

The pendulum starts nearly upright, and swings without torque.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np

import worldmodel  # noqa: F401  (registers the environments)
from worldmodel.viz import compose, write_video

START = {"state": [3.0, 3.1, 0.0, 0.0]}
SEED = 0


def rendered(steps: int) -> Iterator[np.ndarray]:
    """Draw `DoublePendulum-v0` as it renders itself, uint8 (H, W, 3)."""
    env = gym.make("DoublePendulum-v0", render_mode="rgb_array")
    env.reset(seed=SEED, options=START)
    for k in range(steps):
        frame = np.asarray(env.render())
        yield compose([frame], ["DoublePendulum-v0"], f"{k * 0.05:.2f} s")
        env.step(np.zeros(2, np.float32))
    env.close()


def observed(steps: int) -> Iterator[np.ndarray]:
    """Draw the two frames of each observation of `DoublePendulumPixels-v0`, uint8 (H, W, 3)."""
    env = gym.make("DoublePendulumPixels-v0", render_mode="rgb_array")
    observation, _ = env.reset(seed=SEED, options=START)
    for k in range(steps):
        frame = np.asarray(env.render())
        older, newer = observation[..., :3], observation[..., 3:]
        yield compose(
            [frame, older, newer],
            ["environment", "older frame", "newer frame"],
            "DoublePendulumPixels-v0",
            f"{k * 0.05:.2f} s",
        )
        observation, *_ = env.step(np.zeros(2, np.float32))
    env.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the animations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("docs/environments"))
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_video(options.folder / "double_pendulum.gif", rendered(options.steps), 20)
    write_video(options.folder / "double_pendulum_pixels.gif", observed(options.steps), 20)


if __name__ == "__main__":
    main()
