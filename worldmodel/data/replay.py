"""The replay buffer: episodes on disk, read as windows of consecutive frames.

A buffer is a directory::

    header.json   shapes, dtypes, action space, metadata
    frames.bin    every frame once, uint8 or float32, episode after episode
    actions.bin   one row per transition
    rewards.bin   one row per transition
    states.bin    one row per frame, if the environment reports its true state
    index.bin     one checksummed record per episode, written last
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.header import Header, episode_rows, lock_for_writing
from worldmodel.data.storage import EpisodeLog
from worldmodel.data.windows import (
    Indices,
    Windows,
    aligned_empty,
    as_indices,
    check_out,
    one_start_each,
    require_length,
    uniform_starts,
)


class ReplayBuffer:
    """Episodes on disk, read as windows that never cross the end of an episode.

    Make one with `create` or `open`. One process may append at a time; any number may read, and
    each sees the episodes that were complete when it opened the buffer.

    Example:
        >>> import tempfile, gymnasium as gym, numpy as np
        >>> folder = tempfile.TemporaryDirectory()
        >>> with ReplayBuffer.create(
        ...     folder.name, frame_shape=(8, 8, 3), action_space=gym.spaces.Discrete(2), metadata={}
        ... ) as buffer:
        ...     buffer.add_episode(
        ...         np.zeros((6, 8, 8, 3), np.uint8), np.zeros(5, int), np.ones(5), True, seed=0
        ...     )
        >>> buffer = ReplayBuffer.open(folder.name)
        >>> buffer.sample(4, 3, np.random.default_rng(0)).frames.shape
        (4, 3, 8, 8, 3)
        >>> folder.cleanup()
    """

    def __init__(self, path: Path, header: Header, log: EpisodeLog) -> None:
        self.path = path
        self._header = header
        self._log = log

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        frame_shape: tuple[int, ...],
        frame_dtype: str = "uint8",
        action_space: gym.Space[Any],
        state_dim: int = 0,
        metadata: dict[str, Any],
    ) -> ReplayBuffer:
        """Create an empty buffer, open for appending.

        Args:
            path: a directory that does not exist yet, or is empty.
            frame_shape: shape of one frame, ``(H, W, C)`` or ``(N,)``.
            frame_dtype: ``"uint8"`` for images, ``"float32"`` for vectors.
            action_space: ``Box`` (actions are stored flat, float32) or ``Discrete`` (int64).
            state_dim: length of the true state stored beside each frame, 0 for none.
            metadata: how the data is collected, JSON values only; compared before it is reused.

        Raises:
            ReplayBufferError: If the directory holds anything, or another process writes there.
            ValueError: If a shape, dtype, space or the metadata cannot be stored.
        """
        header = Header(tuple(frame_shape), str(frame_dtype), action_space, state_dim, metadata)
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = lock_for_writing(path, new=True)
        try:
            header.write(path)
            return cls(path, header, EpisodeLog(path, header, lock))
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: str | Path, *, append: bool = False) -> ReplayBuffer:
        """Open a buffer for reading, or also for appending.

        Raises:
            ReplayBufferError: If there is no buffer, if it is damaged or of a newer format, or if
                `append` is set while another process writes.
        """
        path = Path(path)
        header = Header.read(path)
        lock = lock_for_writing(path) if append else None
        try:
            return cls(path, header, EpisodeLog(path, header, lock))
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return self._header.frame_shape

    @property
    def frame_dtype(self) -> np.dtype:
        """``uint8`` for images, ``float32`` for vectors."""
        return np.dtype(self._header.frame_dtype)

    @property
    def action_space(self) -> gym.Space[Any]:
        """The space of the actions."""
        return self._header.action_space

    @property
    def state_dim(self) -> int:
        """Length of the true state stored beside each frame, 0 if none is."""
        return self._header.state_dim

    @property
    def metadata(self) -> dict[str, Any]:
        """How the data was collected."""
        return self._header.metadata

    @property
    def num_episodes(self) -> int:
        """Complete episodes."""
        return len(self._log.episodes)

    @property
    def num_frames(self) -> int:
        """Frames in all episodes."""
        return self._log.episodes.num_frames

    @property
    def num_transitions(self) -> int:
        """Transitions in all episodes: one less than frames in each."""
        return self.num_frames - self.num_episodes

    @property
    def lengths(self) -> np.ndarray:
        """Frames per episode, int64 (E,), read-only."""
        return self._log.episodes.lengths

    @property
    def seeds(self) -> np.ndarray:
        """Seed each episode was reset with, int64 (E,), read-only; -1 where unknown."""
        return self._log.episodes.seeds

    @property
    def terminated(self) -> np.ndarray:
        """Whether each episode ended by termination, bool (E,), read-only."""
        return self._log.episodes.terminated

    def __len__(self) -> int:
        return self.num_episodes

    def __repr__(self) -> str:
        return (
            f"ReplayBuffer({str(self.path)!r}, episodes={self.num_episodes}, "
            f"frames={self.num_frames}, frame_shape={self.frame_shape}, "
            f"frame_dtype={self.frame_dtype}, action_space={self.action_space})"
        )

    def __enter__(self) -> ReplayBuffer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def add_episode(
        self,
        frames: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        terminated: bool,
        *,
        states: np.ndarray | None = None,
        seed: int | None = None,
    ) -> None:
        """Append one complete episode of T transitions.

        Args:
            frames: ``(T+1, *frame_shape)`` of `frame_dtype`.
            actions: ``(T, *action_space.shape)``.
            rewards: ``(T,)``.
            terminated: whether the last step ended the episode by termination.
            states: ``(T+1, state_dim)``, stored as float64; None if `state_dim` is 0.
            seed: the seed the episode was reset with, if known.

        Raises:
            ValueError: If a shape, dtype or value does not fit; nothing is written.
            ReplayBufferError: If the disk is full or the buffer is open for reading only. Earlier
                episodes stay intact, and this one can be added again.
        """
        if seed is not None and not 0 <= seed < 2**63:
            raise ValueError(f"seed is {seed}; expected 0 to 2**63 - 1, or None where unknown")
        rows = episode_rows(self._header, frames, actions, rewards, states)
        self._log.append(rows, -1 if seed is None else int(seed), bool(terminated))

    def flush(self) -> None:
        """Force all episodes to the disk, so that they also survive a power cut.

        Runs every 256 MiB and in `close`. A killed process loses no complete episode without it.

        Raises:
            ReplayBufferError: If the disk is full, or the buffer is open for reading only.
        """
        self._log.flush()

    def close(self) -> None:
        """Flush, then release the files and the lock. Closing twice is fine."""
        self._log.close()

    def windows(
        self, episodes: Indices, starts: Indices, length: int, out: Windows | None = None
    ) -> Windows:
        """Read given windows.

        Args:
            episodes: (B,) episode of each window.
            starts: (B,) first frame of each window within its episode.
            length: frames per window, L.
            out: arrays to fill, from `empty_windows`; None allocates.

        Returns:
            The windows, each array with B and L (or L-1) in front.

        Raises:
            ValueError: If an episode does not exist, a window crosses the end of its episode, or
                `out` does not fit.
        """
        return self._read(*self._validated_windows(episodes, starts, length), length, out)

    def sample(
        self,
        batch_size: int,
        length: int,
        rng: np.random.Generator,
        episodes: Indices | None = None,
        out: Windows | None = None,
    ) -> Windows:
        """Draw windows uniformly from all that fit, with replacement.

        Args:
            batch_size: windows to draw, B.
            length: frames per window, L.
            rng: random generator.
            episodes: (E',) episodes to draw from; None for all.
            out: arrays to fill, from `empty_windows`; None allocates.

        Raises:
            ValueError: If no window of that length fits, or an argument is out of range.
        """
        require_length(length)
        chosen = None if episodes is None else self._validated_episodes(episodes)
        lengths = self.lengths if chosen is None else self.lengths[chosen]
        which, starts = uniform_starts(lengths, length, batch_size, rng)
        return self._read(which if chosen is None else chosen[which], starts, length, out)

    def episode_windows(
        self,
        episodes: Indices,
        length: int,
        rng: np.random.Generator,
        out: Windows | None = None,
    ) -> Windows:
        """Draw one window from each given episode, uniformly over that episode's valid starts.

        Args:
            episodes: (B,) episodes, each at least `length` frames long; see
                `episodes_of_at_least`.
            length: frames per window, L.
            rng: random generator.
            out: arrays to fill, from `empty_windows`; None allocates.

        Raises:
            ValueError: If an episode is shorter than `length`, or an argument is out of range.
        """
        require_length(length)
        chosen = self._validated_episodes(episodes)
        return self._read(chosen, one_start_each(self.lengths[chosen], length, rng), length, out)

    def episodes_of_at_least(self, length: int) -> np.ndarray:
        """Episodes long enough for a window of `length` frames, int64 (E',), ascending."""
        return np.flatnonzero(self.lengths >= length)

    def actions(self, episodes: Indices, starts: Indices, length: int) -> np.ndarray:
        """Read only the actions of given windows, (B, L-1, *action_shape); see `windows`."""
        episodes, starts = self._validated_windows(episodes, starts, length)
        out = np.empty(*self._window_layout(len(episodes), length)["actions"])
        first = self._log.episodes.starts[episodes] + starts - episodes
        self._gather("actions", first, length - 1, out)
        return out

    def states(self, episodes: Indices, starts: Indices, length: int) -> np.ndarray:
        """Read the true states of given windows. For evaluation only: nothing may train on them.

        Args:
            episodes: (B,) episode of each window.
            starts: (B,) first frame of each window within its episode.
            length: frames per window, L.

        Returns:
            (B, L, state_dim) float64.

        Raises:
            ValueError: If no states are stored, or a window crosses the end of its episode.
        """
        if not self.state_dim:
            raise ValueError(
                f"{self.path} stores no states: its environment reported none under state_key"
            )
        episodes, starts = self._validated_windows(episodes, starts, length)
        out = np.empty((len(episodes), length, self.state_dim))
        self._gather("states", self._log.episodes.starts[episodes] + starts, length, out)
        return out

    def empty_windows(self, batch_size: int, length: int) -> Windows:
        """Allocate arrays to pass as `out` again and again."""
        layout = self._window_layout(batch_size, length)
        return Windows(*(aligned_empty(shape, dtype) for shape, dtype in layout.values()))

    def _window_layout(
        self, batch_size: int, length: int
    ) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        require_length(length)
        steps = (batch_size, length - 1)
        return {
            "frames": ((batch_size, length, *self.frame_shape), self.frame_dtype),
            "actions": ((*steps, *self._header.action_shape), self._header.action_dtype),
            "rewards": (steps, np.dtype(np.float32)),
            "terminated": (steps, np.dtype(bool)),
        }

    def _read(
        self, episodes: np.ndarray, starts: np.ndarray, length: int, out: Windows | None
    ) -> Windows:
        if out is None:
            out = self.empty_windows(len(episodes), length)
        else:
            check_out(out, self._window_layout(len(episodes), length))
        table = self._log.episodes
        first_frame = table.starts[episodes] + starts
        self._gather("frames", first_frame, length, out.frames)
        self._gather("actions", first_frame - episodes, length - 1, out.actions)
        self._gather("rewards", first_frame - episodes, length - 1, out.rewards)
        out.terminated[...] = False
        if length > 1:
            reaches_end = starts + length == table.lengths[episodes]
            out.terminated[:, -1] = reaches_end & table.terminated[episodes]
        return out

    def _gather(self, name: str, first: np.ndarray, length: int, out: np.ndarray) -> None:
        """Copy `length` rows from each first row (B,) into `out` (B, length, ...)."""
        rows = self._log.rows(name)
        if out.size:
            # The rows are valid; with mode="clip" NumPy copies straight into `out`.
            np.take(rows, first[:, None] + np.arange(length), axis=0, out=out, mode="clip")

    def _validated_episodes(self, episodes: Indices) -> np.ndarray:
        chosen = as_indices("episodes", episodes)
        outside = chosen[(chosen < 0) | (chosen >= self.num_episodes)]
        if len(outside):
            raise ValueError(
                f"episode {outside[0]} does not exist; {self.path} has episodes 0 to "
                f"{self.num_episodes - 1}"
            )
        return chosen

    def _validated_windows(
        self, episodes: Indices, starts: Indices, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        require_length(length)
        chosen, first = self._validated_episodes(episodes), as_indices("starts", starts)
        if len(chosen) != len(first):
            raise ValueError(f"{len(chosen)} episodes but {len(first)} starts; expected as many")
        outside = (first < 0) | (first + length > self.lengths[chosen])
        if outside.any():
            i = np.argmax(outside)
            raise ValueError(
                f"window {i} takes frames {first[i]} to {first[i] + length - 1} of episode "
                f"{chosen[i]}, which has frames 0 to {self.lengths[chosen[i]] - 1}"
            )
        return chosen, first
