"""Damaged replay buffers: appending is refused, the check reports the damage, and repair works."""

import shutil

import pytest
from episodes import assert_intact, change, create, episode, fill, steps_of

from worldmodel.data import ReplayBuffer
from worldmodel.data.index import EPISODE, RECORD, make_record
from worldmodel.data.repair import check_buffer, repair_buffer
from worldmodel.errors import ReplayBufferError


@pytest.fixture(params=[True, False], ids=["synced", "unsynced"])
def synced(request):
    return request.param


@pytest.fixture(params=["none", "lz4"])
def eight(request, tmp_path, synced):
    """A buffer of eight episodes; unsynced, it is as a killed process left it."""
    buffer = fill(create(tmp_path / "open", compression=request.param), range(8))
    if synced:
        buffer.flush()
    shutil.copytree(tmp_path / "open", tmp_path / "eight")
    buffer.close()
    return tmp_path / "eight"


def contents(path):
    return {file.name: file.read_bytes() for file in path.glob("*.*")}


def require_refused(path):
    """Appending is refused, and every byte stays."""
    before = contents(path)
    with pytest.raises(ReplayBufferError, match=f"worldmodel repair {path}"):
        ReplayBuffer.open(path, append=True)
    assert contents(path) == before
    assert any(f"repair {path}" in problem.fix for problem in check_buffer(path))


def require_usable(path, seeds):
    with ReplayBuffer.open(path, append=True) as buffer:
        assert buffer.seeds.tolist() == seeds
        buffer.add_episode(**episode(50, steps_of(50)))
    assert check_buffer(path) == []


def test_a_buffer_that_is_intact_needs_no_repair(eight):
    before = contents(eight)
    assert check_buffer(eight) == []
    assert repair_buffer(eight) == f"{eight} needs no repair"
    assert contents(eight) == before
    require_usable(eight, list(range(8)))


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "overwritten"])
def test_nothing_is_appended_without_the_index(eight, how):
    index = eight / "index.bin"
    size = index.stat().st_size
    index.unlink()
    if how == "empty":
        index.touch()
    elif how != "missing":
        index.write_bytes(b"\0" * (size if how == "overwritten" else 20))
    require_refused(eight)
    with pytest.raises(ReplayBufferError, match="only the first 0 episodes can be kept: --discard"):
        repair_buffer(eight)
    assert "kept 0 episodes" in repair_buffer(eight, discard=True)
    require_usable(eight, [])


@pytest.mark.parametrize("damaged", [0, 3, 7])
def test_a_damaged_record_is_rebuilt(eight, damaged):
    change(eight / "index.bin", damaged * RECORD.itemsize + 16)
    if damaged < 7 or (eight / "index.bin").stat().st_size > 8 * RECORD.itemsize:
        require_refused(eight)
        assert repair_buffer(eight) == f"{eight}: repaired, index.bin lists all 8 episodes"
        seeds = [n if n != damaged else -1 for n in range(8)]
        assert check_buffer(eight) == []
        with ReplayBuffer.open(eight) as buffer:
            assert buffer.lengths.tolist() == [steps_of(n) + 1 for n in range(8)]
            assert_intact(buffer.select([n for n in range(8) if n != damaged]))
        require_usable(eight, seeds)
    else:  # like the record of an episode that was being written
        with ReplayBuffer.open(eight) as buffer:
            assert len(buffer) == 7


def test_of_two_damaged_records_only_what_comes_before_can_be_kept(eight):
    for damaged in (2, 4):
        change(eight / "index.bin", damaged * RECORD.itemsize + 16)
    require_refused(eight)
    with pytest.raises(ReplayBufferError, match="only the first 2 episodes can be kept"):
        repair_buffer(eight)
    assert "kept 2 episodes" in repair_buffer(eight, discard=True)
    require_usable(eight, [0, 1])


@pytest.mark.parametrize("name", ["frames", "actions", "rewards", "states"])
def test_the_check_names_the_episode_whose_data_changed(tmp_path, name):
    fill(create(tmp_path), range(5)).close()
    change(tmp_path / f"{name}.bin", 1)
    (problem,) = check_buffer(tmp_path)
    assert "episode 0 (seed 0) does not match its checksum" in problem.what
    assert "restore the data files" in problem.fix


def test_a_buffer_with_one_bad_unsynced_episode_is_not_cut(tmp_path):
    """The episodes after the bad one are whole, so this was no power cut."""
    buffer = fill(create(tmp_path / "open"), range(6))
    shutil.copytree(tmp_path / "open", tmp_path / "bad")
    buffer.close()
    change(tmp_path / "bad" / "rewards.bin", 1)
    require_refused(tmp_path / "bad")
    assert "kept 6 episodes" in repair_buffer(tmp_path / "bad", discard=True)
    (problem,) = check_buffer(tmp_path / "bad")
    assert "episode 0" in problem.what


def test_several_listed_episodes_whose_data_is_lost_are_not_cut(tmp_path):
    """A killed process leaves at most one; their frames are still there."""
    buffer = fill(create(tmp_path / "open"), range(6))
    shutil.copytree(tmp_path / "open", tmp_path / "lost")
    buffer.close()
    for name in ("rewards.bin", "states.bin"):
        (tmp_path / "lost" / name).write_bytes(b"")
    require_refused(tmp_path / "lost")


@pytest.mark.parametrize("length", [0, 1, 2**41, 2**63])
def test_records_with_impossible_lengths_are_damaged(tmp_path, length):
    """Their checksums match: somebody wrote them on purpose."""
    fill(create(tmp_path), range(3)).close()
    index = tmp_path / "index.bin"
    content = index.read_bytes()
    record = make_record(EPISODE, 1, length).tobytes()
    size = RECORD.itemsize
    index.write_bytes(content[:size] + record + content[2 * size :])
    with pytest.raises(ReplayBufferError, match="record 1 fails its checksum"):
        ReplayBuffer.open(tmp_path)
    assert repair_buffer(tmp_path).endswith("lists all 3 episodes")
    assert check_buffer(tmp_path) == []


def test_discarding_keeps_every_episode_that_the_index_lists(tmp_path):
    """A changed byte of an early episode is no reason to delete the later ones."""
    fill(create(tmp_path), range(9)).close()
    change(tmp_path / "frames.bin", 1)
    for damaged in (6, 7):
        change(tmp_path / "index.bin", damaged * RECORD.itemsize + 16)
    assert "kept 6 episodes" in repair_buffer(tmp_path, discard=True)
    (problem,) = check_buffer(tmp_path)
    assert "episode 0" in problem.what


@pytest.mark.parametrize("name", ["rewards.bin", "index.bin", "header.json"])
def test_links_in_a_buffer_are_refused(tmp_path, name):
    path = tmp_path / "buffer"
    fill(create(path), range(3)).close()
    (path / name).rename(tmp_path / "victim")
    (path / name).symlink_to(tmp_path / "victim")
    before = (tmp_path / "victim").read_bytes()
    for use in (ReplayBuffer.open, repair_buffer):
        with pytest.raises(ReplayBufferError, match=f"{name} is a link"):
            use(path)
    assert "is a link" in check_buffer(path)[0].what
    assert (tmp_path / "victim").read_bytes() == before


def test_what_is_no_buffer_is_neither_checked_nor_repaired(tmp_path):
    (problem,) = check_buffer(tmp_path)
    assert "not a replay buffer" in problem.what
    assert "repair" not in problem.fix
    with pytest.raises(ReplayBufferError, match="not a replay buffer"):
        repair_buffer(tmp_path)
    with (
        fill(create(tmp_path / "busy"), range(2)),
        pytest.raises(ReplayBufferError, match="one writer at a time"),
    ):
        repair_buffer(tmp_path / "busy")
