"""Rollouts: episodes in a batch of environments, each from its own seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import iterate

from worldmodel.data.frames import FrameSource, FrameStack
from worldmodel.data.policies import Actor, ActorFactory
from worldmodel.user_code import in_user_code


class Episode(NamedTuple):
    """One episode of T transitions, as `ReplayBuffer.add_episode` takes it."""

    seed: int
    frames: np.ndarray  # (T+1, *frame_shape)
    actions: np.ndarray  # (T, *action_shape)
    rewards: np.ndarray  # float32 (T,)
    terminated: bool
    states: np.ndarray | None  # float64 (T+1, state_dim)


class Rollout:
    """Plays episodes in N environments; whichever is free takes the next one in the queue.

    An environment is reset, by mask, with the seed of its episode. When the queue is empty, a free
    environment is stepped on unrecorded until the others finish.

    Args:
        envs: the environments, with autoreset disabled.
        source: takes the frames.
        start: makes an actor from an episode's seed.
        steps: longest episode.
        state_key: key of ``info`` with the true state.
        state_dim: length of that state, 0 to store none.
        options: passed to every reset.
        stack: stacks stored frames as the actors' observations; None for the environment's own.
    """

    def __init__(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        source: FrameSource,
        start: ActorFactory,
        steps: int,
        state_key: str,
        state_dim: int,
        options: dict[str, Any] | None = None,
        stack: FrameStack | None = None,
    ) -> None:
        n, space = envs.num_envs, envs.single_action_space
        self._envs, self._source, self._start, self._steps = envs, source, start, steps
        self._state_key = state_key
        self._options = options or {}
        self._stack = stack
        self._frames = np.empty((n, steps + 1, *source.shape), source.dtype)
        self._actions = np.empty((n, steps, *(space.shape or ())), space.dtype)
        self._rewards = np.empty((n, steps), np.float32)
        self._states = np.empty((n, steps + 1, state_dim)) if state_dim else None
        self._time = np.zeros(n, np.int64)
        self._episode = np.full(n, -1)  # position in the list of seeds, -1 while not recording
        self._actors: list[Actor] = [lambda t, observation: space.sample()] * n
        self._observations: Any = None

    def play(self, seeds: Sequence[int]) -> Iterator[Episode]:
        """Play one episode per seed.

        Yields:
            The episodes in the order of the seeds. The arrays of one are valid until the next.
        """
        finished: dict[int, Episode] = {}  # waiting for one with an earlier seed
        wanted, queued = 0, 0
        ended = np.ones(self._envs.num_envs, bool)
        while wanted < len(seeds):
            if ended.any():
                queued = self._reset(np.flatnonzero(ended), seeds, queued)
            ended, terminated = self._step(seeds)
            for i in np.flatnonzero(ended & (self._episode >= 0)).tolist():
                episode = self._recorded(i, seeds, bool(terminated[i]))
                if self._episode[i] == wanted:
                    yield episode
                    wanted += 1
                else:
                    finished[int(self._episode[i])] = _copied(episode)
                while wanted in finished:
                    yield finished.pop(wanted)
                    wanted += 1

    def _reset(self, which: np.ndarray, seeds: Sequence[int], queued: int) -> int:
        """Reset some environments to the next episodes; returns the next one in the queue."""
        n = self._envs.num_envs
        mask = np.zeros(n, bool)
        mask[which] = True
        reset_seeds: Any = [None] * n  # VectorEnv.reset takes a list, though typed for one int
        self._time[which] = 0
        for i in which:
            self._episode[i] = queued if queued < len(seeds) else -1
            if queued < len(seeds):
                reset_seeds[i] = seeds[queued]
                with in_user_code(f"the policy, before the episode with seed {seeds[queued]}"):
                    self._actors[i] = self._start(seeds[queued])
                queued += 1
        options = self._options | ({} if mask.all() else {"reset_mask": mask})
        self._observations, info = self._envs.reset(seed=reset_seeds, options=options or None)
        self._record(which, info)
        return queued

    def _step(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Step all environments; returns which episodes ended and which terminated, bool (N,)."""
        n = np.arange(self._envs.num_envs)
        with in_user_code("the policy"):
            chosen = [
                actor(int(t), observation)
                for actor, t, observation in zip(self._actors, self._time, self._shown())
            ]
        self._require_valid(chosen, seeds)
        actions = np.stack(chosen)
        self._observations, rewards, terminated, truncated, info = self._envs.step(actions)
        self._actions[n, self._time] = actions
        self._rewards[n, self._time] = rewards
        self._time += 1
        self._record(n, info)
        return terminated | truncated | (self._time == self._steps), terminated

    def _require_valid(self, actions: Sequence[Any], seeds: Sequence[int]) -> None:
        """Raise ValueError if the policy chose an action outside the action space."""
        space = self._envs.single_action_space
        for action, episode in zip(actions, self._episode):
            if not _fits(action, space):
                where = f" in the episode with seed {seeds[episode]}" if episode >= 0 else ""
                raise ValueError(
                    f"the policy chose the action {action!r}{where}; expected an element of {space}"
                )

    def _shown(self) -> Iterable[Any]:
        """Return the observation for each environment's actor."""
        stack = self._stack
        if stack is None and self._observations is None:  # workers keep those that nobody sees
            return repeat(None, self._envs.num_envs)
        if stack is None:
            return iterate(self._envs.observation_space, self._observations)
        return (
            stack.join(frames[np.maximum(np.arange(t - stack.first, t + 1), 0)])
            for frames, t in zip(self._frames, self._time)
        )

    def _record(self, which: np.ndarray, info: dict[str, Any]) -> None:
        """Store the newest frame and state of those environments that record."""
        which = which[self._episode[which] >= 0]
        if not len(which):
            return
        times = self._time[which]
        self._frames[which, times] = self._source(self._envs.render, self._observations, which)
        if self._states is not None:
            states = np.asarray(info[self._state_key])[which]
            self._states[which, times] = states.reshape(len(which), -1)

    def _recorded(self, i: int, seeds: Sequence[int], terminated: bool) -> Episode:
        steps = int(self._time[i])
        return Episode(
            seed=seeds[self._episode[i]],
            frames=self._frames[i, : steps + 1],
            actions=self._actions[i, :steps],
            rewards=self._rewards[i, :steps],
            terminated=terminated,
            states=None if self._states is None else self._states[i, : steps + 1],
        )


def _fits(action: Any, space: gym.Space[Any]) -> bool:
    """Check whether an action has the shape of a space and, if discrete, is one of its numbers."""
    value = np.asarray(action)
    if value.shape != space.shape:
        return False
    if not isinstance(space, gym.spaces.Discrete):
        return True
    return value.dtype.kind in "iu" and bool(space.start <= value < space.start + space.n)


def _copied(episode: Episode) -> Episode:
    fields = episode._asdict()
    copies = {n: value.copy() for n, value in fields.items() if isinstance(value, np.ndarray)}
    return Episode(**fields | copies)
