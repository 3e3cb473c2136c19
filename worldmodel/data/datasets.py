"""Datasets of a run: collected once, cached by configuration, split by seed."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.config import Config
from worldmodel.data.adapters import env_options, require_env
from worldmodel.data.collect import collect, load_or_collect
from worldmodel.data.header import dataset_lock
from worldmodel.data.policies import Policy
from worldmodel.data.recipe import Recipe, resolve
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.shards import is_buffer
from worldmodel.errors import ReplayBufferError
from worldmodel.files import require_directory

Split = Literal["validation", "heldout"]

SEEDS: dict[Split, range] = {
    "validation": range(10_000, 20_000),
    "heldout": range(20_000, 2**31),
}
"""Seeds of the episodes of each split; training has those below 10,000."""

TRAINING_OVERFLOW = 1_000_000
"""First seed of the training episodes for which there is none left below 10,000."""


@dataclass(frozen=True)
class Datasets:
    """Episodes to train on, and others.

    Attributes:
        train: to train on.
        validation: to monitor the training with.
        heldout: to evaluate on; None if they are collected for each evaluation.
    """

    train: ReplayBuffer
    validation: ReplayBuffer
    heldout: ReplayBuffer | None = None


def collect_kwargs(config: Config) -> dict[str, Any]:
    """Return arguments of `collect` and `resolve` for the environment of a configuration."""
    return {
        "env_id": require_env(config),
        "env_kwargs": {**config.env.kwargs, **config.data.env_kwargs},
        "state_key": config.data.state_key,
        **env_options(config),
    }


def training_seeds(size: int) -> list[int]:
    """Return the seeds of `size` training episodes, none of them of another split."""
    below = min(size, SEEDS["validation"].start)
    return [*range(below), *range(TRAINING_OVERFLOW, TRAINING_OVERFLOW + size - below)]


def split_seeds(split: Split, episodes: int) -> range:
    """Return the first seeds of a split, one per episode.

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


@contextmanager
def open_datasets(config: Config, callbacks: Sequence[Callback] = ()) -> Iterator[Datasets]:
    """Open the datasets of a configuration, collecting what is missing.

    Args:
        config: of a run.
        callbacks: that show the progress of the collection.

    Yields:
        The datasets, open for reading.

    Raises:
        ValueError: If the environment does not fit the configuration.
        OSError: If there is no space for the data, or no permission to write it.
        ReplayBufferError: If the data of an earlier run is damaged.
    """
    if config.data.sources:
        from worldmodel.data.own_data import open_own_data

        with open_own_data(config, callbacks) as datasets:
            yield datasets
        return
    watching = CallbackList(callbacks)
    validation_seeds = split_seeds("validation", config.data.validation_size)
    with (
        _open_training(config, watching) as train,
        _open(config, validation_seeds, "validation data", watching) as validation,
    ):
        yield Datasets(train, validation)


def check_data(
    config: Config, callbacks: Sequence[Callback] = ()
) -> tuple[tuple[int, ...], gym.Space[Any]]:
    """Check, before a run is made, that its data can be collected; own data is read and stored.

    Args:
        config: of a run.
        callbacks: that show the progress of storing own data.

    Returns:
        Shape of a frame, and the space of the actions.

    Raises:
        ValueError: If the environment, its spaces or the policy do not fit.
        OSError: If there is no space for the data, or a file where its directory should be.
        ReplayBufferError: If the data of an earlier run is damaged.
    """
    require_directory(config.data.dir)
    if config.data.sources:
        with open_datasets(config, callbacks) as datasets:
            _require_supported(datasets.train.action_space)
            return datasets.train.frame_shape, datasets.train.action_space
    recipe = _recipe(config)
    _require_supported(recipe.env.action_space)
    envs = recipe.make(1)
    try:
        recipe.policy.bind(recipe.env.action_space, envs.single_observation_space, recipe.steps)
    finally:
        envs.close()
    size = config.data.size
    path = config.data.dir / _folder(config, recipe, 0, size)
    if is_buffer(path):
        ReplayBuffer.open(path).close()
    elif config.data.compression == "none":  # how small compressed frames are is not known
        hint = (
            "lower --size, or choose another disk with --set data.dir=PATH, or compress frames "
            "with --set data.compression=lz4"
        )
        recipe.require_space(config.data.dir, size, hint)
    return recipe.env.source.shape, recipe.env.action_space


@contextmanager
def evaluation_set(
    split: Split,
    config: Config,
    training_seeds: np.ndarray,
    policy: str | Path | Policy,
    *,
    episodes: int | None = None,
    steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Iterator[ReplayBuffer]:
    """Collect evaluation episodes into a temporary directory that is removed on exit.

    Args:
        split: ``"validation"`` (to choose things by) or ``"heldout"`` (to report, never to choose).
        config: of the run.
        training_seeds: int (E,), seeds of the training episodes.
        policy: see `collect`.
        episodes: number of episodes, with the first seeds of the split; by default
            ``config.data.heldout_size``.
        steps: transitions per episode, unless the environment ends it earlier; by default
            ``config.evaluation.steps``.
        env_kwargs: override the arguments of the environment.
        callbacks: that show the progress of the collection.

    Yields:
        The buffer, open for reading.

    Raises:
        ValueError: If the split is unknown or has fewer seeds than `episodes`, or a training
            episode has one of the seeds.
        OSError: If there is no space for the episodes.
    """
    count = config.data.heldout_size if episodes is None else episodes
    seeds = split_seeds(split, count)
    require_disjoint(training_seeds, np.asarray(seeds))
    settings = collect_kwargs(config) | {"policy": policy}
    settings["env_kwargs"] |= env_kwargs or {}
    settings["steps"] = config.evaluation.steps if steps is None else steps
    with tempfile.TemporaryDirectory(prefix=f"{split}-", ignore_cleanup_errors=True) as folder:
        hint = "lower the number of episodes, or set TMPDIR to a directory on another disk"
        resolve(**settings).require_space(Path(folder), count, hint)
        with CallbackList(callbacks).task(f"{split} episodes", count) as advance:
            buffer = collect(
                path=Path(folder) / "buffer",
                episodes=count,
                seeds=seeds,
                workers=config.data.workers,
                compression=config.data.compression,
                progress=advance,
                **settings,
            )
        with buffer:
            yield buffer


def wanted_size(lengths: np.ndarray, size: int, min_steps: int) -> int:
    """Return how many trajectories are wanted, given the lengths of those that there are.

    Where they end early, more are wanted; the final number does not depend on `len(lengths)`.

    Args:
        lengths: int (E,), frames of each trajectory.
        size: minimum number of trajectories.
        min_steps: minimum number of steps of all trajectories.
    """
    while size <= len(lengths):
        steps = int((lengths[:size] - 1).sum())
        if steps >= min_steps:
            break
        size += math.ceil((min_steps - steps) * size / max(steps, 1))
    return size


def _open_training(config: Config, callbacks: CallbackList) -> ReplayBuffer:
    """Open training data: `data.size` trajectories, and more where they end early."""
    path = config.data.dir / _folder(config, _recipe(config), 0, config.data.size)
    while True:
        size = wanted_size(_lengths(path), config.data.size, config.data.min_steps)
        buffer = _open(config, training_seeds(size), "training data", callbacks, path)
        if wanted_size(buffer.lengths, config.data.size, config.data.min_steps) == size:
            return buffer
        buffer.close()


def _open(
    config: Config,
    seeds: Sequence[int],
    title: str,
    callbacks: CallbackList,
    path: Path | None = None,
) -> ReplayBuffer:
    path = path or config.data.dir / _folder(config, _recipe(config), seeds[0], len(seeds))
    settings = {**_recipe_kwargs(config), "path": path, "episodes": len(seeds), "seeds": seeds}
    settings |= {"workers": config.data.workers, "compression": config.data.compression}
    if len(_lengths(path)) == len(seeds):
        try:
            return load_or_collect(**settings)
        except ReplayBufferError:
            if len(_lengths(path)) == len(seeds):  # no other process has collected more
                raise
    with dataset_lock(path, [callbacks]):
        stored = len(_lengths(path))
        if stored > len(seeds):  # another process collected more; `_open_training` looks again
            return ReplayBuffer.open(path)
        if stored == len(seeds):
            return load_or_collect(**settings)
        callbacks.on_message(f"Collecting {title} in {path.parent.absolute()}")
        with callbacks.task(title, len(seeds), stored) as advance:
            return load_or_collect(**settings, progress=advance)


def _recipe_kwargs(config: Config) -> dict[str, Any]:
    data = config.data
    return {**collect_kwargs(config), "policy": data.policy, "steps": data.steps}


def _recipe(config: Config) -> Recipe:
    recipe = resolve(**_recipe_kwargs(config))
    recipe.require_images(str(config.env.id), config.observation)
    shape = recipe.env.source.shape
    if len(shape) == 3 and shape[-1] not in (1, 3):
        raise ValueError(
            f"{config.env.id} has frames of {shape[-1]} channels; expected 1 (grey) or 3 (RGB): "
            "change them with a wrapper, --wrapper module:Name"
        )
    return recipe


def _require_supported(space: gym.Space[Any]) -> None:
    """Refuse actions that `worldmodel.models.describe_actions` will refuse."""
    flat = isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and space.is_bounded()
    if not flat and not isinstance(space, gym.spaces.Discrete):
        raise ValueError(
            f"action space {space} is not supported: expected Discrete or a bounded "
            "one-dimensional Box; change it with a wrapper, --wrapper module:Name, for instance "
            "gymnasium.wrappers.TransformAction with a bounded Box"
        )


def _lengths(path: Path) -> np.ndarray:
    """Return the frames of each complete episode, int (E,); none if there is no buffer."""
    if not is_buffer(path):
        return np.zeros(0, int)
    with ReplayBuffer.open(path) as buffer:
        return buffer.lengths


def _folder(config: Config, recipe: Recipe, first_seed: int, size: int) -> str:
    """Name of a dataset; it holds a digest of everything that decides the data."""
    content = [recipe.identity(), first_seed, size]
    if config.data.min_steps and first_seed == 0:
        content.append(config.data.min_steps)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
    policy = Path(config.data.policy)
    label = policy.stem if policy.exists() else config.data.policy.rpartition(":")[2]
    name = f"{recipe.env.spec.id}_{label}_{size}x{recipe.steps}_{digest}"
    return name.replace("/", "-").replace(":", "-")
