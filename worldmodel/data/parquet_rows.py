"""Rows of parquet files as arrays; sizes are checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MAX_GROUP_BYTES = 2**31
"""Largest row group, uncompressed: it is read as a whole."""


class ParquetRows:
    """Reads ranges of rows of several files; keeps one file open and its last row group.

    Args:
        parquet: the module `pyarrow.parquet`.
        columns: columns to read.
    """

    def __init__(self, parquet: Any, columns: Sequence[str]) -> None:
        self._parquet, self._columns = parquet, list(columns)
        self._path: Path | None = None
        self._file: Any = None
        self._ends = np.empty(0, np.int64)
        self._kept: tuple[int, Any] = (-1, None)

    def read(self, path: Path, start: int, count: int) -> Any:
        """Read `count` rows from row `start` on, as a `pyarrow.Table`.

        Raises:
            ValueError: If the file is damaged or has fewer rows.
        """
        if path != self._path:
            self._open(path)
        if not 0 <= start <= start + count <= (self._ends[-1] if len(self._ends) else 0):
            raise ValueError(f"{path} has no rows {start} to {start + count - 1}")
        first, last = np.searchsorted(self._ends, [start, start + count - 1], side="right")
        groups = [self._group(int(i)) for i in range(first, last + 1)]
        before = int(self._ends[first - 1]) if first else 0
        if len(groups) == 1:
            return groups[0].slice(start - before, count)
        import pyarrow

        return pyarrow.concat_tables(groups).slice(start - before, count)

    def _open(self, path: Path) -> None:
        self._file, self._path = open_parquet(self._parquet, path, self._columns), path
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._ends, self._kept = np.cumsum(sizes, dtype=np.int64), (-1, None)

    def _group(self, number: int) -> Any:
        if self._kept[0] != number:
            with _reading(self._path):
                table = self._file.read_row_group(number, columns=self._columns)
            self._kept = (number, table)
        return self._kept[1]


def read_columns(
    parquet: Any, paths: Sequence[Path], columns: Sequence[str], most: int
) -> dict[str, np.ndarray]:
    """Read whole columns of numbers of several files, joined.

    Args:
        parquet: the module `pyarrow.parquet`.
        paths: the files, in order.
        columns: columns to read.
        most: largest number of rows.

    Returns:
        By column, (N,).

    Raises:
        ValueError: If a file is damaged, a column is missing, or there are more rows.
    """
    parts: list[dict[str, np.ndarray]] = []
    rows = 0
    for path in paths:
        file = open_parquet(parquet, path, columns)
        rows += file.metadata.num_rows
        if rows > most:
            raise ValueError(f"{path}: there are more than the {most} rows that were announced")
        with _reading(path):
            table = file.read(columns=list(columns))
        parts.append({name: to_array(table[name]) for name in columns})
    return {
        name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0, np.int64)
        for name in columns
    }


def open_parquet(parquet: Any, path: Path, columns: Sequence[str]) -> Any:
    """Open a file and check columns and sizes by its footer.

    Raises:
        ValueError: If it is damaged, lacks a column, or has a row group that is too large.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; download the dataset again")
    with _reading(path):
        file = parquet.ParquetFile(path)
    if missing := set(columns) - set(file.schema_arrow.names):
        raise ValueError(f"{path} has no column {', '.join(sorted(missing))}")
    for number in range(file.metadata.num_row_groups):
        if (size := _group_bytes(file.metadata.row_group(number))) > MAX_GROUP_BYTES:
            raise ValueError(
                f"{path} has a row group of {size >> 20} MiB; at most {MAX_GROUP_BYTES >> 20} MiB "
                "are read: write it with one row group per episode"
            )
    return file


def _group_bytes(group: Any) -> int:
    """Estimate the memory that a row group needs; repeated values take none in the file."""
    columns = (group.column(i) for i in range(group.num_columns))
    return sum(max(column.total_uncompressed_size, 8 * column.num_values) for column in columns)


def to_array(column: Any) -> np.ndarray:
    """Convert a column of numbers, or of nested lists of numbers, to a flat array.

    Raises:
        ValueError: If it holds anything else, or missing values.
    """
    values = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    values = getattr(values, "storage", values)
    while str(values.type).startswith(("list", "large_list", "fixed_size_list")):
        values = values.flatten()
    array = np.asarray(values.to_numpy(zero_copy_only=False))
    if values.null_count or array.dtype.kind not in "biuf":
        raise ValueError(f"a column holds {values.type} or missing values; expected numbers")
    return array


@contextmanager
def _reading(path: Path | None) -> Iterator[None]:
    """Report errors of pyarrow as damage of a file."""
    try:
        yield
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
