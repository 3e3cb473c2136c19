"""The data files of a replay buffer: rows of numbers, as they are or compressed one by one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import lz4.block
import numpy as np

from worldmodel.data.header import Header
from worldmodel.errors import ReplayBufferError

_MAX_RATIO = 255
"""LZ4 never compresses more than this: a run takes one byte per 255."""

_ROWS_AT_ONCE = 256
"""Compressed rows that are decoded together for a checksum."""


class Surplus(NamedTuple):
    """What a file holds beyond some rows.

    Attributes:
        size: bytes.
        rows: whole rows.
        partial: whether there is more than these whole rows.
    """

    size: int
    rows: int
    partial: bool


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
        data = bytes_of(np.ascontiguousarray(rows, self.dtype))
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

    def gather(self, first: np.ndarray, length: int, out: np.ndarray, count: int) -> None:
        """Copy `length` rows from each first row (B,) into `out` (B, length, *shape).

        Args:
            first: int64 (B,), valid.
            length: rows per window.
            out: C-contiguous.
            count: committed rows.
        """
        # The rows are valid; with mode="clip" NumPy copies straight into `out`.
        rows = first[:, None] + np.arange(length)
        np.take(self.rows(count), rows, axis=0, out=out, mode="clip")

    def contents(self, first: int, stop: int) -> Iterator[np.ndarray]:
        """Yield rows `first` to `stop`, some at a time.

        Raises:
            ReplayBufferError: If they are not in the file, or damaged.
        """
        self.require(stop)
        yield self.rows(stop)[first:]

    def require(self, rows: int) -> None:
        """Raise ReplayBufferError if the file is too short for its first `rows` rows."""
        needed = rows * self.row_bytes
        if self.size() < needed:
            raise ReplayBufferError(
                f"{self.path} is truncated: {needed} bytes expected, {self.size()} found; "
                "restore the file from a copy, or delete the directory and collect again"
            )

    def require_end(self, rows: int) -> None:
        """Raise ReplayBufferError unless it is certain where the first `rows` rows end."""
        self.require(rows)

    def surplus(self, rows: int) -> Surplus:
        """Return what the file holds beyond its first `rows` rows."""
        size = max(0, self.size() - rows * self.row_bytes)
        whole, rest = divmod(size, self.row_bytes)
        return Surplus(size, whole, rest > 0)

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


class CompressedRowFile:
    """Rows of ``(*shape)`` and ``dtype``, each an LZ4 block, with the interface of `RowFile`.

    The blocks are one after another in `path`, and ``offsets.bin`` has the byte at which each one
    ends, so that any row is decoded alone. Sizes are checked before memory is allocated.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str | np.dtype) -> None:
        self.path = path
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.row_bytes = math.prod(shape) * self.dtype.itemsize
        self._blocks = RowFile(path, (), "uint8")
        self._ends = RowFile(path.with_name("offsets.bin"), (), "uint64")

    def open_for_writing(self, rows: int) -> None:
        """Open or create the files, unbuffered, and cut them to their first `rows` rows."""
        self._blocks.open_for_writing(self._end(rows))
        self._ends.open_for_writing(rows)

    def cut(self, rows: int) -> None:
        """Cut the files to their first `rows` rows."""
        self._blocks.cut(self._end(rows))
        self._ends.cut(rows)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Compress and write rows (N, *shape) at row `start`."""
        rows = np.ascontiguousarray(rows, self.dtype)
        blocks = [lz4.block.compress(bytes_of(row), store_size=False) for row in rows]
        end = self._end(start)
        self._blocks.write(end, np.frombuffer(b"".join(blocks), np.uint8))
        self._ends.write(start, end + np.cumsum([len(block) for block in blocks]))

    def sync(self) -> None:
        """Force what was written to the disk."""
        self._blocks.sync()
        self._ends.sync()

    def gather(self, first: np.ndarray, length: int, out: np.ndarray, count: int) -> None:
        """Decode `length` rows from each first row (B,) into `out`; see `RowFile.gather`.

        Raises:
            ReplayBufferError: If a row is damaged.
        """
        self._decode((first[:, None] + np.arange(length)).ravel(), bytes_of(out), count)

    def contents(self, first: int, stop: int) -> Iterator[np.ndarray]:
        """Yield rows `first` to `stop`, some at a time; see `RowFile.contents`."""
        self.require(stop)
        for start in range(first, stop, _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, stop))
            out = np.empty((len(rows), self.row_bytes), np.uint8)
            self._decode(rows, bytes_of(out), stop)
            yield out

    def require(self, rows: int) -> None:
        """Raise ReplayBufferError if the files are too short for their first `rows` rows."""
        self._ends.require(rows)
        end = self._end(rows)
        self._blocks.require(end)
        if rows * self.row_bytes > end * _MAX_RATIO:
            raise ReplayBufferError(
                f"{self.path} is damaged: its {end} bytes cannot hold {rows} frames of "
                f"{self.row_bytes} bytes; restore {self._ends.path.name} and header.json from a "
                "copy, or delete the directory and collect again"
            )

    def require_end(self, rows: int) -> None:
        """Raise ReplayBufferError unless it is certain where the first `rows` rows end.

        Only the true end decodes; cutting the file at another one would delete frames.
        """
        self.require(rows)
        if rows:
            self._decode(np.array([rows - 1]), memoryview(bytearray(self.row_bytes)), rows)

    def surplus(self, rows: int) -> Surplus:
        """Return what the files hold beyond their first `rows` rows."""
        more = self._ends.surplus(rows)
        size = max(0, self._blocks.size() - self._end(rows))
        complete = not more.partial and self._end(rows + more.rows) == self._blocks.size()
        return Surplus(size + more.size, more.rows, not complete)

    def unmap(self) -> None:
        """Drop the maps until rows are read again."""
        self._blocks.unmap()
        self._ends.unmap()

    def size(self) -> int:
        """Return the number of bytes in both files, committed or not."""
        return self._blocks.size() + self._ends.size()

    def close(self) -> None:
        """Close the files and drop the maps."""
        self._blocks.close()
        self._ends.close()

    def _end(self, rows: int) -> int:
        """Return the byte at which the first `rows` rows end."""
        return int(self._ends.rows(rows)[rows - 1]) if rows else 0

    def _bounds(self, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first byte and the end of each of rows (N,), int64 (N,).

        Raises:
            ReplayBufferError: If they are not within the file, or too close for a row.
        """
        stated = self._ends.rows(count)
        starts = np.where(rows > 0, stated[rows - 1], 0).astype(np.int64)
        ends = stated[rows].astype(np.int64)
        within = (starts >= 0) & (starts < ends) & (ends <= self._end(count))
        good = within & (_MAX_RATIO * (ends - starts) >= self.row_bytes)
        if not good.all():
            raise self._damage(int(rows[np.argmin(good)]))
        return starts, ends

    def _decode(self, rows: np.ndarray, out: memoryview, count: int) -> None:
        """Decode rows (N,) into `out`, N * row_bytes bytes."""
        starts, ends = self._bounds(rows, count)
        blocks, size = bytes_of(self._blocks.rows(self._end(count))), self.row_bytes
        for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            try:
                row = lz4.block.decompress(blocks[start:end], uncompressed_size=size)
            except lz4.block.LZ4BlockError as error:
                raise self._damage(int(rows[i])) from error
            if len(row) != size:
                raise self._damage(int(rows[i]))
            out[i * size : (i + 1) * size] = row

    def _damage(self, row: int) -> ReplayBufferError:
        return ReplayBufferError(
            f"{self.path} or {self._ends.path.name} is damaged at frame {row}: it does not decode "
            "to the size of a frame; restore both from a copy, or collect the data again"
        )


def data_files(directory: Path, header: Header) -> dict[str, RowFile | CompressedRowFile]:
    """Return the files with the rows of a buffer, in the order in which they are written."""
    kind = CompressedRowFile if header.compression == "lz4" else RowFile
    files: dict[str, RowFile | CompressedRowFile] = {
        "frames": kind(directory / "frames.bin", header.frame_shape, header.frame_dtype),
        "actions": RowFile(directory / "actions.bin", header.action_shape, header.action_dtype),
        "rewards": RowFile(directory / "rewards.bin", (), "float32"),
    }
    if header.state_dim:
        files["states"] = RowFile(directory / "states.bin", (header.state_dim,), "float64")
    return files


def bytes_of(array: np.ndarray) -> memoryview:
    """View the bytes of a C-contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8).data
