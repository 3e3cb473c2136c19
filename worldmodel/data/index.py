"""The index of a replay buffer: one fixed-size, checksummed record commits one episode.

Records are only ever appended. An ``EPISODE`` record is written after the episode's data, so an
episode exists exactly when its record is whole. A ``SYNC`` record is written after the data
and all records before it were forced to the disk: episodes before it survive a power cut, episodes
after it are checked against their data checksum when the buffer is opened.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from worldmodel.data.errors import ReplayBufferError

EPISODE = 0x45504953
SYNC = 0x53594E43

RECORD = np.dtype(
    [
        ("kind", "<u4"),
        ("terminated", "<u4"),
        ("sequence", "<u8"),  # number of episodes committed before this record
        ("length", "<u8"),  # frames
        ("seed", "<i8"),
        ("data_crc", "<u4"),
        ("crc", "<u4"),  # of the bytes before it
    ]
)
_CHECKED_BYTES = RECORD.itemsize - 4


class Scan(NamedTuple):
    """What an index file says.

    Attributes:
        episodes: the committed ``EPISODE`` records, in order.
        durable: how many of them a ``SYNC`` record covers.
        ends: ``ends[n]`` is the file's length in bytes when it held ``n`` episodes, markers
            before the next episode included.
    """

    episodes: np.ndarray
    durable: int
    ends: np.ndarray


def pack(
    kind: int,
    sequence: int,
    *,
    length: int = 0,
    seed: int = -1,
    terminated: bool = False,
    data_crc: int = 0,
) -> bytes:
    """One record as bytes, its checksum filled in."""
    record = np.zeros((), RECORD)
    record["kind"], record["sequence"], record["length"] = kind, sequence, length
    record["seed"], record["terminated"], record["data_crc"] = seed, terminated, data_crc
    record["crc"] = zlib.crc32(record.tobytes()[:_CHECKED_BYTES])
    return record.tobytes()


def scan(path: Path) -> Scan:
    """Read the longest intact prefix of an index file; a torn tail is left out.

    Raises:
        ReplayBufferError: if intact, synced records follow a damaged one. That is no torn tail
            but a damaged file.
    """
    content = path.read_bytes() if path.exists() else b""
    records = np.frombuffer(content, RECORD, count=len(content) // RECORD.itemsize)
    whole = _whole(content, records)
    is_episode = records["kind"] == EPISODE
    expected = np.cumsum(is_episode) - is_episode
    good = whole & (records["sequence"] == expected)
    count = len(good) if good.all() else int(np.argmin(good))
    if (whole[count:] & (records["kind"][count:] == SYNC)).any():
        raise ReplayBufferError(
            f"{path} is damaged: record {count} fails its checksum but later ones do not; "
            "restore the file from a copy, or delete the directory and collect again"
        )
    records, is_episode = records[:count], is_episode[:count]
    synced = records["sequence"][records["kind"] == SYNC]
    positions = np.flatnonzero(is_episode)
    return Scan(
        episodes=records[is_episode],
        durable=int(synced[-1]) if len(synced) else 0,
        ends=np.append(positions, count) * RECORD.itemsize,
    )


def _whole(content: bytes, records: np.ndarray) -> np.ndarray:
    """Which records carry a known kind and the right checksum, (N,) bool."""
    size = RECORD.itemsize
    view = memoryview(content)
    checksums = np.fromiter(
        (zlib.crc32(view[i * size : i * size + _CHECKED_BYTES]) for i in range(len(records))),
        np.uint32,
        count=len(records),
    )
    return (checksums == records["crc"]) & np.isin(records["kind"], (EPISODE, SYNC))
