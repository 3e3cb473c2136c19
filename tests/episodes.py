"""Episodes made from their seed alone, so that any process can check that they are intact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data import ReplayBuffer

FRAME_SHAPE = (4, 6, 3)
STATE_DIM = 2
BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
DISCRETE = gym.spaces.Discrete(4)


def episode(seed: int, steps: int, space: gym.Space = BOX) -> dict[str, Any]:
    """Arguments for `ReplayBuffer.add_episode`."""
    rng = np.random.default_rng(seed)
    if isinstance(space, gym.spaces.Discrete):
        actions = rng.integers(0, space.n, steps)
    else:
        actions = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
    return {
        "frames": rng.integers(0, 256, (steps + 1, *FRAME_SHAPE), dtype=np.uint8),
        "actions": actions,
        "rewards": rng.normal(size=steps).astype(np.float32),
        "terminated": bool(seed % 2),
        "states": rng.normal(size=(steps + 1, STATE_DIM)),
        "seed": seed,
    }


def steps_of(seed: int) -> int:
    """Steps of the episode of a seed, unless a test sets them."""
    return 2 + seed % 7


def create(path: Path, space: gym.Space = BOX, **kwargs: Any) -> ReplayBuffer:
    """Create an empty buffer for such episodes."""
    settings = {
        "frame_shape": FRAME_SHAPE,
        "action_space": space,
        "state_dim": STATE_DIM,
        "metadata": {},
    }
    return ReplayBuffer.create(path, **(settings | kwargs))


def fill(buffer: ReplayBuffer, seeds: range) -> ReplayBuffer:
    """Add the episodes of some seeds."""
    for seed in seeds:
        buffer.add_episode(**episode(seed, steps_of(seed)))
    return buffer


def assert_intact(buffer: ReplayBuffer) -> None:
    """Check that every episode in the buffer is, byte for byte, that of its seed."""
    for i, (seed, length) in enumerate(zip(buffer.seeds, buffer.lengths)):
        expected = episode(int(seed), int(length) - 1, buffer.action_space)
        found = buffer.windows([i], [0], int(length))
        np.testing.assert_array_equal(found.frames[0], expected["frames"])
        np.testing.assert_array_equal(found.actions[0], expected["actions"])
        np.testing.assert_array_equal(found.rewards[0], expected["rewards"])
        np.testing.assert_array_equal(buffer.states([i], [0], int(length))[0], expected["states"])
        assert found.terminated[0].tolist() == [False] * (length - 2) + [expected["terminated"]]


def change(path: Path, offset: int, mask: int = 1) -> None:
    """Flip the bits of `mask` in the byte of a file at `offset`."""
    content = bytearray(path.read_bytes())
    content[offset] ^= mask
    path.write_bytes(content)
