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
  the synced episodes need, is an error, and nothing is cut off. Unsynced episodes after a bad
  record are left out with a warning, and the next writer overwrites them.
- One process writes, holding ``write.lock``. Readers take no lock and see the episodes that were
  committed when they opened the buffer.
"""

from __future__ import annotations

import logging
import math
import os
import zlib
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

import numpy as np
from filelock import FileLock

from worldmodel.data.header import Header
from worldmodel.errors import ReplayBufferError

SYNC_EVERY_BYTES = 256 * 2**20

EPISODE = 0x45504953
SYNC = 0x53594E43
RECORD = np.dtype(
    [
        ("kind", "<u4"),  # EPISODE or SYNC
        ("terminated", "<u4"),
        ("sequence", "<u8"),  # number of episodes committed before this record
        ("length", "<u8"),  # frames
        ("seed", "<i8"),
        ("data_crc", "<u4"),  # of the episode's rows
        ("crc", "<u4"),  # of the bytes before it
    ]
)
_CHECKED_BYTES = RECORD.itemsize - 4

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

    def size(self) -> int:
        """Return the number of bytes in the file, committed or not."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        """Close the file and drop the map; arrays that were handed out stay valid."""
        self._mapped = self._mapped[:0]
        if self._file is not None:
            self._file.close()
            self._file = None


class EpisodeTable:
    """The committed episodes in memory, as read-only columns.

    Args:
        records: EPISODE records, in order.

    Attributes:
        lengths: frames per episode, int64 (E,).
        starts: row of each episode's first frame, int64 (E,).
        first_steps: row of each episode's first transition, int64 (E,).
        seeds: seed of each episode, int64 (E,), -1 where unknown.
        terminated: whether each episode ended by termination, bool (E,).
        num_frames: frames in all episodes.
    """

    lengths: np.ndarray
    starts: np.ndarray
    first_steps: np.ndarray
    seeds: np.ndarray
    terminated: np.ndarray

    def __init__(self, records: np.ndarray) -> None:
        lengths = records["length"].astype(np.int64)
        self.num_frames = int(lengths.sum())
        self._columns = {
            "lengths": lengths,
            "starts": np.cumsum(lengths) - lengths,
            "first_steps": np.cumsum(lengths - 1) - (lengths - 1),
            "seeds": records["seed"].astype(np.int64),
            "terminated": records["terminated"].astype(bool),
        }
        self._show(len(records))

    def __len__(self) -> int:
        return len(self.lengths)

    def num_rows(self, name: str, episodes: int) -> int:
        """Count the rows of one file that the first `episodes` episodes take."""
        frames = self.num_frames if episodes == len(self) else int(self.starts[episodes])
        return frames - episodes if name in ("actions", "rewards") else frames

    def append(self, length: int, seed: int, terminated: bool) -> None:
        """Add one episode, in amortized constant time."""
        count = len(self)
        if count == len(self._columns["lengths"]):
            for name, column in self._columns.items():
                self._columns[name] = np.resize(column, max(64, 2 * count))
        row = (length, self.num_frames, self.num_frames - count, seed, terminated)
        for column, value in zip(self._columns.values(), row, strict=True):
            column[count] = value
        self.num_frames += length
        self._show(count + 1)

    def select(self, episodes: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> EpisodeTable:
        """Make episodes of parts of episodes; see `ReplayBuffer.select`."""
        table = EpisodeTable(np.empty(0, RECORD))
        table._columns = {
            "lengths": lengths,
            "starts": self.starts[episodes] + starts,
            "first_steps": self.first_steps[episodes] + starts,
            "seeds": np.where(starts == 0, self.seeds[episodes], -1),
            "terminated": self.terminated[episodes] & (starts + lengths == self.lengths[episodes]),
        }
        table.num_frames = int(lengths.sum())
        table._show(len(episodes))
        return table

    def _show(self, count: int) -> None:
        for name, column in self._columns.items():
            view = column[:count]
            view.flags.writeable = False
            setattr(self, name, view)


class EpisodeLog:
    """The files of one replay buffer.

    Args:
        directory: where the files are.
        header: what they hold.
        lock: held by the caller if episodes will be appended; None for reading only.

    Raises:
        ReplayBufferError: If the files are truncated or damaged.
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
        self._index = RowFile(directory / "index.bin", (), RECORD)
        self._lock = lock
        self._unsynced_bytes = 0
        self._closed = False
        self.episodes, self._num_records = self._recover()
        if lock is not None:
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
        record = _record(EPISODE, len(self.episodes), length, seed, terminated, crc)
        try:
            for name, array in rows.items():
                self.files[name].write(self._committed_rows(name), array)
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
            self._append_record(_record(SYNC, len(self.episodes)))
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
        records, durable, ends, cut_off = _read_index(self._index.path)
        if cut_off:
            _log.warning(
                "%s is damaged: the record of episode %d fails its checksum, and %d episodes after "
                "it are left out; copy the directory before you append to it",
                self._index.path,
                len(records),
                cut_off,
            )
        table = EpisodeTable(records)
        for name, file in self.files.items():
            needed = table.num_rows(name, durable) * file.row_bytes
            if file.size() < needed:
                raise ReplayBufferError(
                    f"{file.path} is truncated: {needed} bytes expected, {file.size()} found; "
                    "restore the file from a copy, or delete the directory and collect again"
                )
        kept = durable
        while kept < len(table) and self._is_whole(table, kept, records["data_crc"][kept]):
            kept += 1
        if kept < len(table):
            _log.warning(
                "%s: the last %d of %d episodes did not reach the disk before a power cut; "
                "they are left out",
                self.directory,
                len(table) - kept,
                len(table),
            )
        return EpisodeTable(records[:kept]), int(ends[kept])

    def _is_whole(self, table: EpisodeTable, episode: int, crc: int) -> bool:
        """Check whether the rows of an episode that was not synced match their checksum."""
        arrays = []
        for name, file in self.files.items():
            first, stop = (table.num_rows(name, n) for n in (episode, episode + 1))
            if file.size() < stop * file.row_bytes:
                return False
            arrays.append(file.rows(stop)[first:])
        return _checksum(arrays) == crc


def _read_index(path: Path) -> tuple[np.ndarray, int, np.ndarray, int]:
    """Read the longest intact prefix of an index file.

    Returns:
        The EPISODE records (E,); how many of them a SYNC record covers; for n from 0 to E the
        number of records, of both kinds, before episode n, int64 (E+1,); and the number of intact
        EPISODE records after a damaged one, 0 if that one was never written.

    Raises:
        ReplayBufferError: If an intact SYNC record follows a damaged record.
    """
    content = path.read_bytes() if path.exists() else b""
    size = RECORD.itemsize
    records = np.frombuffer(content, RECORD, count=len(content) // size)
    starts = range(0, len(records) * size, size)
    crcs = [zlib.crc32(content[start : start + _CHECKED_BYTES]) for start in starts]
    is_episode, is_sync = records["kind"] == EPISODE, records["kind"] == SYNC
    intact = (np.array(crcs, np.uint32) == records["crc"]) & (is_episode | is_sync)
    in_order = intact & (records["sequence"] == np.cumsum(is_episode) - is_episode)
    count = len(records) if in_order.all() else int(np.argmin(in_order))
    if (intact & is_sync)[count:].any():
        raise ReplayBufferError(
            f"{path} is damaged: record {count} fails its checksum but later ones do not; "
            "restore the file from a copy, or delete the directory and collect again"
        )
    episodes = np.flatnonzero(is_episode[:count])
    synced = records["sequence"][:count][is_sync[:count]]
    durable = int(synced[-1]) if len(synced) else 0
    written = count < len(records) and bool((is_episode | is_sync)[count])
    cut_off = int((intact & is_episode)[count:].sum()) if written else 0
    return records[episodes], durable, np.append(episodes, count), cut_off


def _record(
    kind: int, sequence: int, length: int = 0, seed: int = -1, ended: bool = False, crc: int = 0
) -> np.ndarray:
    """Make one index record with its checksum, (1,)."""
    record = np.array([(kind, ended, sequence, length, seed, crc, 0)], RECORD)
    record["crc"] = zlib.crc32(record.tobytes()[:_CHECKED_BYTES])
    return record


def _checksum(arrays: Iterable[np.ndarray]) -> int:
    """Compute the CRC-32 of the bytes of C-contiguous arrays, one after another."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(_bytes_of(array), crc)
    return crc


def _bytes_of(array: np.ndarray) -> memoryview:
    """View the bytes of a C-contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8).data
