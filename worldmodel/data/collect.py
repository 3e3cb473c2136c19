"""Collection: play episodes in any Gymnasium environment and store them in a replay buffer."""

from __future__ import annotations

import math
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.env_wrappers import Wrapper
from worldmodel.data.frames import FrameSource, FrameStack
from worldmodel.data.header import unknown_files
from worldmodel.data.policies import Policy
from worldmodel.data.recipe import STATE_KEY, Recipe, differences, resolve
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode, Rollout
from worldmodel.data.workers import TakenFrames, WorkerEnvs, choose_workers
from worldmodel.errors import ReplayBufferError, naming_episode
from worldmodel.hyperparameters import Compression

NATIVE_BATCH = 32
"""Environments played at once in an environment's own vector form."""


def collect(
    env_id: str,
    path: str | Path,
    *,
    episodes: int,
    seeds: Sequence[int],
    steps: int,
    policy: str | Path | Policy | None = None,
    num_envs: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    image_size: int = 64,
    observation: str = "auto",
    state_key: str = STATE_KEY,
    wrappers: Sequence[str | Wrapper] = (),
    observation_key: str | None = None,
    frame_skip: int = 1,
    workers: int | None = None,
    append: bool = False,
    compression: Compression = "none",
    progress: Callable[[int], None] | None = None,
) -> ReplayBuffer:
    """Play episodes and store each one as soon as it is complete.

    Episode i is reset with ``seeds[i]`` and its policy is seeded with it too, so the buffer holds
    the same bytes for any `num_envs` and `workers`. Episodes are stored in the order of the seeds.

    Args:
        env_id: a registered id, ``module:id`` to import the module first, or the ``module:Name`` of
            an environment class or factory.
        path: the buffer's directory.
        episodes: number of episodes.
        seeds: at least as many different seeds, 0 or more; the first `episodes` are used.
        steps: longest episode; the environment may end it earlier.
        policy: ``"random"`` (uniform actions, each held for 1 to 8 steps), ``"passive"`` (zero
            action), ``"mixed"`` (each episode is one of the two), the ``module:Name`` of a
            `Policy`, the path of an agent saved by Stable-Baselines3, a run directory (its model
            plans), or a `Policy` object. By default that of the environment's plug-in, which is
            ``"passive"`` for the double pendulum, else ``"random"``.
        num_envs: environments played at once, at most; by default 32 if the environment has its
            own vector form, else one per worker. Each keeps an episode in memory until it is
            complete.
        env_kwargs: passed to the environment; JSON values.
        image_size: side of stored images. Passed to an environment that takes ``image_size``;
            images of other environments are resized.
        observation: ``"image"`` (the environment's own uint8 image), ``"render"`` (its
            ``rgb_array`` rendering), ``"vector"`` (a 1-D observation, float32), or ``"auto"``:
            the first of these that it offers. Of stacked observations the newest frame is stored.
        state_key: key of ``info`` with the true state, a number or a vector of numbers, stored
            beside each frame for evaluation. Only the default key may be missing.
        wrappers: applied to the environment, the innermost first: ``module:Name``, or classes or
            functions that take an environment and return one.
        observation_key: entry of a Dict observation that is taken; by default the only uint8 image
            or, where there is none, the only vector.
        frame_skip: how often each action is repeated; rewards are summed. Applied outside the
            wrappers.
        workers: processes that play, each one environment in one thread. By default one per usable
            core where that is faster: not for an environment with its own vector form, fewer than
            16 episodes, or a few seconds of work. 1 is this process, which also plays what cannot
            be pickled, or by default what cannot be made in another process.
        append: add to an existing buffer that was collected in the same way.
        compression: ``"lz4"`` stores frames compressed, without loss; ``"none"`` is faster. An
            existing buffer keeps its form.
        progress: called after each episode with the number of episodes in the buffer.

    Returns:
        The buffer, open for reading.

    Raises:
        ReplayBufferError: If the path holds something else, other data, or some of the seeds.
        ValueError: If arguments do not fit the environment or each other.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> buffer = collect("CartPole-v1", folder.name, episodes=4, seeds=range(4), steps=5)
        >>> buffer.num_frames, buffer.frame_shape, buffer.action_space
        (24, (64, 64, 3), Discrete(2))
        >>> folder.cleanup()
    """
    wanted = checked_seeds(seeds, episodes)
    recipe = resolve(
        env_id,
        env_kwargs,
        policy=policy,
        steps=steps,
        image_size=image_size,
        observation=observation,
        state_key=state_key,
        wrappers=wrappers,
        observation_key=observation_key,
        frame_skip=frame_skip,
    )

    def unused(buffer: ReplayBuffer) -> list[int]:
        stored = np.intersect1d(buffer.seeds, wanted)
        if len(stored):
            raise ReplayBufferError(
                f"{path} already holds {len(stored)} of the {episodes} seeds, among them "
                f"{stored[0]}; pass other seeds, or use `load_or_collect` to add missing ones"
            )
        return wanted

    writer = partial(_writer, path, recipe, append, compression)
    return _collect(recipe, writer, (num_envs, workers), episodes, append, unused, progress)


def load_or_collect(
    env_id: str,
    path: str | Path,
    *,
    episodes: int,
    seeds: Sequence[int],
    steps: int,
    policy: str | Path | Policy | None = None,
    num_envs: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    image_size: int = 64,
    observation: str = "auto",
    state_key: str = STATE_KEY,
    wrappers: Sequence[str | Wrapper] = (),
    observation_key: str | None = None,
    frame_skip: int = 1,
    workers: int | None = None,
    compression: Compression = "none",
    progress: Callable[[int], None] | None = None,
) -> ReplayBuffer:
    """Open the data that `collect` would make, collecting only the episodes that are missing.

    A buffer that an interrupted collection left is completed; a complete one is only opened.

    Args:
        env_id: see `collect`, as for all arguments.

    Returns:
        The buffer, open for reading, with exactly the given seeds.

    Raises:
        ReplayBufferError: If the path holds something else, data collected in another way, or
            episodes with other seeds. Nothing is changed then.
        ValueError: If arguments do not fit the environment or each other.
    """
    wanted = checked_seeds(seeds, episodes)
    recipe = resolve(
        env_id,
        env_kwargs,
        policy=policy,
        steps=steps,
        image_size=image_size,
        observation=observation,
        state_key=state_key,
        wrappers=wrappers,
        observation_key=observation_key,
        frame_skip=frame_skip,
    )
    missing, exists = wanted, bool(unknown_files(Path(path)))
    if exists:
        buffer = ReplayBuffer.open(path)
        _require_same(buffer, recipe)
        missing = _missing(buffer, wanted)
        if not missing:
            return buffer
        buffer.close()
    return _collect(
        recipe,
        partial(_writer, path, recipe, exists, compression),
        (num_envs, workers),
        len(missing),
        exists,
        lambda buffer: _missing(buffer, wanted),
        progress,
    )


def play_episode(recipe: Recipe, seed: int, options: dict[str, Any] | None = None) -> Episode:
    """Play one episode without storing it.

    Args:
        recipe: from `resolve`.
        seed: of the environment and of the policy.
        options: for the environment's ``reset``, as ``{"state": [...]}``.
    """
    with _player(recipe, 1, 1, 1, options) as player:
        return next(player.play([seed]))


def _collect(
    recipe: Recipe,
    writer: Callable[[], ReplayBuffer],
    at_once: tuple[int | None, int | None],
    episodes: int,
    append: bool,
    choose_seeds: Callable[[ReplayBuffer], list[int]],
    progress: Callable[[int], None] | None,
) -> ReplayBuffer:
    """Play episodes into a buffer.

    Args:
        recipe: how to collect.
        writer: opens the buffer to fill.
        at_once: `num_envs` and `workers`, see `collect`.
        episodes: how many are expected, to choose the number of environments.
        append: whether the buffer exists.
        choose_seeds: the seeds to play, given the locked buffer.
        progress: see `collect`.

    Returns:
        The buffer, open for reading.
    """
    with (
        _player(recipe, *at_once, episodes) as player,
        _removed_if_empty(writer(), new=not append) as buffer,
    ):
        for episode in player.play(choose_seeds(buffer)):
            with naming_episode(f"episode with seed {episode.seed} of {recipe.env.spec.id}"):
                buffer.add_episode(
                    episode.frames,
                    episode.actions,
                    episode.rewards,
                    episode.terminated,
                    states=episode.states,
                    seed=episode.seed,
                )
            if progress is not None:
                progress(buffer.num_episodes)
    return ReplayBuffer.open(buffer.path)


@contextmanager
def _removed_if_empty(buffer: ReplayBuffer, new: bool) -> Iterator[ReplayBuffer]:
    """Close a buffer; remove a new one if collecting fails before its first episode is complete."""
    try:
        with buffer:
            yield buffer
    except BaseException:
        if new and not len(buffer):
            shutil.rmtree(buffer.path)
        raise


@contextmanager
def _player(
    recipe: Recipe,
    num_envs: int | None,
    workers: int | None,
    episodes: int,
    options: dict[str, Any] | None = None,
) -> Iterator[Rollout]:
    """Make the environments and bind the policy, before any file is written."""
    if num_envs is not None and num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}; expected at least 1")
    envs, source = _make_envs(recipe, num_envs, workers, episodes)
    try:
        start = recipe.policy.bind(
            envs.single_action_space, envs.single_observation_space, recipe.steps
        )
        frame_input = recipe.policy.frame_input
        yield Rollout(
            envs,
            source,
            start,
            recipe.steps,
            recipe.state_key,
            recipe.state_dim,
            options,
            None if frame_input is None else FrameStack(frame_input[1]),
        )
    finally:
        envs.close()


def _make_envs(
    recipe: Recipe, num_envs: int | None, workers: int | None, episodes: int
) -> tuple[gym.vector.VectorEnv[Any, Any, Any], FrameSource]:
    """Make the environments, in this process or in workers, and what takes their frames."""
    source = recipe.env.source
    processes = choose_workers(recipe, episodes, workers, num_envs)
    if processes > 1:
        try:
            return WorkerEnvs(recipe, processes), TakenFrames(source.kind, source.shape)
        except Exception as error:
            if workers is not None and not isinstance(error, pickle.PicklingError):
                raise
    if num_envs is None:
        num_envs = NATIVE_BATCH if recipe.env.native else 1
    rounds = math.ceil(episodes / num_envs)
    return recipe.make(math.ceil(episodes / rounds)), source


def _writer(
    path: str | Path, recipe: Recipe, append: bool, compression: Compression
) -> ReplayBuffer:
    """Open the buffer to fill: a new one, or an existing one of the same recipe."""
    if not append:
        return ReplayBuffer.create(
            path,
            frame_shape=recipe.env.source.shape,
            frame_dtype=recipe.env.source.dtype.name,
            action_space=recipe.env.action_space,
            state_dim=recipe.state_dim,
            metadata=recipe.metadata(),
            compression=compression,
        )
    buffer = ReplayBuffer.open(path, append=True)
    try:
        _require_same(buffer, recipe)
    except ReplayBufferError:
        buffer.close()
        raise
    return buffer


def checked_seeds(seeds: Sequence[int], episodes: int) -> list[int]:
    """Return the first `episodes` seeds, or raise ValueError if they are not valid."""
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; expected at least 1")
    wanted = [int(seed) for seed in seeds[:episodes]]
    if len(wanted) < episodes:
        raise ValueError(f"{episodes} episodes need as many seeds, got {len(wanted)}")
    if len(set(wanted)) < episodes or min(wanted) < 0:
        raise ValueError("seeds must be different from each other, and 0 or more")
    return wanted


def _require_same(buffer: ReplayBuffer, recipe: Recipe) -> None:
    different = differences(buffer.metadata, recipe.metadata())
    if different:
        raise ReplayBufferError(
            f"{buffer.path} was collected in another way ({'; '.join(different)}); pass another "
            "path, or the same settings"
        )


def _missing(buffer: ReplayBuffer, wanted: Sequence[int]) -> list[int]:
    """Return wanted seeds that the buffer lacks, in order.

    Raises:
        ReplayBufferError: If it holds other seeds.
    """
    others = np.setdiff1d(buffer.seeds, wanted)
    if len(others):
        raise ReplayBufferError(
            f"{buffer.path} holds {len(others)} episodes with other seeds than the given ones, "
            f"the first with seed {others[0]}; pass another path, or seeds that include them"
        )
    stored = np.isin(wanted, buffer.seeds).tolist()
    return [seed for seed, is_stored in zip(wanted, stored, strict=True) if not is_stored]
