"""Collection on a Ray cluster: every task fills one shard of the buffer."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldmodel.data.collect import checked_seeds, load_or_collect
from worldmodel.data.header import unknown_files
from worldmodel.data.index import RECORD
from worldmodel.data.policies import Policy
from worldmodel.data.recipe import default_policy, differences, resolve
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.shards import Manifest, is_sharded, shard_directory
from worldmodel.data.workers import portable
from worldmodel.errors import ReplayBufferError, RunError
from worldmodel.extras import require
from worldmodel.hyperparameters import Compression
from worldmodel.registry import SEARCHED
from worldmodel.trust import trust_all, trusts_all

SHARD_EPISODES = 1000
RETRIES = 5
_SECONDS_TO_STOP = 30.0


def collect_on_ray(
    env_id: str,
    path: str | Path,
    *,
    episodes: int,
    seeds: Sequence[int],
    shard_episodes: int = SHARD_EPISODES,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    policy: str | Path | Policy | None = None,
    image_size: int = 64,
    observation: str = "auto",
    compression: Compression = "none",
    **settings: Any,
) -> ReplayBuffer:
    """Collect episodes with the workers of a Ray cluster.

    Each task collects consecutive episodes into a shard. The buffer has the same episodes in the
    same order, with the same bytes, as one that `collect` makes. Ray retries the task of a killed
    worker, which completes its shard, and the same call resumes an interrupted collection.

    Args:
        env_id: see `collect`.
        path: directory of the shards. On several machines it must be the same disk for all.
        episodes: see `collect`.
        seeds: see `collect`.
        shard_episodes: episodes per shard.
        workers: number of simultaneous tasks if a local cluster is started; None for one per core.
            Ignored for an existing cluster (``RAY_ADDRESS``, or after `ray.init`).
        progress: called with the number of collected episodes every second.
        env_kwargs: see `collect`.
        policy: see `collect`.
        image_size: see `collect`.
        observation: see `collect`.
        compression: see `collect`.
        settings: further arguments of `collect`, among them `steps`.

    Returns:
        The buffer, open for reading.

    Raises:
        MissingLibraryError: If Ray is not installed.
        ReplayBufferError: If the path holds something else, or the cluster fails.
        ValueError: If arguments do not fit the environment or each other.
    """
    ray = require("ray", "ray")
    wanted, path = checked_seeds(seeds, episodes), Path(path).resolve()
    policy = default_policy(env_id) if policy is None else policy
    settings |= {"policy": policy, "image_size": image_size, "observation": observation}
    recipe = resolve(env_id, env_kwargs, **settings)
    parts = [wanted[i : i + shard_episodes] for i in range(0, episodes, shard_episodes)]
    _begin(path, Manifest([len(part) for part in parts], wanted, recipe.metadata()))
    settings |= {"env_kwargs": env_kwargs, "compression": compression}
    with _removed_if_empty(path), cluster(ray, workers):
        fill = ray.remote(num_cpus=1, max_retries=RETRIES)(_fill)
        tasks = [
            fill.remote(env_id, shard_directory(path, i), part, settings, SEARCHED, trusts_all())
            for i, part in enumerate(parts)
        ]
        try:
            _wait(ray, tasks, lambda: progress(_stored(path, parts)) if progress else None)
        except BaseException:
            cancel(ray, tasks, 0.0)
            raise
    return ReplayBuffer.open(path)


def _stored(path: Path, parts: Sequence[Sequence[int]]) -> int:
    """Count the stored episodes; up to one per shard too many, because of SYNC records."""
    indexes = (shard_directory(path, i) / "index.bin" for i in range(len(parts)))
    sizes = [index.stat().st_size if index.exists() else 0 for index in indexes]
    records = [size // RECORD.itemsize for size in sizes]
    return sum(min(count, len(part)) for count, part in zip(records, parts, strict=True))


def _wait(ray: Any, tasks: list[Any], report: Callable[[], None]) -> None:
    """Wait for all tasks, and report the progress every second.

    Raises:
        ReplayBufferError: If the cluster fails.
    """
    waiting = list(tasks)
    while waiting:
        finished, waiting = ray.wait(waiting, timeout=1.0)
        report()
        try:
            results = ray.get(finished)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise ReplayBufferError(
                f"Ray could not collect a shard ({reason}); the same call resumes the collection"
            ) from error
        for result in results:
            if isinstance(result, Exception):
                raise result


def _fill(
    env_id: str,
    path: Path,
    seeds: list[int],
    settings: dict[str, Any],
    searched: list[str],
    trusted: bool,
) -> Exception | None:
    """Complete one shard, in a process of the cluster; return what was raised."""
    SEARCHED[:] = searched
    if trusted:
        trust_all()
    try:
        load_or_collect(
            env_id, path, episodes=len(seeds), seeds=seeds, workers=1, **settings
        ).close()
    except Exception as error:  # raised again by the process that collects
        return portable(error)
    return None


def _begin(path: Path, manifest: Manifest) -> None:
    """Write the manifest of a new buffer, or check that of an unfinished one."""
    if is_sharded(path):
        found = Manifest.read(path)
        different = differences(found.recipe, manifest.recipe)
        if found.seeds != manifest.seeds or found.episodes != manifest.episodes:
            numbers = f"{sum(found.episodes)} episodes in {len(found.episodes)} shards"
            seeds = f" from seed {found.seeds[0]}" if found.seeds else ""
            different.append(f"it was started with {numbers}{seeds}")
        if different:
            raise ReplayBufferError(
                f"{path} was collected in another way ({'; '.join(different)}); pass another path, "
                "or the same settings"
            )
    elif others := unknown_files(path):
        raise ReplayBufferError(
            f"{path} is not empty ({', '.join(others[:3])}); a sharded buffer needs a directory of "
            "its own: pass another path"
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


def cancel(ray: Any, tasks: list[Any], seconds: float) -> None:
    """Stop tasks, and wait until they have ended.

    Args:
        ray: the module.
        tasks: references of the tasks.
        seconds: how long they may take to end after a KeyboardInterrupt; then they are killed.
    """
    if seconds > 0.0:
        for task in tasks:
            ray.cancel(task)
        _, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=seconds) if tasks else ([], [])
    for task in tasks:
        ray.cancel(task, force=True)
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=_SECONDS_TO_STOP)


@contextmanager
def cluster(ray: Any, cpus: int | None) -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS``, or run one on this machine until the end.

    Args:
        ray: the module.
        cpus: number of CPUs of a cluster on this machine; None for those that it has.

    Raises:
        RunError: If Ray does not start, or cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": cpus}
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="error", **local)
    except Exception as error:  # some of Ray's have no type of their own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RunError(
            f"Ray does not start ({reason}); try again, or set RAY_ADDRESS to the address of a "
            "running cluster"
            if local
            else f"the Ray cluster of RAY_ADDRESS cannot be reached ({reason})"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_termination)  # Ray has replaced it
    try:
        yield
    finally:
        ray.shutdown()
