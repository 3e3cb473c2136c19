"""The trajectories of a training run: collected once, kept, and reused by equal wishes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console

from worldmodel.config import Config
from worldmodel.data import Policy, Recipe, ReplayBuffer, collect, load_or_collect, resolve
from worldmodel.evaluation.heldout import SEEDS, split_seeds
from worldmodel.models.spec import describe_actions
from worldmodel.progress import progress_bar

BEYOND = 1_000_000
"""First training seed past those below the validation seeds."""

_SPARE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Datasets:
    """Trajectories to train on, and others to watch the training with."""

    train: ReplayBuffer
    validation: ReplayBuffer


def training_seeds(size: int) -> list[int]:
    """Seeds of `size` training trajectories, none of them a validation or held-out seed."""
    below = min(size, SEEDS["validation"].start)
    return [*range(below), *range(BEYOND, BEYOND + size - below)]


def environment(config: Config) -> dict[str, Any]:
    """How a run looks at its environment: arguments shared by all functions that collect."""
    return {
        "env_id": config.env.id,
        "env_kwargs": {**config.env.kwargs, **config.data.env_kwargs},
        "image_size": config.image_size,
        "observation": "vector" if config.mode == "pendulum" else "auto",
        "state_key": config.data.state_key,
    }


@contextmanager
def open_datasets(config: Config, console: Console) -> Iterator[Datasets]:
    """Open the trajectories that a configuration asks for, collecting what is missing.

    Raises:
        ValueError: the environment does not fit the configuration.
        OSError: there is no room for the data, or no right to write it.
    """
    data = config.data
    train_seeds = training_seeds(data.size)
    validation_seeds = split_seeds("validation", data.validation_size)
    with (
        _open(config, train_seeds, "training data", console) as train,
        _open(config, validation_seeds, "validation data", console) as validation,
    ):
        yield Datasets(train, validation)


def check_data(config: Config) -> None:
    """Find out, before anything is written, whether the trajectories can be had.

    Raises:
        ValueError: the environment, its spaces or the policy do not fit.
        OSError: there is no room for the data, or a file where its directory should be.
        ReplayBufferError: the data of an earlier run is damaged.
    """
    _require_folder(config.data.dir)
    recipe = _recipe(config)
    describe_actions(recipe.action_space)
    envs = recipe.make(1)
    try:
        recipe.policy.bind(recipe.action_space, envs.single_observation_space, recipe.steps)
    finally:
        envs.close()
    size = config.data.size
    path = config.data.dir / _folder(config, recipe, 0, size)
    if (path / "header.json").exists():
        ReplayBuffer.open(path).close()
    else:
        _require_room(config.data.dir, recipe, size, "choose another disk with --set data.dir=PATH")


def _require_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise OSError(f"{path} is a file, and data is kept in a directory: give another path")


def _recipe(config: Config) -> Recipe:
    recipe = resolve(**_wish(config))
    if config.mode == "pendulum_image" and len(recipe.source.shape) != 3:
        raise ValueError(
            f"{config.env.id} gives vectors and no pictures; learn from its vectors with "
            "--mode pendulum"
        )
    if len(recipe.source.shape) == 3 and recipe.source.shape[-1] not in (1, 3):
        raise ValueError(
            f"{config.env.id} shows frames of {recipe.source.shape[-1]} channels, and a model "
            "draws grey or RGB ones: wrap the environment to show 1 or 3 channels"
        )
    return recipe


def is_run(policy: str) -> bool:
    """Whether a policy's name is that of a run directory."""
    return (Path(policy) / "config.yaml").is_file()


def named_policy(name: str) -> str | Policy:
    """A policy as `collect` takes it; of the name of a run directory, its model's planner."""
    if is_run(name):
        from worldmodel.imagination.planned import Planned

        return Planned(Path(name))
    return name


def _wish(config: Config) -> dict[str, Any]:
    policy = named_policy(config.data.policy)
    return {**environment(config), "policy": policy, "steps": config.data.steps}


def _open(config: Config, seeds: Sequence[int], title: str, console: Console) -> ReplayBuffer:
    path = config.data.dir / _folder(config, _recipe(config), seeds[0], len(seeds))
    wish = {**_wish(config), "path": path, "episodes": len(seeds), "seeds": seeds}
    if _collected(path) == len(seeds):
        return load_or_collect(**wish)
    with _alone(path, console):
        begun = _collected(path)
        if begun == len(seeds):
            return load_or_collect(**wish)
        console.print(f"Collecting {title} in {path.parent.absolute()}")
        with progress_bar(console, title, len(seeds), begun) as bar:
            return load_or_collect(**wish, progress=bar)


def _collected(path: Path) -> int:
    """Episodes that are there already."""
    if not (path / "header.json").exists():
        return 0
    with ReplayBuffer.open(path) as buffer:
        return buffer.num_episodes


@contextmanager
def _alone(path: Path, console: Console) -> Iterator[None]:
    """Let another run that collects the same data finish, rather than fail beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.parent / f".{path.name}.lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        console.print(f"Another process collects {path.name}; waiting for it ...")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _folder(config: Config, recipe: Recipe, first_seed: int, size: int) -> str:
    """A name that differs whenever the data would: everything that decides it is hashed."""
    content = json.dumps([recipe.identity(), first_seed, size], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:10]
    policy = Path(config.data.policy).stem
    name = f"{recipe.spec.id}_{policy}_{size}x{recipe.steps}_{digest}"
    return name.replace("/", "-")


def _require_room(folder: Path, recipe: Recipe, episodes: int, remedy: str) -> None:
    frame = int(np.prod(recipe.source.shape)) * recipe.source.dtype.itemsize
    needed = episodes * (recipe.steps + 1) * frame
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed + _SPARE_BYTES > free:
        raise OSError(
            f"no room for {episodes} trajectories in {folder}: they need up to "
            f"{needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; lower --size, or {remedy}"
        )


def collect_to(
    path: Path,
    *,
    env_id: str,
    env_kwargs: dict[str, Any],
    size: int,
    steps: int,
    policy: str,
    image_size: int,
    state_key: str,
    first_seed: int | None,
    console: Console,
) -> dict[str, Any]:
    """Collect trajectories into a new buffer, or more of the same kind into an existing one.

    Args:
        first_seed: seed of the first trajectory; None takes the one after the greatest there is.

    Returns:
        What the buffer then holds.
    """
    _require_folder(path)
    append = (path / "header.json").exists()
    begun, greatest = 0, -1
    if append:
        with ReplayBuffer.open(path) as existing:
            begun, greatest = existing.num_episodes, int(max(existing.seeds, default=-1))
    if first_seed is None:
        first_seed = greatest + 1
    wish: dict[str, Any] = {
        **{"env_id": env_id, "env_kwargs": env_kwargs, "policy": named_policy(policy)},
        **{"steps": steps, "image_size": image_size, "state_key": state_key},
        "observation": "auto",
    }
    _require_room(path, resolve(**wish), size, "choose another disk")
    with (
        progress_bar(console, "collect", begun + size, begun) as bar,
        collect(
            path=path,
            episodes=size,
            seeds=range(first_seed, first_seed + size),
            append=append,
            progress=bar,
            **wish,
        ) as buffer,
    ):
        return summary(buffer)


def summary(buffer: ReplayBuffer) -> dict[str, Any]:
    """What a buffer holds, as JSON values."""
    return {
        "path": str(buffer.path),
        "episodes": buffer.num_episodes,
        "frames": buffer.num_frames,
        "frame_shape": list(buffer.frame_shape),
        "frame_dtype": buffer.frame_dtype.name,
        "action_space": str(buffer.action_space),
        "seeds": [int(buffer.seeds.min()), int(buffer.seeds.max())] if len(buffer) else [],
        "metadata": buffer.metadata,
    }
