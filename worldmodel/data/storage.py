"""The files of a replay buffer: rows of data, and the index that commits them.

An episode is written in two steps: its rows go into ``frames.bin``, ``actions.bin``,
``rewards.bin`` and ``states.bin``, then one record goes into ``index.bin``. Only the record makes
the episode part of the buffer. This gives four promises:

- A killed process loses at most the episode it was writing: the next writer cuts off all bytes
  beyond the last record.
- A power cut loses at most what was written since the last flush. A flush forces everything to the
  disk and then appends a SYNC record. Episodes after the last SYNC record count only if their rows
  match the checksum in their own record.
- Damage is never repaired in silence: a bad record before a SYNC record, or a file shorter than
  the synced episodes need, is an error. Unsynced episodes after a bad one are left out with a
  warning. Nothing is appended, and so nothing overwritten, while the files hold more than one
  unfinished episode that the index does not know; see `worldmodel.data.repair`.
- One process writes, holding ``write.lock``. Readers take no lock and see the episodes that were
  committed when they opened the buffer.
"""

from __future__ import annotations

import logging
import math
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from io import FileIO
from pathlib import Path

import numpy as np
from filelock import FileLock

from worldmodel.data.header import Header
from worldmodel.data.index import (
    EPISODE,
    RECORD,
    SYNC,
    EpisodeTable,
    Index,
    make_record,
    read_index,
)
from worldmodel.errors import ReplayBufferError

SYNC_EVERY_BYTES = 256 * 2**20

_log = logging.getLogger(__name__)


class RowFile:
    """Rows of ``(*shape)`` and ``dtype`` in one file.

    Rows are written with `write` and not through a memory map: a full disk is then an OSError and
    not a SIGBUS, and written pages do not count as memory of the process. Rows are read through a
    read-only map.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str | np.dtype) -> None:
        self.path = path
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.row_bytes = math.prod(shape) * self.dtype.itemsize
        self._mapped = np.empty((0, *shape), self.dtype)
        self._file: FileIO | None = None

    def open_for_writing(self, rows: int) -> None:
        """Open or create the file, unbuffered, and cut it to its first `rows` rows."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._file = FileIO(os.open(self.path, flags, 0o644), "r+")
        self.cut(rows)

    def cut(self, rows: int) -> None:
        """Cut the file to its first `rows` rows."""
        assert self._file is not None
        self._file.truncate(rows * self.row_bytes)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows (N, *shape) at row `start`."""
        assert self._file is not None
        data = _bytes_of(np.ascontiguousarray(rows, self.dtype))
        self._file.seek(start * self.row_bytes)
        while data:  # one system call may take only a part
            data = data[self._file.write(data) :]

    def sync(self) -> None:
        """Force what was written to the disk."""
        assert self._file is not None
        os.fsync(self._file.fileno())

    def rows(self, count: int) -> np.ndarray:
        """Return the first `count` rows, (count, *shape), read-only and memory-mapped."""
        if len(self._mapped) < count:
            mapped = np.memmap(self.path, self.dtype, mode="r", shape=(count, *self.shape))
            self._mapped = mapped.view(np.ndarray)
        return self._mapped[:count]

    def unmap(self) -> None:
        """Drop the map, and with it the open file, until rows are read again."""
        self._mapped = np.empty((0, *self.shape), self.dtype)

    def size(self) -> int:
        """Return the number of bytes in the file, committed or not."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        """Close the file and drop the map; arrays that were handed out stay valid."""
        self.unmap()
        if self._file is not None:
            self._file.close()
            self._file = None


class EpisodeLog:
    """The files of one replay buffer.

    Args:
        directory: where the files are.
        header: what they hold.
        lock: held by the caller if episodes will be appended; None for reading only.

    Attributes:
        episodes: the committed episodes.
        checksums: of the rows of each episode that was there when the files were opened.

    Raises:
        ReplayBufferError: If the files are truncated or damaged, or episodes could be overwritten.
    """

    def __init__(self, directory: Path, header: Header, lock: FileLock | None) -> None:
        self.directory = directory
        self.files = data_files(directory, header)
        self._index = RowFile(directory / "index.bin", (), RECORD)
        self._lock = lock
        self._unsynced_bytes = 0
        self._closed = False
        self.episodes, self._num_records = self._recover()
        if lock is not None:
            self.require_known()
            self._index.open_for_writing(self._num_records)
            for name, file in self.files.items():
                file.open_for_writing(self._committed_rows(name))

    def rows(self, name: str) -> np.ndarray:
        """Return all committed rows of one file, read-only and memory-mapped.

        Raises:
            ReplayBufferError: If the buffer is closed.
        """
        self._require_open()
        return self.files[name].rows(self._committed_rows(name))

    def gather(self, name: str, first: np.ndarray, length: int, out: np.ndarray) -> None:
        """Copy `length` rows from each first row (B,) into `out` (B, length, ...)."""
        # The rows are valid; with mode="clip" NumPy copies straight into `out`.
        rows = self.rows(name)
        np.take(rows, first[:, None] + np.arange(length), axis=0, out=out, mode="clip")

    def unmap(self) -> None:
        """Drop the maps of all files until rows are read again."""
        for file in self.files.values():
            file.unmap()

    def append(self, rows: dict[str, np.ndarray], seed: int, terminated: bool) -> None:
        """Write one episode and commit it.

        Args:
            rows: an array for each file, of that file's row shape and dtype.
            seed: of the episode, -1 if unknown.
            terminated: whether it ended by termination.

        Raises:
            ReplayBufferError: If the disk is full, or the buffer is closed or open for reading.
        """
        self._require_open(writing=True)
        length = len(rows["frames"])
        crc = _checksum(rows.values())
        record = make_record(EPISODE, len(self.episodes), length, seed, terminated, crc)
        records = self._num_records
        try:
            for name, array in rows.items():
                self.files[name].write(self._committed_rows(name), array)
            self._append_record(record)
        except BaseException as error:
            self._num_records = records
            self._cut_to_committed()
            if not isinstance(error, OSError):
                raise
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
        """Force all episodes to the disk.

        Raises:
            ReplayBufferError: If the disk refuses, or the buffer is closed or open for reading.
        """
        self._require_open(writing=True)
        if not self._unsynced_bytes:
            return
        try:
            for file in (*self.files.values(), self._index):
                file.sync()
            self._append_record(make_record(SYNC, len(self.episodes)))
            self._index.sync()
        except OSError as error:
            raise ReplayBufferError(
                f"{self.directory}: the last episodes could not be forced to the disk ({error}); "
                "make room on it, then flush again"
            ) from error
        self._unsynced_bytes = 0

    def close(self) -> None:
        """Flush, then release the files and the lock. Closing twice is fine."""
        if self._closed:
            return
        try:
            if self._lock is not None:
                self.flush()
        finally:
            self._closed = True
            for file in (*self.files.values(), self._index):
                file.close()
            if self._lock is not None:
                self._lock.release()

    def _committed_rows(self, name: str) -> int:
        return self.episodes.num_rows(name, len(self.episodes))

    def _cut_to_committed(self) -> None:
        """Remove what a failed write left, so that it does not look like a lost episode."""
        with suppress(OSError):
            for name, file in self.files.items():
                file.cut(self._committed_rows(name))
            self._index.cut(self._num_records)

    def _append_record(self, record: np.ndarray) -> None:
        self._index.write(self._num_records, record)
        self._num_records += 1

    def _require_open(self, *, writing: bool = False) -> None:
        if self._closed:
            raise ReplayBufferError(f"{self.directory} is closed; open it again")
        if writing and self._lock is None:
            raise ReplayBufferError(
                f"{self.directory} is open for reading only; open it with append=True to write"
            )

    def _recover(self) -> tuple[EpisodeTable, int]:
        """Read the index; returns the intact episodes and the number of records they take."""
        index = read_index(self._index.path)
        self._left_out = index.cut_off
        if index.cut_off:
            _log.warning(
                "%s is damaged: the record of episode %d fails its checksum, and %d episodes after "
                "it are left out; run `worldmodel repair %s`",
                self._index.path,
                len(index.records),
                index.cut_off,
                self.directory,
            )
        table = EpisodeTable(index.records)
        for name, file in self.files.items():
            needed = table.num_rows(name, index.durable) * file.row_bytes
            if file.size() < needed:
                raise ReplayBufferError(
                    f"{file.path} is truncated: {needed} bytes expected, {file.size()} found; "
                    "restore the file from a copy, or delete the directory and collect again"
                )
        return self._whole_episodes(table, index)

    def _whole_episodes(self, table: EpisodeTable, index: Index) -> tuple[EpisodeTable, int]:
        """Leave out the first episode that never reached the disk, and those after it."""
        crcs, kept = index.records["data_crc"], index.durable
        while kept < len(table) and is_whole(self.files, table, kept, crcs[kept]):
            kept += 1
        if kept < len(table):
            self._left_out += len(table) - kept - 1  # a killed process leaves one unfinished
            _log.warning(
                "%s: the last %d of %d episodes are left out, because their data is incomplete or "
                "does not match its checksum",
                self.directory,
                len(table) - kept,
                len(table),
            )
        self.checksums = crcs[:kept]
        return EpisodeTable(index.records[:kept]), int(index.ends[kept])

    def require_known(self) -> None:
        """Check that the index knows all episodes but one that a killed process was writing.

        Raises:
            ReplayBufferError: If the files hold more, which appending would overwrite.
        """
        unknown = {
            name: file.size() - self._committed_rows(name) * file.row_bytes
            for name, file in self.files.items()
        }
        no_index = any(unknown.values()) and not self._index.path.exists()
        if self._left_out or no_index or not self._is_unfinished(unknown):
            raise ReplayBufferError(
                f"{self.directory}: index.bin lists {len(self.episodes)} episodes, and the other "
                f"files hold more data ({max(0, unknown['frames']):,} bytes of frames.bin), "
                "which appending would overwrite; restore index.bin from a copy, or run "
                f"`worldmodel repair {self.directory}`"
            )

    def _is_unfinished(self, unknown: dict[str, int]) -> bool:
        """Check whether unknown bytes of each file are those of one episode being written."""
        files = iter(self.files.items())
        name, file = next(files)
        frames, partial = divmod(max(0, unknown[name]), file.row_bytes)
        complete = not partial and frames > 1
        for name, file in files:
            size = max(0, unknown[name])
            expected = (frames if name == "states" else frames - 1) * file.row_bytes
            if size and not (complete and size <= expected):
                return False
            complete = complete and size == expected
        return True


def data_files(directory: Path, header: Header) -> dict[str, RowFile]:
    """Return the files with the rows of a buffer, in the order in which they are written."""
    files = {
        "frames": RowFile(directory / "frames.bin", header.frame_shape, header.frame_dtype),
        "actions": RowFile(directory / "actions.bin", header.action_shape, header.action_dtype),
        "rewards": RowFile(directory / "rewards.bin", (), "float32"),
    }
    if header.state_dim:
        files["states"] = RowFile(directory / "states.bin", (header.state_dim,), "float64")
    return files


def episode_checksum(files: dict[str, RowFile], table: EpisodeTable, episode: int) -> int | None:
    """Compute the checksum of an episode's rows; None if a file is too short for them."""
    arrays = []
    for name, file in files.items():
        first, stop = (table.num_rows(name, n) for n in (episode, episode + 1))
        if file.size() < stop * file.row_bytes:
            return None
        arrays.append(file.rows(stop)[first:])
    return _checksum(arrays)


def is_whole(files: dict[str, RowFile], table: EpisodeTable, episode: int, crc: int) -> bool:
    """Check whether the rows of an episode match the checksum of its record."""
    return episode_checksum(files, table, episode) == crc


def _checksum(arrays: Iterable[np.ndarray]) -> int:
    """Compute the CRC-32 of the bytes of C-contiguous arrays, one after another."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(_bytes_of(array), crc)
    return crc


def _bytes_of(array: np.ndarray) -> memoryview:
    """View the bytes of a C-contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8).data
