"""Episodes from HDF5 files, and to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.header import Header
from worldmodel.data.reader import Reader, ReadOptions
from worldmodel.data.rollout import Episode
from worldmodel.data.writer import Contents, Writer
from worldmodel.extras import require

_HEADER = "worldmodel"
"""Attributes ``worldmodel_0``, ... hold the header of the replay buffer that was converted."""
_HEADER_PART = 32_000
"""Characters per attribute; HDF5 allows 64 KiB."""
_BLOCK = 2**18
"""Bytes per chunk of a dataset."""


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
                self._require_own_data(file)
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
            self.unread = self._unread(file)
            if f"{_HEADER}_0" in file.attrs:
                self.adopt(_read_header(file, self.path))

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Check whether the path ends like an HDF5 file."""
        return Path(reference).suffix in (".h5", ".hdf5")

    @property
    def has_rewards(self) -> bool:
        """Whether the file has rewards."""
        return self.names["rewards"] is not None and super().has_rewards

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
            bounds = self._bounds(file)
            yield from (self._episode(file, bounds, number) for number in range(len(bounds)))

    def episode(self, number: int) -> Episode:
        """Read one episode."""
        self.require_episode(number)
        with self._h5.File(self.path) as file:
            return self._episode(file, self._bounds(file), number)

    def _episode(self, file: Any, bounds: list[tuple[int, int]], number: int) -> Episode:
        read = self._rows if self.swm else self._transitions
        seed = int(file["ep_seed"][number]) if "ep_seed" in file else -1
        return read(file, slice(*bounds[number]), seed)

    def _require_own_data(self, file: Any) -> None:
        """Refuse links to other files, which could be any file of this machine."""
        for name in file:
            link, entry = file.get(name, getlink=True), file.get(name)
            elsewhere = getattr(entry, "external", None) or getattr(entry, "is_virtual", False)
            if isinstance(link, self._h5.ExternalLink) or elsewhere:
                raise ValueError(
                    f"{self.path}: {name} is stored in another file; copy its data into this one"
                )

    def _unread(self, file: Any) -> tuple[str, ...]:
        known = {self.key, *self.names.values(), "ep_len", "ep_offset", "ep_seed"}
        return tuple(sorted(set(file) - known - {"next_observations", "truncated"}))

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


def _read_header(file: Any, path: Path) -> Header:
    parts = (f"{_HEADER}_{i}" for i in range(len(file.attrs)))
    text = "".join(str(file.attrs[name]) for name in parts if name in file.attrs)
    try:
        return Header.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the attributes of {path} are damaged: {error}") from error


class HDF5Writer(Writer):
    """An HDF5 file in the layout of stable-worldmodel; see `HDF5Reader`.

    ``action`` of the last row of an episode is NaN, or the action before it if actions are
    integers; ``reward`` of the first row is 0. ``truncated``, ``state`` and ``ep_seed`` are added.
    """

    def __init__(self, path: Path, contents: Contents) -> None:
        h5py = require("h5py", "data")
        self._header = contents.header
        self._file = h5py.File(path, "w")
        text = json.dumps(contents.header.as_json(), allow_nan=False)
        for number, start in enumerate(range(0, len(text), _HEADER_PART)):
            self._file.attrs[f"{_HEADER}_{number}"] = text[start : start + _HEADER_PART]
        self._rows = 0

    def add(self, episode: Episode) -> None:
        """Append one row per frame."""
        length, discrete = (
            len(episode.frames),
            isinstance(self._header.action_space, gym.spaces.Discrete),
        )
        actions = episode.actions.reshape(length - 1, *self._header.action_shape)
        last = actions[-1:] if discrete else np.full_like(actions[-1:], np.nan)
        ended = np.arange(length) == length - 1
        self._append("pixels" if episode.frames.ndim == 4 else "observation", episode.frames)
        self._append("action", np.concatenate([actions, last]))
        self._append("reward", np.concatenate([np.zeros(1, np.float32), episode.rewards]))
        self._append("terminated", ended & episode.terminated)
        self._append("truncated", ended & (not episode.terminated))
        if episode.states is not None:
            self._append("state", episode.states)
        self._append("ep_len", np.array([length]))
        self._append("ep_offset", np.array([self._rows]))
        self._append("ep_seed", np.array([episode.seed]))
        self._rows += length

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    abort = close

    def _append(self, name: str, rows: np.ndarray) -> None:
        if name not in self._file:
            row = max(1, rows[:1].nbytes)
            self._file.create_dataset(
                name,
                shape=(0, *rows.shape[1:]),
                maxshape=(None, *rows.shape[1:]),
                chunks=(max(1, _BLOCK // row), *rows.shape[1:]),
                dtype=rows.dtype,
            )
        dataset = self._file[name]
        dataset.resize(len(dataset) + len(rows), axis=0)
        dataset[-len(rows) :] = rows
