"""Collection into a buffer that the user names: new, or with more episodes of the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.data.collect import collect
from worldmodel.data.policies import Policy
from worldmodel.data.ray_collect import collect_on_ray
from worldmodel.data.recipe import resolve
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.shards import is_buffer
from worldmodel.errors import ReplayBufferError
from worldmodel.files import require_directory
from worldmodel.hyperparameters import Compression


def collect_to(
    path: Path,
    *,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    size: int,
    steps: int,
    policy: str | Path | Policy | None,
    image_size: int,
    state_key: str,
    first_seed: int | None,
    observation: str = "pixels",
    workers: int | None = None,
    ray: bool = False,
    compression: Compression | None = None,
    callbacks: Sequence[Callback] = (),
    **env_options: Any,
) -> dict[str, Any]:
    """Collect episodes into a new buffer, or more of the same kind into an existing one.

    Args:
        path: the buffer's directory.
        env_id: see `collect`.
        env_kwargs: see `collect`.
        size: number of episodes to collect.
        steps: see `collect`.
        policy: see `collect`.
        image_size: see `collect`.
        state_key: see `collect`.
        observation: ``pixels`` or ``vector``.
        first_seed: seed of the first episode; None continues after the largest seed in the buffer.
        workers: see `collect`.
        ray: use `collect_on_ray`, which completes a buffer but does not append to it.
        compression: how frames are stored; None for ``"none"``, or as in an existing buffer.
        callbacks: that show the progress of the collection.
        env_options: `wrappers`, `observation_key` and `frame_skip`, see `collect`.

    Returns:
        The `ReplayBuffer.summary` of the buffer.

    Raises:
        ReplayBufferError: If the path holds something else, data collected in another way, or
            frames in another form than `compression`.
        ValueError: If arguments do not fit the environment or each other.
        OSError: If there is no space for the data, or no permission to write it.
    """
    require_directory(path)
    append, stored, largest = is_buffer(path) and not ray, 0, -1
    if append:
        with ReplayBuffer.open(path) as existing:
            stored, largest = len(existing), int(existing.seeds.max(initial=-1))
            _require_form(existing, compression)
    first = largest + 1 if first_seed is None else first_seed
    settings: dict[str, Any] = {
        "env_id": env_id,
        "env_kwargs": env_kwargs,
        "policy": policy,
        "steps": steps,
        "image_size": image_size,
        "observation": "vector" if observation == "vector" else "auto",
        "state_key": state_key,
        **env_options,
    }
    recipe = resolve(**settings)
    recipe.require_images(env_id, observation)
    if compression in (None, "none"):  # how small compressed frames are is not known
        hint = "lower --size, or choose another disk, or compress frames with --compression lz4"
        recipe.require_space(path, size, hint)
    settings |= {"workers": workers, "compression": compression or "none"}
    seeds = range(first, first + size)
    play = collect_on_ray if ray else partial(collect, append=append)
    with (
        CallbackList(callbacks).task("collect", stored + size, stored) as advance,
        play(path=path, episodes=size, seeds=seeds, progress=advance, **settings) as buffer,
    ):
        return buffer.summary()


def _require_form(buffer: ReplayBuffer, compression: Compression | None) -> None:
    found = buffer.header.compression
    if compression not in (None, found):
        raise ReplayBufferError(
            f"{buffer.path} is stored with compression {found!r}, not {compression!r}; leave out "
            "--compression, or make a copy with `worldmodel convert --to buffer --compression "
            f"{compression}`"
        )
