"""Verification of a replay buffer against its checksums, and repair of its index."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from worldmodel.data.header import Header, lock_for_writing
from worldmodel.data.index import EPISODE, SYNC, EpisodeTable, make_record, read_records
from worldmodel.data.row_files import data_files
from worldmodel.data.shards import Manifest, directories, is_sharded, open_shards
from worldmodel.data.storage import DataFiles, EpisodeLog, episode_checksum, is_whole
from worldmodel.errors import Problem, ReplayBufferError
from worldmodel.files import replacing


def check_buffer(path: str | Path) -> list[Problem]:
    """Read a whole buffer and compare every episode with its checksum. Nothing is changed.

    Args:
        path: the buffer's directory.

    Returns:
        What is damaged; empty if the buffer is intact.
    """
    path = Path(path)
    if is_sharded(path):
        return _check_shards(path)
    try:
        header = Header.read(path)
    except ReplayBufferError as error:
        return [Problem(str(error), "restore header.json from a copy")]
    try:
        log = EpisodeLog(path, header, None)
    except ReplayBufferError as error:
        return [Problem(str(error), f"worldmodel repair {path}")]
    try:
        copy = "restore the data files from a copy, or collect the data again"
        problems = [
            Problem(f"{path}: episode {e} (seed {seed}) does not match its checksum", copy)
            for e, (seed, crc) in enumerate(zip(log.episodes.seeds, log.checksums, strict=True))
            if not is_whole(log.files, log.episodes, e, crc)
        ]
        log.require_known()
    except ReplayBufferError as error:
        problems.append(Problem(str(error), f"worldmodel repair {path}"))
    finally:
        log.close()
    return problems


def _check_shards(path: Path) -> list[Problem]:
    try:
        shards = directories(path)
        problems = [problem for shard in shards for problem in check_buffer(shard)]
        if not problems:
            open_shards(shards, path, Manifest.read(path))[1].close()
    except ReplayBufferError as error:
        fix = "restore what is missing from a copy, or repeat the command that collects the buffer"
        return [Problem(str(error), fix)]
    return problems


def repair_buffer(path: str | Path, *, discard: bool = False) -> str:
    """Repair the index of a buffer, so that it can be read and appended to.

    One damaged record is rebuilt: the length of its episode follows from the sizes of the files,
    and is accepted only if all other episodes then match their checksums. The episode has no seed
    afterwards and does not count as terminated.

    Args:
        path: the buffer's directory.
        discard: if that is not possible, delete all data that the index does not list.

    Returns:
        What was done, one sentence.

    Raises:
        ReplayBufferError: If there is no buffer, another process writes it, or it cannot be
            repaired without losing episodes and `discard` is not set.
    """
    path = Path(path)
    header = Header.read(path)
    lock = lock_for_writing(path)
    try:
        EpisodeLog(path, header, lock).close()
        return f"{path} needs no repair"
    except ReplayBufferError as damage:
        files = data_files(path, header)
        found, intact = read_records(path / "index.bin")
        records = found[intact & (found["kind"] == EPISODE)]
        whole = _with_missing_record(files, records)
        if whole is not None:
            _write_index(path, whole)
            return f"{path}: repaired, index.bin lists all {len(whole)} episodes"
        kept = _known_episodes(files, records)
        if not discard:
            raise ReplayBufferError(
                f"{damage}; without a copy of index.bin, only the first {len(kept)} episodes can "
                "be kept: --discard deletes all other data"
            ) from damage
        _write_index(path, kept)
        table = EpisodeTable(kept)
        for name, file in files.items():
            file.open_for_writing(table.num_rows(name, len(kept)))
            file.close()
        return f"{path}: kept {len(kept)} episodes and deleted all other data"
    finally:
        lock.release()


def _with_missing_record(files: DataFiles, records: np.ndarray) -> np.ndarray | None:
    """Return all records, with a missing one rebuilt; None if that is not possible.

    Args:
        files: of the buffer.
        records: the intact EPISODE records.
    """
    known = {int(record["sequence"]): record for record in records}
    gaps = sorted(set(range(len(known))) - known.keys())
    if len(gaps) > 1 or set(known) - set(range(len(known) + 1)):
        return None
    gap = gaps[0] if gaps else len(known)
    length = files["frames"].surplus(0).rows - sum(int(r["length"]) for r in known.values())
    if length < 2:
        return None
    known[gap] = make_record(EPISODE, gap, length)[0]
    whole = np.array([known[n] for n in range(len(known))])
    table = EpisodeTable(whole)
    found = {name: file.surplus(0) for name, file in files.items()}
    if any(
        part.partial or part.rows != table.num_rows(name, len(table))
        for name, part in found.items()
    ):
        return None
    others = [n for n in range(len(table)) if n != gap]
    crc = episode_checksum(files, table, gap)
    if crc is None or not all(is_whole(files, table, n, whole["data_crc"][n]) for n in others):
        return None
    whole[gap] = make_record(EPISODE, gap, length, crc=crc)[0]
    return whole


def _known_episodes(files: DataFiles, records: np.ndarray) -> np.ndarray:
    """Return the records of the first episodes up to a gap, as far as the files have their rows.

    Episodes that do not match their checksum are kept; `check_buffer` reports them.
    """
    kept = 0
    while kept < len(records) and records["sequence"][kept] == kept:
        kept += 1
    table = EpisodeTable(records[:kept])

    def present(episodes: int) -> bool:
        try:
            for name, file in files.items():
                file.require_end(table.num_rows(name, episodes))
        except ReplayBufferError:
            return False
        return True

    return records[: next(n for n in range(kept, -1, -1) if present(n))]


def _write_index(path: Path, records: np.ndarray) -> None:
    content = np.append(records, make_record(SYNC, len(records), crc=zlib.crc32(records.tobytes())))
    with replacing(path / "index.bin") as temporary:
        temporary.write_bytes(content.tobytes())
