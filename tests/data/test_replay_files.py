"""Replay buffers on disk: damaged, foreign, locked, and on a full disk."""

import json
import logging
import shutil
import zlib
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import pytest
from episodes import BOX, assert_intact, create, episode, fill
from full_disk import files_limited_to

from worldmodel.data import ReplayBuffer, storage
from worldmodel.data.header import VERSION
from worldmodel.data.index import SYNC, make_record
from worldmodel.data.repair import check_buffer
from worldmodel.errors import ReplayBufferError


@contextmanager
def killed_copy(buffer, path):
    """The files as they are on disk if the writer were killed now."""
    shutil.copytree(buffer.path, path)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def ten(tmp_path):
    """A buffer with ten complete episodes, closed."""
    fill(create(tmp_path / "ten"), range(10)).close()
    return tmp_path / "ten"


def change_header(path, **changes):
    header = path / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | changes))


def test_a_reopened_buffer_has_all_settings_and_episodes(tmp_path):
    space = gym.spaces.Box(np.array([-1, -np.inf]), np.array([1, 2]), dtype=np.float64)
    metadata = {"env": "Tiny-v0", "steps": 3, "nested": {"a": [1, 2.5, None]}}
    with create(tmp_path, space, metadata=metadata) as buffer:
        buffer.add_episode(**episode(5, 3))
        buffer.add_episode(**(episode(6, 3) | {"seed": None}))
    with ReplayBuffer.open(tmp_path) as reopened:
        assert reopened.metadata == metadata
        assert reopened.action_space == space
        assert reopened.seeds.tolist() == [5, -1]
        assert reopened.frame_dtype == np.uint8
        assert reopened.frame_shape == (4, 6, 3)
        assert reopened.state_dim == 2
        assert "episodes=2, frames=8" in repr(reopened)


def test_frames_are_stored_once_and_uncompressed(ten):
    frames = int(ReplayBuffer.open(ten).lengths.sum())
    assert (ten / "frames.bin").stat().st_size == frames * 4 * 6 * 3


def test_the_header_is_strict_json(tmp_path):
    space = gym.spaces.Box(-np.inf, np.inf, (1,))
    create(tmp_path, space).close()

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "header.json").read_text(), parse_constant=refuse)


def test_an_index_cut_anywhere_keeps_the_episodes_before_the_cut(tmp_path):
    buffer = fill(create(tmp_path / "all"), range(5))
    size = storage.RECORD.itemsize
    for cut in range(0, 5 * size, 7):
        with killed_copy(buffer, tmp_path / "cut") as path:
            with (path / "index.bin").open("r+b") as file:
                file.truncate(cut)
            with ReplayBuffer.open(path) as found:
                assert len(found) == cut // size
                assert_intact(found)
    buffer.close()


@pytest.mark.parametrize("files", range(5))
@pytest.mark.parametrize("part", [0.4, 1.0])
def test_leftovers_of_an_unfinished_episode_are_overwritten(ten, files, part):
    """A process was killed while it wrote the last of some files, or between two of them."""
    whole = {path.name: path.read_bytes() for path in ten.glob("*.bin")}
    rows = episode(77, 6)
    for name in ("frames", "actions", "rewards", "states")[:files]:
        content = rows[name].tobytes()
        last = name == ("frames", "actions", "rewards", "states")[files - 1]
        with (ten / f"{name}.bin").open("ab") as file:
            file.write(content[: int(part * len(content))] if last else content)
    assert len(ReplayBuffer.open(ten)) == 10
    with ReplayBuffer.open(ten, append=True) as buffer:
        assert {path.name: path.read_bytes() for path in ten.glob("*.bin")} == whole
        fill(buffer, range(10, 12))
    assert_intact(ReplayBuffer.open(ten))


def test_unsynced_episodes_after_a_bad_record_are_left_out_with_a_warning(tmp_path, caplog):
    buffer = fill(create(tmp_path / "open"), range(6))
    with killed_copy(buffer, tmp_path / "damaged") as damaged:
        content = bytearray((damaged / "index.bin").read_bytes())
        content[2 * storage.RECORD.itemsize + 16] ^= 1
        (damaged / "index.bin").write_bytes(content)
        with caplog.at_level(logging.WARNING), ReplayBuffer.open(damaged) as found:
            assert len(found) == 2
        assert "record of episode 2 fails its checksum, and 3 episodes after it" in caplog.text
        assert (damaged / "index.bin").read_bytes() == bytes(content)
    buffer.close()


def test_after_a_power_cut_the_episodes_that_reached_the_disk_are_kept(tmp_path, caplog):
    buffer = fill(create(tmp_path / "all"), range(3))
    buffer.flush()
    fill(buffer, range(3, 8))
    with killed_copy(buffer, tmp_path / "cut") as path:
        lost_from = int(buffer.lengths[:6].sum()) * 72 + 10
        frames = bytearray((path / "frames.bin").read_bytes())
        frames[lost_from:] = bytes(len(frames) - lost_from)
        (path / "frames.bin").write_bytes(frames)
        with caplog.at_level(logging.WARNING):
            found = ReplayBuffer.open(path)
        assert found.seeds.tolist() == list(range(6))
        assert "last 2 of 8 episodes are left out" in caplog.text
        assert_intact(found)
        (path / "frames.bin").write_bytes(frames[:lost_from])
        assert len(ReplayBuffer.open(path)) == 6
    buffer.close()


@pytest.mark.parametrize("name", ["frames", "actions", "rewards", "states"])
def test_a_truncated_data_file_is_reported_with_its_expected_size(ten, name):
    file = ten / f"{name}.bin"
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(size - 1)
    message = rf"{name}\.bin is truncated: {size} bytes expected, {size - 1} found; restore"
    for append in (False, True):
        with pytest.raises(ReplayBufferError, match=message):
            ReplayBuffer.open(ten, append=append)
    file.unlink()
    with pytest.raises(ReplayBufferError, match=f"{size} bytes expected, 0 found"):
        ReplayBuffer.open(ten)


def test_a_bad_record_among_good_ones_is_damage_and_nothing_is_cut(ten):
    file = ten / "index.bin"
    damaged = bytearray(file.read_bytes())
    damaged[3 * storage.RECORD.itemsize + 9] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ReplayBufferError, match=r"index\.bin is damaged: record 3 fails"):
        ReplayBuffer.open(ten, append=True)
    assert file.read_bytes() == damaged


def test_a_path_that_is_not_a_buffer_is_refused(tmp_path):
    with pytest.raises(ReplayBufferError, match="is not a directory"):
        ReplayBuffer.open(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ReplayBufferError, match=r"holds no header\.json"):
        ReplayBuffer.open(tmp_path, append=True)
    with pytest.raises(ReplayBufferError, match=r"is not empty \(notes\.txt\)"):
        create(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) in (
        ["notes.txt"],
        ["notes.txt", "write.lock"],
    )


def test_another_programs_header_is_refused(tmp_path):
    (tmp_path / "header.json").write_text('{"format": "zarr", "version": 1}')
    with pytest.raises(ReplayBufferError, match='lacks "format": "worldmodel-replay"'):
        ReplayBuffer.open(tmp_path)
    (tmp_path / "header.json").write_text("{")
    with pytest.raises(ReplayBufferError, match="not valid JSON"):
        ReplayBuffer.open(tmp_path)


def test_a_newer_format_is_refused(ten):
    change_header(ten, version=VERSION + 1)
    with pytest.raises(ReplayBufferError, match=f"version {VERSION + 1}; .* reads version 1"):
        ReplayBuffer.open(ten)


@pytest.mark.parametrize(
    "change",
    [
        {"frame_dtype": "float64"},
        {"frame_shape": [4, 0, 3]},
        {"action_space": {"type": "Tuple"}},
        {"action_space": {}},
        {"state_dim": -1},
        {"metadata": 3},
    ],
)
def test_a_damaged_header_is_refused(ten, change):
    change_header(ten, **change)
    with pytest.raises(ReplayBufferError, match=r"header\.json is damaged"):
        ReplayBuffer.open(ten)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame_dtype": "float64"}, "frame_dtype is 'float64'"),
        ({"frame_shape": ()}, r"frame_shape is \(\)"),
        ({"space": gym.spaces.MultiBinary(3)}, "stores Box or Discrete actions"),
        ({"metadata": {"a": float("nan")}}, "JSON"),
        ({"metadata": {"a": {1, 2}}}, "JSON"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_made(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        create(tmp_path / "new", **settings)
    create(tmp_path / "new").close()


def test_a_create_that_was_interrupted_can_be_repeated(tmp_path):
    (tmp_path / ".header.0123456789abcdef.json").write_text('{"form')
    (tmp_path / "write.lock").touch()
    with create(tmp_path) as buffer:
        fill(buffer, range(2))
    assert_intact(ReplayBuffer.open(tmp_path))


def test_a_header_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / "header.json").exists()
    create(tmp_path).close()


def test_there_is_one_writer_at_a_time(tmp_path):
    buffer = fill(create(tmp_path), range(3))
    with pytest.raises(ReplayBufferError, match="one writer at a time; wait"):
        ReplayBuffer.open(tmp_path, append=True)
    with pytest.raises(ReplayBufferError, match="one writer at a time"):
        create(tmp_path)
    assert len(ReplayBuffer.open(tmp_path)) == 3
    buffer.close()
    with ReplayBuffer.open(tmp_path, append=True) as again:
        fill(again, range(3, 4))
        assert_intact(again)


def test_a_refused_creation_frees_the_lock(tmp_path):
    (tmp_path / "write.lock").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ReplayBufferError, match=r"is not empty \(notes\.txt\)") as refused:
        create(tmp_path)
    (tmp_path / "notes.txt").unlink()
    create(tmp_path).close()
    assert refused.tb is not None  # its frames keep the lock object alive


def test_a_failed_open_frees_the_lock(ten):
    change_header(ten, version=99)
    with pytest.raises(ReplayBufferError):
        ReplayBuffer.open(ten, append=True)
    change_header(ten, version=VERSION)
    (ten / "frames.bin").rename(ten / "aside")
    with pytest.raises(ReplayBufferError):
        ReplayBuffer.open(ten, append=True)
    (ten / "aside").rename(ten / "frames.bin")
    ReplayBuffer.open(ten, append=True).close()


def test_a_reader_cannot_write_and_a_closed_buffer_cannot_be_used(ten):
    reader = ReplayBuffer.open(ten)
    with pytest.raises(ReplayBufferError, match="open for reading only"):
        reader.add_episode(**episode(0, 3))
    with pytest.raises(ReplayBufferError, match="open for reading only"):
        reader.flush()
    kept = reader.windows([0], [0], 2)
    reader.close()
    reader.close()
    with pytest.raises(ReplayBufferError, match="is closed"):
        reader.windows([0], [0], 2)
    np.testing.assert_array_equal(kept.frames[0], episode(0, 2)["frames"][:2])


@pytest.mark.parametrize("room", [0, 1, 100, 288])
def test_after_a_full_disk_complete_episodes_are_intact_and_more_can_be_added(tmp_path, room):
    buffer = fill(create(tmp_path), range(5))
    size = (tmp_path / "frames.bin").stat().st_size
    with files_limited_to(size + room):
        for _ in range(2):
            with pytest.raises(ReplayBufferError, match="the 5 complete episodes are intact: make"):
                buffer.add_episode(**episode(5, 5))
        assert_intact(buffer)
        assert len(ReplayBuffer.open(tmp_path)) == 5
    fill(buffer, range(5, 8))
    buffer.close()
    reopened = ReplayBuffer.open(tmp_path)
    assert reopened.seeds.tolist() == list(range(8))
    assert_intact(reopened)


def test_a_disk_that_fills_up_within_a_record_leaves_no_half_record(tmp_path):
    big = {"frame_shape": (1,), "frame_dtype": "float32", "state_dim": 0}
    buffer = create(tmp_path, gym.spaces.Discrete(2), **big)
    add = (np.zeros((2, 1)), np.zeros(1, int), np.zeros(1), True)
    for _ in range(3):
        buffer.add_episode(*add)
    with files_limited_to(3 * storage.RECORD.itemsize + 17):
        with pytest.raises(ReplayBufferError, match="3 complete episodes"):
            buffer.add_episode(*add)
        assert len(ReplayBuffer.open(tmp_path)) == 3
    buffer.add_episode(*add)
    buffer.close()
    assert len(ReplayBuffer.open(tmp_path)) == 4


@pytest.mark.parametrize("raised", [OSError, KeyboardInterrupt])
def test_after_a_failed_write_of_a_long_episode_the_buffer_stays_intact(
    tmp_path, monkeypatch, raised
):
    buffer, write = fill(create(tmp_path), range(2)), storage.RowFile.write

    def fail(file, start, rows):
        if file.path.name == "rewards.bin":
            raise raised("no space left")
        write(file, start, rows)

    monkeypatch.setattr(storage.RowFile, "write", fail)
    with pytest.raises((ReplayBufferError, KeyboardInterrupt)):
        buffer.add_episode(**episode(7, 200))
    monkeypatch.undo()
    fill(buffer, range(2, 4)).close()
    assert check_buffer(tmp_path) == []
    with ReplayBuffer.open(tmp_path, append=True) as reopened:
        assert reopened.seeds.tolist() == [0, 1, 2, 3]


def test_a_checksum_of_all_records_verifies_the_index_and_old_indexes_have_none(ten):
    index, size = ten / "index.bin", storage.RECORD.itemsize
    content = index.read_bytes()
    assert content[-size:] == make_record(SYNC, 10, crc=zlib.crc32(content[:-size])).tobytes()
    with ReplayBuffer.open(ten, append=True) as buffer:
        fill(buffer, range(10, 12))
    content = index.read_bytes()
    assert content[-size:] == make_record(SYNC, 12, crc=zlib.crc32(content[:-size])).tobytes()
    index.write_bytes(content[: 10 * size] + make_record(SYNC, 10).tobytes() + content[11 * size :])
    assert_intact(ReplayBuffer.open(ten))
    assert len(ReplayBuffer.open(ten)) == 12


def test_sync_markers_between_episodes_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("worldmodel.data.storage.SYNC_EVERY_BYTES", 1)
    fill(create(tmp_path), range(6)).close()
    assert (tmp_path / "index.bin").stat().st_size == 12 * storage.RECORD.itemsize
    with ReplayBuffer.open(tmp_path, append=True) as buffer:
        assert buffer.seeds.tolist() == list(range(6))
        fill(buffer, range(6, 8))
        assert_intact(buffer)
    assert_intact(ReplayBuffer.open(tmp_path))
    assert ReplayBuffer.open(tmp_path).action_space == BOX
