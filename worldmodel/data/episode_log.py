"""Episodes on disk: how they are committed, recovered and kept from two writers at once."""

from __future__ import annotations

import logging
import os
from io import FileIO
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from worldmodel.data import index
from worldmodel.data.episodes import EpisodeTable
from worldmodel.data.errors import ReplayBufferError
from worldmodel.data.header import HEADER_FILE, Header
from worldmodel.data.store import RowFile, checksum, open_read_write, write_at

LOCK_FILE = "write.lock"
INDEX_FILE = "index.bin"
SYNC_EVERY_BYTES = 256 * 2**20

_log = logging.getLogger(__name__)


def acquire_lock(directory: Path) -> FileLock:
    """Become the one writer of a buffer. The system frees the lock of a process that dies.

    Raises:
        ReplayBufferError: if another writer holds the lock.
    """
    lock = FileLock(directory / LOCK_FILE, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ReplayBufferError(
            f"{directory} is open for appending elsewhere and takes one writer at a time; "
            "wait until that one is closed, or open it for reading (append=False)"
        ) from None
    return lock


class EpisodeLog:
    """The files of one replay buffer.

    An episode's rows are written first and its index record last, so a process killed at any
    moment leaves complete episodes and, beyond them, bytes that the next writer cuts off.

    Args:
        directory: where the files are.
        header: what they hold.
        lock: held by the caller if episodes will be appended, ``None`` for reading only.

    Raises:
        ReplayBufferError: if the files are truncated or damaged.
    """

    def __init__(self, directory: Path, header: Header, lock: FileLock | None) -> None:
        self.directory = directory
        self.files = {
            "frames": RowFile(directory / "frames.bin", header.frame_shape, header.frame_dtype),
            "actions": RowFile(directory / "actions.bin", header.action_shape, header.action_dtype),
            "rewards": RowFile(directory / "rewards.bin", (), "float32"),
        }
        if header.state_dim:
            self.files["states"] = RowFile(directory / "states.bin", (header.state_dim,), "float64")
        self._lock = lock
        self._index: FileIO | None = None
        self._unsynced_bytes = 0
        self.closed = False
        self.episodes, self._index_bytes = self._recover()
        if lock is not None:
            self._index = open_read_write(directory / INDEX_FILE)
            self._index.truncate(self._index_bytes)
            for name, file in self.files.items():
                file.open_for_writing(self.committed_rows(name))

    def committed_rows(self, name: str) -> int:
        """Rows of one file that belong to complete episodes."""
        frames = self.episodes.num_frames
        return frames - len(self.episodes) if name in ("actions", "rewards") else frames

    def rows(self, name: str) -> np.ndarray:
        """All committed rows of one file, read-only, memory-mapped.

        Raises:
            ReplayBufferError: if the buffer is closed.
        """
        self._require_open()
        return self.files[name].rows(self.committed_rows(name))

    def append(self, rows: dict[str, np.ndarray], seed: int, terminated: bool) -> None:
        """Write one episode and commit it.

        Args:
            rows: an array for each file, of that file's row shape and dtype.
            seed: seed of the episode, -1 if unknown.
            terminated: whether it ended by termination.

        Raises:
            ReplayBufferError: if the disk is full, or the buffer is closed or only read.
        """
        self._require_open(writing=True)
        length = len(rows["frames"])
        record = index.pack(
            index.EPISODE,
            len(self.episodes),
            length=length,
            seed=seed,
            terminated=terminated,
            data_crc=checksum(*rows.values()),
        )
        try:
            for name, array in rows.items():
                self.files[name].write(self.committed_rows(name), array)
            self._append_record(record)
        except OSError as error:
            raise ReplayBufferError(
                f"{self.directory}: an episode of {length} frames could not be written ({error}); "
                f"the {len(self.episodes)} complete episodes are intact: make room on the disk, "
                "then add this one again"
            ) from error
        self.episodes.append(length, seed, terminated)
        self._unsynced_bytes += sum(array.nbytes for array in rows.values())
        if self._unsynced_bytes >= SYNC_EVERY_BYTES:
            self.flush()

    def flush(self) -> None:
        """Force all episodes to the disk itself.

        Raises:
            ReplayBufferError: if the disk refuses, or the buffer is closed or only read.
        """
        self._require_open(writing=True)
        if not self._unsynced_bytes:
            return
        assert self._index is not None
        try:
            for file in self.files.values():
                file.sync()
            os.fsync(self._index.fileno())
            self._append_record(index.pack(index.SYNC, len(self.episodes)))
            os.fsync(self._index.fileno())
        except OSError as error:
            raise ReplayBufferError(
                f"{self.directory}: the disk could not take the last episodes for good ({error}); "
                "make room on it, then flush again"
            ) from error
        self._unsynced_bytes = 0

    def close(self) -> None:
        """Flush, then release the files and the lock. Closing twice is fine."""
        if self.closed:
            return
        try:
            if self._lock is not None:
                self.flush()
        finally:
            self.closed = True
            for file in self.files.values():
                file.close()
            if self._index is not None:
                self._index.close()
            if self._lock is not None:
                self._lock.release()

    def _append_record(self, record: bytes) -> None:
        assert self._index is not None
        write_at(self._index, self._index_bytes, record)
        self._index_bytes += len(record)

    def _require_open(self, *, writing: bool = False) -> None:
        if self.closed:
            raise ReplayBufferError(f"{self.directory} is closed; open it again")
        if writing and self._lock is None:
            raise ReplayBufferError(
                f"{self.directory} is open for reading only; open it with append=True to write"
            )

    def _recover(self) -> tuple[EpisodeTable, int]:
        """Read the index and keep the episodes whose data is whole; also its intact bytes."""
        found = index.scan(self.directory / INDEX_FILE)
        table = _table(found.episodes)
        for name, file in self.files.items():
            file.require(_rows_before(name, table, found.durable))
        kept = found.durable
        while kept < len(table) and self._is_whole(found.episodes, table, kept):
            kept += 1
        if kept < len(table):
            _log.warning(
                "%s: the last %d of %d episodes did not reach the disk before a power cut; "
                "they are left out",
                self.directory,
                len(table) - kept,
                len(table),
            )
        return _table(found.episodes[:kept]), int(found.ends[kept])

    def _is_whole(self, records: np.ndarray, table: EpisodeTable, episode: int) -> bool:
        """Whether the rows of an episode that was never synced match their checksum."""
        spans = {
            name: (_rows_before(name, table, episode), _rows_before(name, table, episode + 1))
            for name in self.files
        }
        if any(file.rows_on_disk() < spans[name][1] for name, file in self.files.items()):
            return False
        arrays = [
            file.rows(spans[name][1])[slice(*spans[name])] for name, file in self.files.items()
        ]
        return checksum(*arrays) == records["data_crc"][episode]


def _table(records: np.ndarray) -> EpisodeTable:
    return EpisodeTable(records["length"], records["seed"], records["terminated"])


def _rows_before(name: str, table: EpisodeTable, episodes: int) -> int:
    """Rows of one file that the first ``episodes`` episodes take."""
    frames = int(table.lengths[:episodes].sum())
    return frames - episodes if name in ("actions", "rewards") else frames


def claim(path: Path) -> FileLock:
    """Become the one writer of a new buffer, leaving no lock in a directory of something else.

    Raises:
        ReplayBufferError: if the directory holds anything, or another writer holds the lock.
    """
    if not (path / LOCK_FILE).exists():
        _require_empty(path)
    lock = acquire_lock(path)
    try:
        _require_empty(path)
    except BaseException:
        lock.release()
        raise
    return lock


def _require_empty(path: Path) -> None:
    """Refuse a directory that holds more than an interrupted creation leaves."""
    found = {entry.name for entry in path.iterdir()} - {LOCK_FILE, HEADER_FILE + ".tmp"}
    if found:
        raise ReplayBufferError(
            f"{path} is not empty ({', '.join(sorted(found)[:3])}); a new replay buffer needs "
            "a directory of its own: give another path"
        )
