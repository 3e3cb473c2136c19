"""The replay buffer: episodes on disk, read as windows of consecutive frames.

A buffer is a directory::

    header.json   shapes, dtypes, action space, metadata
    frames.bin    every frame once, uint8 or float32, episode after episode, compressed or not
    offsets.bin   end of each frame in frames.bin, in compressed buffers only
    actions.bin   one row per transition
    rewards.bin   one row per transition
    states.bin    one row per frame, if the environment reports its true state
    index.bin     one checksummed record per episode, written last
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.header import Header, episode_rows, lock_for_writing
from worldmodel.data.index import EpisodeTable
from worldmodel.data.shards import Manifest, ShardedLog, directories, open_shards
from worldmodel.data.storage import EpisodeLog
from worldmodel.data.windows import Indices, WindowReader, as_indices, existing_episodes
from worldmodel.errors import ReplayBufferError
from worldmodel.hyperparameters import Compression


class ReplayBuffer(WindowReader):
    """Episodes on disk, read as windows that never cross the end of an episode.

    Make one with `create` or `open`. One process may append at a time; any number may read, and
    each sees the episodes that were complete when it opened the buffer.

    Attributes:
        path: its directory; the common parent if it was opened from several directories.
        parts: the directories that it was opened from.

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

    def __init__(
        self,
        path: Path,
        header: Header,
        log: EpisodeLog | ShardedLog,
        view: EpisodeTable | None = None,
        parts: Sequence[Path] = (),
    ) -> None:
        self.path = path
        self.parts = list(parts) or [path]
        self._header = header
        self._log = log
        self._view = view

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
        compression: Compression = "none",
    ) -> ReplayBuffer:
        """Create an empty buffer, open for appending.

        Args:
            path: a directory that does not exist yet, or is empty.
            frame_shape: shape of one frame, ``(H, W, C)`` or ``(N,)``.
            frame_dtype: ``"uint8"`` for images, ``"float32"`` for vectors.
            action_space: ``Box`` (actions are stored flat, float32) or ``Discrete`` (int64).
            state_dim: length of the true state stored beside each frame, 0 for none.
            metadata: how the data is collected, JSON values only; compared before it is reused.
            compression: ``"lz4"`` compresses every frame, without loss; ``"none"`` is faster.

        Raises:
            ReplayBufferError: If the directory holds anything, or another process writes there.
            ValueError: If a shape, dtype, space or the metadata cannot be stored.
        """
        header = Header(
            tuple(frame_shape), str(frame_dtype), action_space, state_dim, metadata, compression
        )
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
    def open(cls, path: str | Path | Sequence[str | Path], *, append: bool = False) -> ReplayBuffer:
        """Open a buffer for reading, or also for appending.

        Args:
            path: directory of a buffer, sharded or not; or several directories, which are read as
                one buffer.
            append: whether episodes will be added; not possible for a sharded buffer.

        Raises:
            ReplayBufferError: If there is no buffer, if it is damaged or of a newer format, if
                several were not collected in the same way, or if `append` is set while another
                process writes.
        """
        parts = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
        paths = [directory for part in parts for directory in directories(part)]
        if paths != parts or len(parts) != 1:
            if append:
                raise ReplayBufferError(
                    f"{parts[0]} is sharded, and sharded buffers are read-only; collect into "
                    "another directory"
                )
            manifest = Manifest.read(parts[0]) if len(parts) == 1 else None
            path = Path(os.path.commonpath([part.absolute() for part in parts] or [Path.cwd()]))
            header, log = open_shards(paths, path, manifest)
            return cls(parts[0] if manifest else path, header, log, parts=parts)
        path = parts[0]
        header = Header.read(path)
        lock = lock_for_writing(path) if append else None
        try:
            return cls(path, header, EpisodeLog(path, header, lock))
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    @classmethod
    def from_episodes(
        cls,
        path: str | Path,
        episodes: Iterable[Mapping[str, Any]],
        *,
        action_space: gym.Space[Any] | None = None,
    ) -> ReplayBuffer:
        """Store episodes that are in memory.

        Args:
            path: a directory that does not exist yet, or is empty.
            episodes: dicts with the arguments of `add_episode`; `rewards`, `terminated`, `states`
                and `seed` may be missing.
            action_space: space of the actions; None infers it from all actions.

        Returns:
            The buffer, open for reading.

        Raises:
            ReplayBufferError: If the directory holds anything.
            ValueError: If there is no episode, or one does not fit the first.
        """
        from worldmodel.data.store import store_episodes

        return store_episodes(path, episodes, action_space)

    def select(
        self, episodes: Indices, starts: Indices | None = None, lengths: Indices | None = None
    ) -> ReplayBuffer:
        """Make a read-only view of some episodes, or of a part of each, without copying them.

        Args:
            episodes: (N,) episodes, which may repeat.
            starts: (N,) first frame of each part; None for 0.
            lengths: (N,) frames of each part; None for all up to the end.

        Raises:
            ValueError: If an episode does not exist, or a part is not within it.
        """
        chosen = existing_episodes(episodes, self.num_episodes, self.path)
        first = np.zeros_like(chosen) if starts is None else as_indices("starts", starts)
        rest = self.lengths[chosen] - first
        sizes = rest if lengths is None else as_indices("lengths", lengths)
        if not len(chosen) == len(first) == len(sizes):
            raise ValueError("episodes, starts and lengths differ in length")
        if ((first < 0) | (sizes < 1) | (sizes > rest)).any():
            raise ValueError(f"a part of an episode of {self.path} is not within it")
        view = self._episodes.select(chosen, first, sizes)
        return ReplayBuffer(self.path, self._header, self._log, view, self.parts)

    @property
    def header(self) -> Header:
        """What every episode of the buffer has in common."""
        return self._header

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
        return len(self._episodes)

    @property
    def num_frames(self) -> int:
        """Frames in all episodes."""
        return self._episodes.num_frames

    @property
    def num_transitions(self) -> int:
        """Transitions in all episodes, one less than frames in each."""
        return self.num_frames - self.num_episodes

    @property
    def lengths(self) -> np.ndarray:
        """Frames per episode, int64 (E,), read-only."""
        return self._episodes.lengths

    @property
    def seeds(self) -> np.ndarray:
        """Seed each episode was reset with, int64 (E,), read-only; -1 where unknown."""
        return self._episodes.seeds

    @property
    def terminated(self) -> np.ndarray:
        """Whether each episode ended by termination, bool (E,), read-only."""
        return self._episodes.terminated

    def summary(self) -> dict[str, Any]:
        """Describe the buffer in JSON values."""
        return {
            "path": str(self.path),
            "episodes": self.num_episodes,
            "frames": self.num_frames,
            "frame_shape": list(self.frame_shape),
            "frame_dtype": self.frame_dtype.name,
            "compression": self._header.compression,
            "action_space": str(self.action_space),
            "seeds": [int(self.seeds.min()), int(self.seeds.max())] if len(self) else [],
            "metadata": self.metadata,
        }

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
        if self._view is not None:
            raise ReplayBufferError("a view of a buffer is read-only; open the buffer to append")
        if not isinstance(terminated, bool | np.bool_) and terminated not in (0, 1):
            raise ValueError(f"terminated is {terminated!r}; expected True or False")
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
