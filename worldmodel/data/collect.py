"""Collect episodes from any Gymnasium environment into a replay buffer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.environments import NATIVE_BATCH
from worldmodel.data.episode_log import LOCK_FILE
from worldmodel.data.errors import ReplayBufferError
from worldmodel.data.header import HEADER_FILE
from worldmodel.data.policies import Policy
from worldmodel.data.recipe import STATE_KEY, Recipe, differences, resolve
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode, Rollout


def collect(
    env_id: str,
    path: str | Path,
    *,
    episodes: int,
    seeds: Sequence[int],
    steps: int,
    policy: str | Path | Policy = "passive",
    num_envs: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    image_size: int = 64,
    observation: str = "auto",
    state_key: str = STATE_KEY,
    append: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ReplayBuffer:
    """Play episodes and store them, each complete one at once.

    Episode i is reset with ``seeds[i]`` and its policy draws from that seed too, so the buffer
    holds the same bytes whatever ``num_envs`` is. Episodes are stored in the order of the seeds.

    Args:
        env_id: a registered environment, ``"module:id"`` to import the module first.
        path: the buffer's directory.
        episodes: how many.
        seeds: at least as many different seeds, 0 or more; the first ``episodes`` are used.
        steps: longest episode; the environment may end one earlier.
        policy: ``"passive"`` (zero action), ``"random"`` (uniform actions, each held for 1 to 8
            steps), ``"mixed"`` (each episode one of the two, by chance), the path of an agent
            saved by Stable-Baselines3, or a `Policy`.
        num_envs: environments played at once; 32 if the environment has a batched form of its
            own, else 1. More cost memory: each keeps an episode until it is complete.
        env_kwargs: passed to the environment; JSON values.
        image_size: side of stored images. Passed to an environment that takes ``image_size``;
            images of other environments are resized.
        observation: ``"image"`` (the environment's own uint8 image), ``"render"`` (its
            ``rgb_array`` rendering), ``"vector"`` (a 1-D observation, float32), or ``"auto"``:
            the first of these that it offers. Of stacked observations the newest is stored.
        state_key: where ``info`` tells the true state, a number or a vector of numbers, stored
            beside each frame for evaluation. The default may be missing.
        append: add to an existing buffer that was collected in the same way.
        progress: called after each episode with the number of episodes in the buffer.

    Returns:
        The buffer, open for reading.

    Raises:
        ReplayBufferError: if the path holds something else, other data, or some of the seeds.
        ValueError: if arguments do not fit the environment or each other.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> env_id = "worldmodel:DoublePendulumPixels-v0"
        >>> buffer = collect(env_id, folder.name, episodes=4, seeds=range(4), steps=10)
        >>> buffer.num_frames, buffer.frame_shape, buffer.state_dim
        (44, (64, 64, 3), 4)
        >>> folder.cleanup()
    """
    wanted = _checked_seeds(seeds, episodes)
    recipe = resolve(
        env_id,
        env_kwargs,
        policy=policy,
        steps=steps,
        image_size=image_size,
        observation=observation,
        state_key=state_key,
    )
    with (
        _player(recipe, num_envs, len(wanted)) as player,
        _writer(path, recipe, append) as buffer,
    ):
        stored = np.intersect1d(buffer.seeds, wanted)
        if len(stored):
            raise ReplayBufferError(
                f"{path} already holds {len(stored)} of the {episodes} seeds, among them "
                f"{stored[0]}; pass other seeds, or use `load_or_collect` to add missing ones"
            )
        _fill(buffer, player, wanted, progress)
    return ReplayBuffer.open(path)


def load_or_collect(
    env_id: str,
    path: str | Path,
    *,
    episodes: int,
    seeds: Sequence[int],
    steps: int,
    policy: str | Path | Policy = "passive",
    num_envs: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    image_size: int = 64,
    observation: str = "auto",
    state_key: str = STATE_KEY,
    progress: Callable[[int], None] | None = None,
) -> ReplayBuffer:
    """Open the data that `collect` would make, collecting only the episodes that are missing.

    A buffer that an interrupted collection left is completed; a complete one is only opened.

    Args:
        env_id: see `collect`, as for all arguments.

    Returns:
        The buffer, open for reading, with exactly the wanted seeds.

    Raises:
        ReplayBufferError: if the path holds something else, data collected in another way, or
            seeds that are not wanted. Nothing is changed then.
        ValueError: if arguments do not fit the environment or each other.
    """
    wanted = _checked_seeds(seeds, episodes)
    recipe = resolve(
        env_id,
        env_kwargs,
        policy=policy,
        steps=steps,
        image_size=image_size,
        observation=observation,
        state_key=state_key,
    )
    missing, begun = wanted, _is_begun(path)
    if begun:
        buffer = ReplayBuffer.open(path)
        _require_same(buffer, recipe)
        missing = _missing(buffer, wanted)
        if not missing:
            return buffer
        buffer.close()
    with (
        _player(recipe, num_envs, len(missing)) as player,
        _writer(path, recipe, append=begun) as buffer,
    ):
        _fill(buffer, player, _missing(buffer, wanted), progress)
    return ReplayBuffer.open(path)


def _writer(path: str | Path, recipe: Recipe, append: bool) -> ReplayBuffer:
    """The buffer to fill: a new one, or an existing one of the same recipe."""
    if not append:
        return ReplayBuffer.create(
            path,
            frame_shape=recipe.source.shape,
            frame_dtype=recipe.source.dtype.name,
            action_space=recipe.action_space,
            state_dim=recipe.state_dim,
            metadata=recipe.metadata(),
        )
    buffer = ReplayBuffer.open(path, append=True)
    try:
        _require_same(buffer, recipe)
    except ReplayBufferError:
        buffer.close()
        raise
    return buffer


def play_episode(recipe: Recipe, seed: int, options: dict[str, Any] | None = None) -> Episode:
    """Play one episode without storing it.

    Args:
        recipe: from `resolve`.
        seed: of the environment and of the policy.
        options: for the environment's reset, as ``{"state": [...]}``.
    """
    with _player(recipe, 1, 1, options) as player:
        return next(player.play([seed]))


@contextmanager
def _player(
    recipe: Recipe, num_envs: int | None, episodes: int, options: dict[str, Any] | None = None
) -> Iterator[Rollout]:
    """The environments with someone to act in them, checked before any file is made."""
    if num_envs is None:
        num_envs = NATIVE_BATCH if recipe.native else 1
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}; expected at least 1")
    rounds = math.ceil(episodes / num_envs)
    envs = recipe.make(math.ceil(episodes / rounds))
    try:
        start = recipe.policy.bind(
            envs.single_action_space, envs.single_observation_space, recipe.steps
        )
        state = recipe.state_key, recipe.state_dim
        shown = 0 if recipe.policy.sees is None else recipe.policy.sees[1]
        yield Rollout(envs, recipe.source, start, recipe.steps, *state, options, shown)
    finally:
        envs.close()


def _fill(
    buffer: ReplayBuffer,
    player: Rollout,
    seeds: Sequence[int],
    progress: Callable[[int], None] | None,
) -> None:
    """Play one episode a seed and add it."""
    for episode in player.play(seeds):
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


def _checked_seeds(seeds: Sequence[int], episodes: int) -> list[int]:
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; expected at least 1")
    wanted = [int(seed) for seed in seeds[:episodes]]
    if len(wanted) < episodes:
        raise ValueError(f"{episodes} episodes need as many seeds, got {len(wanted)}")
    if len(set(wanted)) < episodes or min(wanted) < 0:
        raise ValueError("seeds must be different from each other, and 0 or more")
    return wanted


def _is_begun(path: str | Path) -> bool:
    """Whether the directory holds more than what an interrupted `create` may leave."""
    names = {entry.name for entry in Path(path).iterdir()} if Path(path).is_dir() else set()
    return bool(names - {LOCK_FILE, HEADER_FILE + ".tmp"})


def _require_same(buffer: ReplayBuffer, recipe: Recipe) -> None:
    different = differences(buffer.metadata, recipe.metadata())
    if different:
        raise ReplayBufferError(
            f"{buffer.path} was collected in another way ({'; '.join(different)}); pass another "
            "path, or the same settings"
        )


def _missing(buffer: ReplayBuffer, wanted: Sequence[int]) -> list[int]:
    """Wanted seeds that the buffer lacks, in order.

    Raises:
        ReplayBufferError: if it holds others.
    """
    stored = set(buffer.seeds.tolist())
    unwanted = sorted(stored - set(wanted))
    if unwanted:
        raise ReplayBufferError(
            f"{buffer.path} holds {len(unwanted)} episodes that are not wanted, the first with "
            f"seed {unwanted[0]}; pass another path, or seeds that include them"
        )
    return [seed for seed in wanted if seed not in stored]
