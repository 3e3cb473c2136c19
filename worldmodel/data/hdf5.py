"""Episodes from HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.reader import Reader, ReadOptions, require
from worldmodel.data.rollout import Episode


class HDF5Reader(Reader):
    """An HDF5 file in the layout of stable-worldmodel or of D4RL.

    stable-worldmodel: one row per frame, episodes by ``ep_len`` and ``ep_offset``; the action of a
    row leads to the next row, rewards and ends belong to the row that they led to, so the last
    action and the first reward of an episode are meaningless. ``ep_seed``, where present, gives the
    seeds.

    D4RL (arXiv:2004.07219): one row per transition, episodes by ``terminals`` and ``timeouts``;
    without ``next_observations`` the last transition of an episode lacks its outcome and is left
    out, and with it an episode of one row.
    """

    def __init__(self, reference: str, options: ReadOptions) -> None:
        self.path, self.options = Path(reference), options
        self._h5 = require("h5py", "data")
        if not self.path.is_file():
            raise ValueError(f"{self.path} does not exist; expected an HDF5 file")
        try:
            with self._h5.File(self.path) as file:
                self.swm = "ep_len" in file
                self.key = options.choose(file, str(self.path))
                self.names = {
                    name: next((alias for alias in aliases if alias in file), None)
                    for name, aliases in {
                        "actions": ("action", "actions"),
                        "rewards": ("reward", "rewards"),
                        "terminated": ("terminated", "terminals", "terminations"),
                        "truncated": ("timeouts", "truncated", "truncations"),
                        "states": (options.state_key,),
                    }.items()
                }
        except OSError as error:
            raise ValueError(f"{self.path} is not a readable HDF5 file: {error}") from error
        if self.names["actions"] is None:
            raise ValueError(f"{self.path} holds no actions; expected a dataset action or actions")
        with self._h5.File(self.path) as file:
            self.count = len(self._bounds(file))

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Check whether the path ends like an HDF5 file."""
        return Path(reference).suffix in (".h5", ".hdf5")

    @property
    def has_rewards(self) -> bool:
        """Whether the file has rewards."""
        return self.names["rewards"] is not None

    def actions(self) -> Iterator[np.ndarray]:
        """Read the actions alone."""
        with self._h5.File(self.path) as file:
            last = 0 if self._has_outcomes(file) else 1
            for start, stop in self._bounds(file):
                yield np.asarray(file[self.names["actions"]][start : stop - last])

    def identity(self) -> dict[str, Any]:
        """Return path, size and time of the file."""
        status = self.path.stat()
        return {"hdf5": [str(self.path.resolve()), status.st_size, status.st_mtime_ns, self.key]}

    def __iter__(self) -> Iterator[Episode]:
        with self._h5.File(self.path) as file:
            seeds = file["ep_seed"][:] if "ep_seed" in file else None
            for number, (start, stop) in enumerate(self._bounds(file)):
                read = self._rows if self.swm else self._transitions
                seed = -1 if seeds is None else int(seeds[number])
                yield read(file, slice(start, stop), seed)

    def _bounds(self, file: Any) -> list[tuple[int, int]]:
        if self.swm:
            starts = file["ep_offset"][:] if "ep_offset" in file else None
            lengths = file["ep_len"][:]
            starts = np.cumsum(lengths) - lengths if starts is None else starts
            bounds = [(int(a), int(a + n)) for a, n in zip(starts, lengths)]
            rows = min(len(file[name]) for name in (self.key, self.names["actions"]))
            for number, (first, last) in enumerate(bounds):
                if not 0 <= first < last <= rows:
                    raise ValueError(
                        f"{self.path}: by ep_offset and ep_len, episode {number} has rows {first} "
                        f"to {last - 1}, but frames and actions have {rows} rows"
                    )
            return bounds
        rows = len(file[self.key])
        if self.names["terminated"] is None and self.names["truncated"] is None:
            raise ValueError(
                f"{self.path} does not say where episodes end; expected datasets ep_len and "
                "ep_offset, or terminals and timeouts"
            )
        ends = np.zeros(rows, bool)
        for name in ("terminated", "truncated"):
            if self.names[name] is not None:
                ends |= file[self.names[name]][:].astype(bool).reshape(-1)
        stops = [*(np.flatnonzero(ends) + 1).tolist(), *([] if ends[-1:].any() else [rows])]
        shortest = 1 if self._has_outcomes(file) else 2
        return [(a, b) for a, b in zip([0, *stops[:-1]], stops) if b - a >= shortest]

    def _has_outcomes(self, file: Any) -> bool:
        """Check whether every row has the observation that its action led to."""
        return not self.swm and self.key == "observations" and "next_observations" in file

    def _column(self, file: Any, name: str, rows: slice) -> np.ndarray | None:
        alias = self.names[name]
        return None if alias is None else np.asarray(file[alias][rows])

    def _rows(self, file: Any, rows: slice, seed: int) -> Episode:
        actions, rewards = self._column(file, "actions", rows), self._column(file, "rewards", rows)
        ended = self._column(file, "terminated", rows)
        assert actions is not None
        return Episode(
            seed,
            np.asarray(file[self.key][rows]),
            actions[:-1],
            np.zeros(len(actions) - 1) if rewards is None else rewards[1:].reshape(-1),
            ended is not None and bool(ended[-1]),
            self._column(file, "states", rows),
        )

    def _transitions(self, file: Any, rows: slice, seed: int) -> Episode:
        frames, actions = np.asarray(file[self.key][rows]), self._column(file, "actions", rows)
        rewards, ended = self._column(file, "rewards", rows), self._column(file, "terminated", rows)
        assert actions is not None
        rewards = np.zeros(len(actions)) if rewards is None else rewards.reshape(-1)
        terminated = ended is not None and bool(ended[-1])
        if self._has_outcomes(file):
            frames = np.concatenate([frames, file["next_observations"][rows.stop - 1][None]])
        else:
            actions, rewards, terminated = actions[:-1], rewards[:-1], False
        return Episode(seed, frames, actions, rewards, terminated, None)
