"""Sharded buffers: several directories of whole episodes that are read as one replay buffer.

Each of the processes that collect in parallel writes its own shard::

    shards.json       how the episodes are collected, and how many each shard gets
    shard-00000/      a replay buffer with the first episodes
    shard-00001/      a replay buffer with the episodes after them

Opening a sharded buffer reads the index of each shard, not its frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.header import HEADER_FILE, Header, require_no_links
from worldmodel.data.index import EpisodeTable
from worldmodel.data.recipe import differences
from worldmodel.data.storage import EpisodeLog
from worldmodel.errors import ReplayBufferError, RunError
from worldmodel.files import read_record, write_json

MANIFEST = "shards.json"
_MOST_MAPPED = 128
"""Shards whose files are mapped at a time; the usual limit is 1024 open files per process."""


@dataclass(frozen=True)
class Manifest:
    """Content of ``shards.json``.

    Attributes:
        episodes: number of episodes of each shard when it is complete.
        seeds: of all episodes, in order; empty if unknown.
        recipe: metadata of the shards; empty if unknown.
    """

    episodes: list[int]
    seeds: list[int] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Write the manifest of a directory, which is created."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / MANIFEST, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read the manifest of a directory.

        Raises:
            ReplayBufferError: If it is damaged, or a file there is a link.
        """
        require_no_links(directory)
        try:
            return read_record(directory / MANIFEST, cls, "restore it from a copy")
        except RunError as error:
            raise ReplayBufferError(str(error)) from error


def shard_directory(directory: Path, number: int) -> Path:
    """Return the directory of a shard."""
    return directory / f"shard-{number:05}"


def is_buffer(path: Path) -> bool:
    """Whether a directory holds a replay buffer, sharded or not."""
    return (path / HEADER_FILE).exists() or is_sharded(path)


def is_sharded(path: Path) -> bool:
    """Whether a directory holds a sharded replay buffer."""
    return (path / MANIFEST).exists()


def directories(path: Path) -> list[Path]:
    """Return the directories of the shards of a buffer, or its own directory if it is not sharded.

    Raises:
        ReplayBufferError: If a shard is missing.
    """
    if not is_sharded(path):
        return [path]
    shards = [shard_directory(path, i) for i in range(len(Manifest.read(path).episodes))]
    if missing := [shard.name for shard in shards if not (shard / HEADER_FILE).exists()]:
        raise ReplayBufferError(
            f"{path} lacks {len(missing)} of its {len(shards)} shards, the first is {missing[0]}; "
            "repeat the command that collects it, or restore them from a copy"
        )
    return shards


class ShardedLog:
    """Reads the files of several replay buffers as if they were one; see `EpisodeLog`.

    Args:
        logs: at least one, open for reading.
        directory: named in messages.

    Attributes:
        episodes: those of all buffers, in order.
    """

    def __init__(self, logs: Sequence[EpisodeLog], directory: Path) -> None:
        self._logs, self._directory = list(logs), directory
        tables = [log.episodes for log in logs]
        self.episodes = EpisodeTable.concatenate(tables)
        self._mapped: dict[int, None] = {}  # the least recently used one first
        frames = np.cumsum([table.num_frames for table in tables])
        self._frames, self._steps = frames, frames - np.cumsum([len(table) for table in tables])

    def gather(self, name: str, first: np.ndarray, length: int, out: np.ndarray) -> None:
        """Copy `length` rows from each first row (B,) into `out` (B, length, ...)."""
        ends = self._steps if name in ("actions", "rewards") else self._frames
        shard_of = np.searchsorted(ends, first, side="right")
        for i in np.unique(shard_of):
            rows = np.flatnonzero(shard_of == i)
            before = ends[i - 1] if i else 0
            self._keep_mapped(int(i))
            if len(rows) == len(first):
                self._logs[i].gather(name, first - before, length, out)
                return
            part = np.empty((len(rows), *out.shape[1:]), out.dtype)
            self._logs[i].gather(name, first[rows] - before, length, part)
            out[rows] = part

    def _keep_mapped(self, number: int) -> None:
        """Note that a shard is read; unmap another one, since every map keeps a file open."""
        self._mapped.pop(number, None)
        self._mapped[number] = None
        if len(self._mapped) > _MOST_MAPPED:
            oldest = next(iter(self._mapped))
            del self._mapped[oldest]
            self._logs[oldest].unmap()

    def append(self, rows: dict[str, np.ndarray], seed: int, terminated: bool) -> None:
        """Refuse: sharded buffers are read-only."""
        raise ReplayBufferError(f"{self._directory} is sharded, and sharded buffers are read-only")

    def flush(self) -> None:
        """Do nothing: nothing was written."""

    def close(self) -> None:
        """Release all files."""
        for log in self._logs:
            log.close()


def open_shards(
    paths: Sequence[Path], directory: Path, manifest: Manifest | None
) -> tuple[Header, ShardedLog]:
    """Open buffers that were collected in the same way as one.

    Args:
        paths: directories of the buffers, in the order of their episodes.
        directory: named in messages.
        manifest: says how many episodes each has; None if that is unknown.

    Raises:
        ReplayBufferError: If one is missing, damaged, or was collected in another way.
    """
    if not paths:
        raise ReplayBufferError("there are no buffers to open; give at least one")
    headers = [Header.read(path) for path in paths]

    def uncompressed(header: Header) -> dict[str, Any]:
        """Describe the data, in whatever form it is stored."""
        return replace(header, compression="none").as_json()

    for path, header in zip(paths, headers, strict=True):
        found = differences(uncompressed(header), uncompressed(headers[0]))
        if found:
            raise ReplayBufferError(
                f"{path} differs from {paths[0]} ({'; '.join(found)}), so they are not one buffer"
            )
    logs = [EpisodeLog(path, header, None) for path, header in zip(paths, headers, strict=True)]
    log = ShardedLog(logs, directory)
    if manifest is not None:
        _require_complete(paths, logs, manifest)
    return headers[0], log


def _require_complete(
    paths: Sequence[Path], logs: Sequence[EpisodeLog], manifest: Manifest
) -> None:
    for path, log, expected in zip(paths, logs, manifest.episodes, strict=True):
        if len(log.episodes) != expected:
            raise ReplayBufferError(
                f"{path} has {len(log.episodes)} of {expected} episodes; repeat the command that "
                "collects it"
            )
