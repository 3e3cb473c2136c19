"""Play episodes in a batch of environments, each from its own seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import iterate

from worldmodel.data.observe import FrameSource
from worldmodel.data.policies import Actor, ActorFactory


class Episode(NamedTuple):
    """One episode of T transitions, as `ReplayBuffer.add_episode` takes it."""

    seed: int
    frames: np.ndarray  # (T+1, *frame_shape)
    actions: np.ndarray  # (T, *action_shape)
    rewards: np.ndarray  # (T,)
    terminated: bool
    states: np.ndarray | None  # (T+1, state_dim)


class Rollout:
    """N environments, each playing the next episode that waits.

    Every environment is reset by mask with its episode's seed. One whose turn has come when no
    episode waits plays on unrecorded.

    Args:
        envs: the environments, with autoreset disabled.
        source: takes the frames.
        start: makes an actor from an episode's seed.
        steps: longest episode.
        state_key: of ``info``, where the true state is.
        state_dim: length of that state, 0 to leave it.
        options: passed to every reset.
        frame_stack: newest stored frames that actors are given, joined on the last axis, oldest
            first; 0 for the environment's own observations.
    """

    def __init__(
        self,
        envs: gym.vector.VectorEnv,
        source: FrameSource,
        start: ActorFactory,
        steps: int,
        state_key: str,
        state_dim: int,
        options: dict[str, Any] | None = None,
        frame_stack: int = 0,
    ) -> None:
        n, space = envs.num_envs, envs.single_action_space
        self._envs, self._source, self._start, self._steps = envs, source, start, steps
        self._state_key = state_key
        self._options = options or {}
        self._frame_stack = frame_stack
        self._frames = np.empty((n, steps + 1, *source.shape), source.dtype)
        self._actions = np.empty((n, steps, *(space.shape or ())), space.dtype)
        self._rewards = np.empty((n, steps), np.float32)
        self._states = np.empty((n, steps + 1, state_dim)) if state_dim else None
        self._time = np.zeros(n, np.int64)
        self._episode = np.full(n, -1)  # position in the list of seeds, -1 while not recording
        self._actors: list[Actor] = [lambda t, observation: space.sample()] * n
        self._observations: Any = None

    def play(self, seeds: Sequence[int]) -> Iterator[Episode]:
        """Play one episode a seed and yield them in the order of the seeds.

        An episode's arrays are valid until the next one is asked for.
        """
        ready: dict[int, Episode] = {}
        wanted, waiting = 0, 0
        ended = np.ones(self._envs.num_envs, bool)
        while wanted < len(seeds):
            if ended.any():
                waiting = self._begin(np.flatnonzero(ended), seeds, waiting)
            ended, terminated = self._step()
            for i in np.flatnonzero(ended & (self._episode >= 0)).tolist():
                episode = self._recorded(i, seeds, bool(terminated[i]))
                if self._episode[i] == wanted:
                    yield episode
                    wanted += 1
                else:
                    ready[int(self._episode[i])] = _copied(episode)
                while wanted in ready:
                    yield ready.pop(wanted)
                    wanted += 1

    def _begin(self, which: np.ndarray, seeds: Sequence[int], waiting: int) -> int:
        """Reset some environments to the next episodes; returns the next that waits."""
        n = self._envs.num_envs
        mask = np.zeros(n, bool)
        mask[which] = True
        reset_seeds: Any = [None] * n  # VectorEnv.reset takes a list, though typed for one int
        self._time[which] = 0
        for i in which:
            self._episode[i] = waiting if waiting < len(seeds) else -1
            if waiting < len(seeds):
                reset_seeds[i] = seeds[waiting]
                self._actors[i] = self._start(seeds[waiting])
                waiting += 1
        options = self._options | ({} if mask.all() else {"reset_mask": mask})
        self._observations, info = self._envs.reset(seed=reset_seeds, options=options or None)
        self._record(which, info)
        return waiting

    def _step(self) -> tuple[np.ndarray, np.ndarray]:
        """Step all environments; which episodes ended, and which by termination, (N,) bool."""
        n = np.arange(self._envs.num_envs)
        actions = np.stack(
            [
                actor(int(t), observation)
                for actor, t, observation in zip(self._actors, self._time, self._shown())
            ]
        )
        self._observations, rewards, terminated, truncated, info = self._envs.step(actions)
        self._actions[n, self._time] = actions
        self._rewards[n, self._time] = rewards
        self._time += 1
        self._record(n, info)
        return terminated | truncated | (self._time == self._steps), terminated

    def _shown(self) -> Iterable[Any]:
        """What each environment's actor is given."""
        if not self._frame_stack:
            return iterate(self._envs.observation_space, self._observations)
        back = np.arange(self._frame_stack - 1, -1, -1)
        return (
            np.concatenate(frames[np.maximum(t - back, 0)], axis=-1)
            for frames, t in zip(self._frames, self._time)
        )

    def _record(self, which: np.ndarray, info: dict[str, Any]) -> None:
        """Store the newest frame and state of the environments that record."""
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


def _copied(episode: Episode) -> Episode:
    return episode._replace(
        frames=episode.frames.copy(),
        actions=episode.actions.copy(),
        rewards=episode.rewards.copy(),
        states=None if episode.states is None else episode.states.copy(),
    )
