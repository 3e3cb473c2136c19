"""The files of a replay buffer: rows of data, and the index that commits them.

An episode is written in two steps: its rows go into ``frames.bin`` (in compressed buffers also
``offsets.bin``), ``actions.bin``, ``rewards.bin`` and ``states.bin``, then one record goes into
``index.bin``. Only the record makes the episode part of the buffer. This gives four promises:

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
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
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
from worldmodel.data.row_files import CompressedRowFile, RowFile, Surplus, bytes_of, data_files
from worldmodel.errors import ReplayBufferError

DataFiles = Mapping[str, RowFile | CompressedRowFile]
"""The data files of a buffer by name, in the order in which they are written."""

SYNC_EVERY_BYTES = 256 * 2**20

_log = logging.getLogger(__name__)


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
            self._index_crc = _checksum([self._index.rows(self._num_records)])
            for name, file in self.files.items():
                file.open_for_writing(self._committed_rows(name))

    def gather(self, name: str, first: np.ndarray, length: int, out: np.ndarray) -> None:
        """Copy `length` rows from each first row (B,) into `out` (B, length, ...).

        Raises:
            ReplayBufferError: If the buffer is closed, or compressed rows are damaged.
        """
        self._require_open()
        self.files[name].gather(first, length, out, self._committed_rows(name))

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
        records, index_crc = self._num_records, self._index_crc
        try:
            for name, array in rows.items():
                self.files[name].write(self._committed_rows(name), array)
            self._append_record(record)
        except BaseException as error:
            self._num_records, self._index_crc = records, index_crc
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
            self._append_record(make_record(SYNC, len(self.episodes), crc=self._index_crc))
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
        self._index_crc = _checksum([record], self._index_crc)

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
            file.require(table.num_rows(name, index.durable))
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
        for name, file in self.files.items():
            file.require_end(self._committed_rows(name))
        unknown = {
            name: file.surplus(self._committed_rows(name)) for name, file in self.files.items()
        }
        no_index = any(extra.size for extra in unknown.values()) and not self._index.path.exists()
        if self._left_out or no_index or not _is_unfinished(unknown):
            raise ReplayBufferError(
                f"{self.directory}: index.bin lists {len(self.episodes)} episodes, and the other "
                f"files hold more data ({unknown['frames'].size:,} bytes of frames), "
                "which appending would overwrite; restore index.bin from a copy, or run "
                f"`worldmodel repair {self.directory}`"
            )


def _is_unfinished(unknown: dict[str, Surplus]) -> bool:
    """Check whether what the index does not know is one episode that was being written."""
    frames = unknown["frames"]
    complete = not frames.partial and frames.rows > 1
    for name, extra in unknown.items():
        if name == "frames":
            continue
        found, expected = (extra.rows, extra.partial), frames.rows - (name != "states")
        if extra.size and not (complete and found <= (expected, False)):
            return False
        complete = complete and found == (expected, False)
    return True


def episode_checksum(files: DataFiles, table: EpisodeTable, episode: int) -> int | None:
    """Compute the CRC-32 of an episode's rows, not compressed, one file after another.

    Returns:
        None if a file is too short for them, or they are damaged and do not decode.
    """
    ends = {name: [table.num_rows(name, n) for n in (episode, episode + 1)] for name in files}
    try:
        return _checksum(
            part for name, file in files.items() for part in file.contents(*ends[name])
        )
    except ReplayBufferError:
        return None


def is_whole(files: DataFiles, table: EpisodeTable, episode: int, crc: int) -> bool:
    """Check whether the rows of an episode match the checksum of its record."""
    return episode_checksum(files, table, episode) == crc


def _checksum(arrays: Iterable[np.ndarray], crc: int = 0) -> int:
    """Compute the CRC-32 of the bytes of C-contiguous arrays, after those of which it is `crc`."""
    for array in arrays:
        crc = zlib.crc32(bytes_of(array), crc)
    return crc
