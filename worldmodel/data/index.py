"""The index of a replay buffer: its records on disk, and the table of episodes in memory."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldmodel.errors import ReplayBufferError

EPISODE = 0x45504953
SYNC = 0x53594E43
RECORD = np.dtype(
    [
        ("kind", "<u4"),  # EPISODE or SYNC
        ("terminated", "<u4"),
        ("sequence", "<u8"),  # number of episodes committed before this record
        ("length", "<u8"),  # frames
        ("seed", "<i8"),
        ("data_crc", "<u4"),  # of the episode's rows; in SYNC records, of all records before
        ("crc", "<u4"),  # of the bytes before it
    ]
)
_CHECKED_BYTES = RECORD.itemsize - 4
_MAX_LENGTH = 2**40


@dataclass(frozen=True)
class Index:
    """The longest intact prefix of an index file.

    Attributes:
        records: EPISODE records, `RECORD` (E,).
        durable: how many of them a SYNC record covers.
        ends: for n from 0 to E, the number of records of both kinds before episode n, (E+1,).
        cut_off: number of intact EPISODE records after a damaged one; 0 if that one was never
            written.
    """

    records: np.ndarray
    durable: int
    ends: np.ndarray
    cut_off: int


def read_records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read all records, `RECORD` (N,), and whether each one is intact, bool (N,)."""
    content = path.read_bytes() if path.exists() else b""
    size = RECORD.itemsize
    records = np.frombuffer(content, RECORD, count=len(content) // size)
    first = _verified_together(content, records)
    starts = range(first * size, len(records) * size, size)
    crcs = records["crc"].copy()
    crcs[first:] = [zlib.crc32(content[start : start + _CHECKED_BYTES]) for start in starts]
    possible = (records["length"] >= 2) & (records["length"] < _MAX_LENGTH)
    known = ((records["kind"] == EPISODE) & possible) | (records["kind"] == SYNC)
    return records, (crcs == records["crc"]) & known


def _verified_together(content: bytes, records: np.ndarray) -> int:
    """Return how many first records the last SYNC record shows to be intact.

    Its checksum of all records before it spares their own: opening a buffer then takes hardly
    longer for more episodes. SYNC records of older versions hold none.
    """
    syncs = np.flatnonzero(records["kind"] == SYNC)
    if not len(syncs):
        return 0
    last = int(syncs[-1])
    crc = zlib.crc32(memoryview(content)[: last * RECORD.itemsize])
    return last if crc == records["data_crc"][last] else 0


def read_index(path: Path) -> Index:
    """Read the longest intact prefix of an index file.

    Raises:
        ReplayBufferError: If an intact SYNC record follows a damaged record.
    """
    records, intact = read_records(path)
    is_episode, is_sync = records["kind"] == EPISODE, records["kind"] == SYNC
    in_order = intact & (records["sequence"] == np.cumsum(is_episode) - is_episode)
    count = len(records) if in_order.all() else int(np.argmin(in_order))
    if (intact & is_sync)[count:].any():
        raise ReplayBufferError(
            f"{path} is damaged: record {count} fails its checksum but later ones do not; "
            f"restore the file from a copy, or run `worldmodel repair {path.parent}`"
        )
    episodes = np.flatnonzero(is_episode[:count])
    synced = records["sequence"][:count][is_sync[:count]]
    durable = int(synced[-1]) if len(synced) else 0
    written = count < len(records) and bool((is_episode | is_sync)[count])
    cut_off = int((intact & is_episode)[count:].sum()) if written else 0
    return Index(records[episodes], durable, np.append(episodes, count), cut_off)


def make_record(
    kind: int, sequence: int, length: int = 0, seed: int = -1, ended: bool = False, crc: int = 0
) -> np.ndarray:
    """Make one record with its checksum, (1,)."""
    record = np.array([(kind, ended, sequence, length, seed, crc, 0)], RECORD)
    record["crc"] = zlib.crc32(record.tobytes()[:_CHECKED_BYTES])
    return record


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

    @classmethod
    def concatenate(cls, tables: Sequence[EpisodeTable]) -> EpisodeTable:
        """Make one table of several, as if their files were concatenated."""
        whole = cls(np.empty(0, RECORD))
        lengths = np.concatenate([table.lengths for table in tables])
        whole._columns = {
            "lengths": lengths,
            "starts": np.cumsum(lengths) - lengths,
            "first_steps": np.cumsum(lengths - 1) - (lengths - 1),
            "seeds": np.concatenate([table.seeds for table in tables]),
            "terminated": np.concatenate([table.terminated for table in tables]),
        }
        whole.num_frames = int(lengths.sum())
        whole._show(len(lengths))
        return whole

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
