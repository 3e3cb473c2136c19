"""The table of episodes a replay buffer keeps in memory."""

from __future__ import annotations

import numpy as np


class EpisodeTable:
    """Length, seed and ending of each episode; a few bytes an episode, appended in O(1)."""

    def __init__(self, lengths: np.ndarray, seeds: np.ndarray, terminated: np.ndarray) -> None:
        self._count = len(lengths)
        self._columns = {
            "lengths": np.array(lengths, np.int64),
            "starts": np.cumsum(lengths, dtype=np.int64) - np.asarray(lengths, np.int64),
            "seeds": np.array(seeds, np.int64),
            "terminated": np.array(terminated, bool),
        }

    def __len__(self) -> int:
        return self._count

    @property
    def num_frames(self) -> int:
        """Frames in all episodes."""
        return int(self.starts[-1] + self.lengths[-1]) if self._count else 0

    @property
    def lengths(self) -> np.ndarray:
        """Frames per episode, (E,) int64."""
        return self._column("lengths")

    @property
    def starts(self) -> np.ndarray:
        """Row of each episode's first frame, (E,) int64."""
        return self._column("starts")

    @property
    def seeds(self) -> np.ndarray:
        """Seed of each episode, (E,) int64, -1 where unknown."""
        return self._column("seeds")

    @property
    def terminated(self) -> np.ndarray:
        """Whether each episode ended by termination, (E,) bool."""
        return self._column("terminated")

    def append(self, length: int, seed: int, terminated: bool) -> None:
        """Add one episode."""
        row = {
            "lengths": length,
            "starts": self.num_frames,
            "seeds": seed,
            "terminated": terminated,
        }
        if self._count == len(self._columns["lengths"]):
            for name, column in self._columns.items():
                self._columns[name] = np.resize(column, max(64, 2 * self._count))
        for name, value in row.items():
            self._columns[name][self._count] = value
        self._count += 1

    def _column(self, name: str) -> np.ndarray:
        view = self._columns[name][: self._count]
        view.flags.writeable = False
        return view
