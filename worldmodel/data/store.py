"""One append-only file of rows of one shape and dtype, read through a memory map."""

from __future__ import annotations

import math
import os
import zlib
from io import FileIO
from pathlib import Path

import numpy as np

from worldmodel.data.errors import ReplayBufferError


class RowFile:
    """Rows of ``(*shape)`` and ``dtype`` in one file.

    Writing goes through ``write`` and not through the map, so a full disk is an ``OSError``
    where a map would end the process with SIGBUS, and no written page counts as the process's
    own memory. Reading goes through a read-only map of the committed rows.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str | np.dtype) -> None:
        self.path = path
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.row_bytes = math.prod(shape) * self.dtype.itemsize
        self._mapped = np.empty((0, *shape), self.dtype)
        self._file: FileIO | None = None

    def open_for_writing(self, rows: int) -> None:
        """Open the file and cut off whatever an interrupted append left beyond ``rows``."""
        self._file = open_read_write(self.path)
        self._file.truncate(rows * self.row_bytes)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write ``rows`` (N, *shape) at row ``start``.

        Raises:
            OSError: if the disk is full.
        """
        assert self._file is not None
        write_at(self._file, start * self.row_bytes, np.ascontiguousarray(rows, self.dtype))

    def sync(self) -> None:
        """Force what was written to the disk."""
        assert self._file is not None
        os.fsync(self._file.fileno())

    def rows(self, count: int) -> np.ndarray:
        """The first ``count`` rows, (count, *shape), read-only, memory-mapped."""
        if len(self._mapped) < count:
            mapped = np.memmap(self.path, self.dtype, mode="r", shape=(count, *self.shape))
            self._mapped = mapped.view(np.ndarray)
        return self._mapped[:count]

    def rows_on_disk(self) -> int:
        """How many whole rows the file holds, committed or not."""
        return self.path.stat().st_size // self.row_bytes if self.path.exists() else 0

    def require(self, count: int) -> None:
        """Check that the file holds at least ``count`` rows.

        Raises:
            ReplayBufferError: if it is shorter.
        """
        if self.rows_on_disk() < count:
            found = self.path.stat().st_size if self.path.exists() else 0
            raise ReplayBufferError(
                f"{self.path} is truncated: {count * self.row_bytes} bytes expected, {found} "
                "found; restore the file from a copy, or delete the directory and collect again"
            )

    def close(self) -> None:
        """Close the file and drop the map; arrays already handed out stay valid."""
        self._mapped = self._mapped[:0]
        if self._file is not None:
            self._file.close()
            self._file = None


def open_read_write(path: Path) -> FileIO:
    """Open a file for unbuffered writing at any position, creating it if missing."""
    return FileIO(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644), "r+")


def write_at(file: FileIO, offset: int, data: bytes | np.ndarray) -> None:
    """Write all of ``data`` at ``offset``; one system call may take only a part of it."""
    view = memoryview(data) if isinstance(data, bytes) else as_bytes(data)
    file.seek(offset)
    while view:
        view = view[file.write(view) :]


def checksum(*arrays: np.ndarray) -> int:
    """CRC-32 of the bytes of the arrays, one after another."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(as_bytes(array), crc)
    return crc


def as_bytes(array: np.ndarray) -> memoryview:
    """The bytes of a C-contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8).data
