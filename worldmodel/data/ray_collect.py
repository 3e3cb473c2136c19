"""Collection on a Ray cluster: every task fills one shard of the buffer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.data.collect import checked_seeds, load_or_collect
from worldmodel.data.header import unknown_files
from worldmodel.data.policies import Policy
from worldmodel.data.reader import require
from worldmodel.data.recipe import resolve
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.shards import Manifest, is_in_shards, shard_directory
from worldmodel.errors import ReplayBufferError
from worldmodel.files import require_directory
from worldmodel.registry import SEARCHED

SHARD_EPISODES = 250
_RETRIES = 5
_DEFAULTS = {"env_kwargs": None, "policy": "passive", "image_size": 64, "observation": "auto"}


def collect_on_ray(
    env_id: str,
    path: str | Path,
    *,
    episodes: int,
    seeds: Sequence[int],
    shard_episodes: int = SHARD_EPISODES,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    **settings: Any,
) -> ReplayBuffer:
    """Collect episodes with the workers of a Ray cluster.

    Each task collects some successive episodes into a shard. The buffer has the same episodes in
    the same order, with the same bytes, as one that `collect` makes. Shards that exist are
    completed or left as they are, so that a task that is killed loses nothing, and an interrupted
    collection is continued by the same call.

    Args:
        env_id: see `collect`.
        path: directory of the shards. On several machines it must be the same disk for all.
        episodes: see `collect`.
        seeds: see `collect`.
        shard_episodes: episodes per shard.
        workers: tasks at a time of a cluster that is started here; None for one per core. A cluster
            that exists (``RAY_ADDRESS``, or `ray.init` was called) decides that itself.
        progress: called with the number of collected episodes after each shard.
        settings: further arguments of `collect`.

    Returns:
        The buffer, open for reading.

    Raises:
        ReplayBufferError: If the path holds something else.
        ValueError: If arguments do not fit the environment or each other.
    """
    ray = require("ray", "ray")
    wanted, path = checked_seeds(seeds, episodes), Path(path).resolve()
    resolve(env_id, **_DEFAULTS | settings)
    parts = [wanted[i : i + shard_episodes] for i in range(0, episodes, shard_episodes)]
    _begin(path, Manifest([len(part) for part in parts]))
    with _removed_if_empty(path), _cluster(ray, workers):
        fill = ray.remote(num_cpus=1, max_retries=_RETRIES)(_fill)
        waiting = [
            fill.remote(env_id, shard_directory(path, i), part, settings, SEARCHED)
            for i, part in enumerate(parts)
        ]
        done = 0
        while waiting:
            finished, waiting = ray.wait(waiting)
            try:
                done += sum(ray.get(finished))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            if progress is not None:
                progress(done)
    return ReplayBuffer.open(path)


def _fill(
    env_id: str, path: Path, seeds: list[int], settings: dict[str, Any], searched: list[str]
) -> int:
    """Complete one shard, in a process of the cluster; return its number of episodes."""
    SEARCHED[:] = searched
    load_or_collect(env_id, path, episodes=len(seeds), seeds=seeds, workers=1, **settings).close()
    return len(seeds)


def _begin(path: Path, manifest: Manifest) -> None:
    """Write the manifest of a new buffer, or check that of an unfinished one."""
    if is_in_shards(path):
        found = Manifest.read(path)
        if found != manifest:
            raise ReplayBufferError(
                f"{path} has {len(found.episodes)} shards with {sum(found.episodes)} episodes, and "
                f"{len(manifest.episodes)} with {sum(manifest.episodes)} are wanted; pass another "
                "path, or the same numbers"
            )
    elif others := unknown_files(path):
        raise ReplayBufferError(
            f"{path} is not empty ({', '.join(others[:3])}); a buffer in shards needs a directory "
            "of its own: pass another path"
        )
    else:
        manifest.write(path)


@contextmanager
def _removed_if_empty(path: Path) -> Iterator[None]:
    """Remove the manifest if collecting fails before the first episode is complete."""
    try:
        yield
    except BaseException:
        if not any(path.glob("*/*")):
            shutil.rmtree(path)
        raise


@contextmanager
def _cluster(ray: Any, workers: int | None) -> Iterator[None]:
    """Join the cluster of ``RAY_ADDRESS``, or start one on this machine for the while."""
    if ray.is_initialized():
        yield
        return
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
    ray.init(log_to_driver=False, include_dashboard=False, logging_level="error", **local)
    try:
        yield
    finally:
        ray.shutdown()


def collect_shards_to(
    path: Path,
    *,
    env_id: str,
    size: int,
    policy: str | Path | Policy,
    first_seed: int | None,
    observation: str = "pixels",
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Collect episodes on a Ray cluster, with the arguments of `datasets.collect_to`.

    Args:
        path: directory of the shards, new or of an interrupted collection of the same episodes.
        env_id: see `collect`.
        size: number of episodes.
        policy: see `collect`.
        first_seed: seed of the first episode; None for 0.
        observation: ``pixels`` or ``vector``.
        callbacks: that show the progress of the collection.
        settings: further arguments of `collect_on_ray`.

    Returns:
        The `ReplayBuffer.summary` of the buffer.
    """
    require_directory(path)
    first = first_seed or 0
    settings["observation"] = "vector" if observation == "vector" else "auto"
    with (
        CallbackList(callbacks).task("collect", size) as advance,
        collect_on_ray(
            env_id,
            path,
            episodes=size,
            seeds=range(first, first + size),
            policy=policy,
            progress=advance,
            **settings,
        ) as buffer,
    ):
        return buffer.summary()
