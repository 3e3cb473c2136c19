"""The evaluation sets of the standard experiment: episodes that no training has seen."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from worldmodel.data import Policy, ReplayBuffer, collect

Split = Literal["validation", "heldout"]

SEEDS: dict[Split, range] = {
    "validation": range(10_000, 20_000),
    "heldout": range(20_000, 2**31),
}
"""Seeds of the episodes of each split; training has those below 10,000."""

EPISODES = 256
FRAMES = 62
"""Frames an episode: with two in an observation, forecasts reach 60 steps."""


@contextmanager
def evaluation_set(
    split: Split,
    env_id: str,
    *,
    training_seeds: np.ndarray,
    policy: str | Path | Policy,
    env_kwargs: Mapping[str, Any] | None = None,
    image_size: int = 64,
    observation: str = "auto",
    state_key: str = "state",
    episodes: int = EPISODES,
    frames: int = FRAMES,
    progress: Callable[[int], None] | None = None,
) -> Iterator[ReplayBuffer]:
    """Collect an evaluation set into a temporary directory, removed on leaving.

    Args:
        split: `"validation"` (to choose things by) or `"heldout"` (to report, never to choose).
        env_id: A registered environment.
        training_seeds: int (E,), seeds of the training episodes.
        policy: `"passive"`, `"random"`, or another that `collect` takes.
        env_kwargs: Passed to the environment; as in training, but for what is to be tested.
        image_size: Side of the frames in pixels.
        observation: What is stored, see `collect`.
        state_key: Where ``info`` tells the true state, see `collect`.
        episodes: How many, with the first seeds of the split.
        frames: Of an episode, unless the environment ends it earlier.
        progress: Called after each episode with the number collected.

    Yields:
        The buffer, open for reading.

    Raises:
        ValueError: If the split is unknown or has fewer seeds than `episodes`, or a training
            episode has one of the seeds.
    """
    seeds = split_seeds(split, episodes)
    require_disjoint(training_seeds, np.asarray(seeds))
    with tempfile.TemporaryDirectory(prefix=f"{split}-", ignore_cleanup_errors=True) as folder:
        buffer = collect(
            env_id,
            Path(folder) / "buffer",
            episodes=episodes,
            seeds=seeds,
            steps=frames - 1,
            policy=policy,
            env_kwargs=env_kwargs,
            image_size=image_size,
            observation=observation,
            state_key=state_key,
            progress=progress,
        )
        with buffer:
            yield buffer


def split_seeds(split: Split, episodes: int) -> range:
    """The first seeds of a split, one an episode.

    Raises:
        ValueError: If the split is unknown or has fewer seeds.
    """
    if split not in SEEDS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(map(repr, SEEDS))}")
    seeds = SEEDS[split]
    if not 1 <= episodes <= len(seeds):
        raise ValueError(f"{split} has {len(seeds)} seeds; {episodes} episodes do not fit")
    return seeds[:episodes]


def require_disjoint(training_seeds: np.ndarray, seeds: np.ndarray) -> None:
    """Check that no evaluation episode was trained on.

    Args:
        training_seeds: int (E,), negative where unknown.
        seeds: int (F,), of the evaluation episodes.

    Raises:
        ValueError: If a seed is in both.
    """
    both = np.intersect1d(training_seeds[training_seeds >= 0], seeds)
    if len(both):
        raise ValueError(
            f"{len(both)} evaluation episodes were trained on, the first with seed {both[0]}; "
            "train with seeds below 10000, or evaluate on episodes with other seeds"
        )
