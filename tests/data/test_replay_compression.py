"""Compressed replay buffers hold the same bytes, survive the same accidents, and trust no size."""

import json
import shutil

import lz4.block
import numpy as np
import pytest
from episodes import BOX, assert_intact, change, create, episode, fill
from full_disk import files_limited_to
from typer.testing import CliRunner

from cli import app
from worldmodel.config import build_config
from worldmodel.data import ReplayBuffer, collect, convert, load_or_collect
from worldmodel.data.collect_command import collect_to
from worldmodel.data.datasets import open_datasets
from worldmodel.data.repair import check_buffer, repair_buffer
from worldmodel.data.shards import Manifest, shard_directory
from worldmodel.errors import ReplayBufferError

FILES = ("frames.bin", "offsets.bin", "actions.bin", "rewards.bin", "states.bin")
TINY = {"episodes": 3, "seeds": range(3), "steps": 5, "policy": "random", "image_size": 16}


@pytest.fixture
def ten(tmp_path):
    """A compressed buffer with ten complete episodes, closed."""
    fill(create(tmp_path / "ten", compression="lz4"), range(10)).close()
    return tmp_path / "ten"


def contents(path):
    return {file.name: file.read_bytes() for file in path.glob("*.bin")}


def test_a_compressed_buffer_reads_like_the_same_one_uncompressed(ten, tmp_path):
    fill(create(tmp_path / "plain"), range(10)).close()
    with ReplayBuffer.open(tmp_path / "plain") as plain, ReplayBuffer.open(ten) as buffer:
        assert_intact(buffer)
        for length in (1, 2, 3):
            pairs = zip(
                *(each.sample(64, length, np.random.default_rng(0)) for each in (plain, buffer))
            )
            assert all((a == b).all() and a.dtype == b.dtype for a, b in pairs)
        assert buffer.summary()["compression"] == "lz4"
    assert (ten / "index.bin").read_bytes() == (tmp_path / "plain" / "index.bin").read_bytes()
    assert check_buffer(ten) == []
    header = json.loads((tmp_path / "plain" / "header.json").read_text())
    assert header["version"] == 1  # older programs read uncompressed buffers
    assert "compression" not in header


def test_frames_that_repeat_themselves_take_little_space(tmp_path):
    shape, steps = (32, 32, 3), 20
    with create(tmp_path, frame_shape=shape, state_dim=0, compression="lz4") as buffer:
        frames = np.zeros((steps + 1, *shape), np.uint8)
        buffer.add_episode(frames, np.zeros((steps, 2), np.float32), np.zeros(steps), False)
        assert (buffer.windows([0], [0], steps + 1).frames == 0).all()
    assert (tmp_path / "frames.bin").stat().st_size < frames.nbytes / 50


@pytest.mark.parametrize("last", range(5))
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 1.0])
def test_what_a_killed_writer_left_is_overwritten(ten, tmp_path, last, part):
    """It wrote the files in order, and the `last` of them in part."""
    whole = contents(ten)
    shutil.copytree(ten, tmp_path / "more")
    with ReplayBuffer.open(tmp_path / "more", append=True) as buffer:
        fill(buffer, range(10, 11))
    for number, name in enumerate(FILES[: last + 1]):
        content = (tmp_path / "more" / name).read_bytes()[len(whole[name]) :]
        with (ten / name).open("ab") as file:
            file.write(content if number < last else content[: int(part * len(content))])
    assert len(ReplayBuffer.open(ten)) == 10
    with ReplayBuffer.open(ten, append=True) as buffer:
        assert contents(ten) == whole
        fill(buffer, range(10, 12))
    assert_intact(ReplayBuffer.open(ten))
    assert check_buffer(ten) == []


def test_after_a_full_disk_complete_episodes_are_intact_and_more_can_be_added(tmp_path):
    buffer = fill(create(tmp_path, compression="lz4"), range(5))
    size = (tmp_path / "frames.bin").stat().st_size
    with files_limited_to(size + 100):
        with pytest.raises(ReplayBufferError, match="the 5 complete episodes are intact: make"):
            buffer.add_episode(**episode(5, 5))
        assert len(ReplayBuffer.open(tmp_path)) == 5
    fill(buffer, range(5, 8)).close()
    with ReplayBuffer.open(tmp_path) as reopened:
        assert reopened.seeds.tolist() == list(range(8))
        assert_intact(reopened)


def test_a_damaged_frame_is_an_error_that_names_file_and_frame(ten):
    frames = ReplayBuffer.open(ten).lengths[:4].sum()
    ends = np.frombuffer((ten / "offsets.bin").read_bytes(), "<u8")
    change(ten / "frames.bin", int(ends[frames - 1]), 0xFF)  # the length of a literal
    with ReplayBuffer.open(ten) as buffer:
        assert_intact(buffer.select([0, 1, 2, 3, 5, 6, 7, 8, 9]))
        with pytest.raises(ReplayBufferError, match=rf"frames\.bin or offsets.* frame {frames}: "):
            buffer.windows([4], [0], 2)
    (problem,) = check_buffer(ten)
    assert "episode 4 (seed 4) does not match its checksum" in problem.what


@pytest.mark.parametrize("mask", [0x01, 0x80])
@pytest.mark.parametrize("byte", [0, 2, 7])
def test_damaged_offsets_are_an_error(ten, byte, mask):
    change(ten / "offsets.bin", 8 * 5 + byte, mask)
    with ReplayBuffer.open(ten) as buffer, pytest.raises(ReplayBufferError, match=r"frame [56]"):
        buffer.windows([1], [0], 4)
    assert "episode 1" in check_buffer(ten)[0].what


@pytest.mark.parametrize("change", [lambda end: end + 1, lambda end: end - 1, lambda end: 100])
def test_nothing_is_cut_where_the_last_offset_is_damaged(ten, change):
    ends = np.fromfile(ten / "offsets.bin", "<u8")
    ends[-1] = change(ends[-1])
    (ten / "offsets.bin").write_bytes(ends.tobytes())
    before = contents(ten)
    with pytest.raises(ReplayBufferError, match=rf"frame {len(ends) - 1}|is truncated"):
        ReplayBuffer.open(ten, append=True)
    assert contents(ten) == before
    assert check_buffer(ten)
    assert "kept 9 episodes" in repair_buffer(ten, discard=True)
    with ReplayBuffer.open(ten, append=True) as buffer:
        assert_intact(fill(buffer, range(9, 11)))


@pytest.mark.parametrize("size", [10, 71, 73])
def test_a_block_of_another_size_than_a_frame_is_damage(tmp_path, size):
    fill(create(tmp_path, compression="lz4"), range(1)).close()
    ends = np.fromfile(tmp_path / "offsets.bin", "<u8")
    block = lz4.block.compress(bytes(size), store_size=False)
    content = (tmp_path / "frames.bin").read_bytes()[int(ends[0]) :]
    (tmp_path / "frames.bin").write_bytes(block + content)
    (tmp_path / "offsets.bin").write_bytes((ends - ends[0] + len(block)).tobytes())
    with ReplayBuffer.open(tmp_path) as buffer:
        assert (buffer.windows([0], [1], 1).frames[0] == episode(0, 2)["frames"][1:2]).all()
        with pytest.raises(ReplayBufferError, match="damaged at frame 0"):
            buffer.windows([0], [0], 2)


def test_a_header_that_lies_about_the_size_of_a_frame_allocates_nothing(ten):
    header = json.loads((ten / "header.json").read_text())
    header["frame_shape"] = [100_000, 100_000, 3]
    (ten / "header.json").write_text(json.dumps(header))
    with pytest.raises(ReplayBufferError, match=r"bytes cannot hold \d+ frames of 30000000000"):
        ReplayBuffer.open(ten)


def test_an_unknown_compression_is_refused(ten, tmp_path):
    with pytest.raises(ValueError, match="compression is 'zip'; expected one of"):
        create(tmp_path / "new", compression="zip")
    header = json.loads((ten / "header.json").read_text())
    (ten / "header.json").write_text(json.dumps(header | {"compression": "zip"}))
    with pytest.raises(ReplayBufferError, match=r"header\.json is damaged \(compression is 'zip'"):
        ReplayBuffer.open(ten)


def test_shards_may_differ_in_compression(tmp_path):
    Manifest([3, 3]).write(tmp_path)
    fill(create(shard_directory(tmp_path, 0), compression="lz4"), range(3)).close()
    fill(create(shard_directory(tmp_path, 1)), range(3, 6)).close()
    with ReplayBuffer.open(tmp_path) as buffer:
        assert_intact(buffer)
        assert buffer.windows([0, 5, 2], [0, 0, 0], 3).frames.shape == (3, 3, 4, 6, 3)
    assert check_buffer(tmp_path) == []


def test_a_collection_is_compressed_resumed_and_never_repeated_in_another_form(tmp_path):
    collect("tiny_env:TinyEnv", tmp_path / "a", **TINY, compression="lz4").close()
    collect("tiny_env:TinyEnv", tmp_path / "b", **TINY).close()
    more = TINY | {"episodes": 5, "seeds": range(5)}
    with (
        load_or_collect("tiny_env:TinyEnv", tmp_path / "a", **more) as resumed,
        load_or_collect("tiny_env:TinyEnv", tmp_path / "b", **more, compression="lz4") as plain,
    ):
        assert (resumed.header.compression, plain.header.compression) == ("lz4", "none")
        for i, length in enumerate(plain.lengths):
            left, right = (each.windows([i], [0], int(length)) for each in (resumed, plain))
            assert all((a == b).all() for a, b in zip(left, right, strict=True))
    settings = {"env_id": "tiny_env:TinyEnv", "env_kwargs": {}, "image_size": 16, "steps": 5}
    settings |= {"policy": "random", "state_key": "state", "size": 1, "first_seed": None}
    assert collect_to(tmp_path / "c", **settings, compression="lz4")["compression"] == "lz4"
    assert collect_to(tmp_path / "c", **settings)["episodes"] == 2
    with pytest.raises(ReplayBufferError, match="with compression 'lz4', not 'none'; leave out"):
        collect_to(tmp_path / "c", **settings, compression="none")


def test_data_of_a_run_is_collected_once_in_whatever_form(tmp_path):
    def config(compression):
        data = {"dir": tmp_path, "size": 8, "validation_size": 8, "steps": 5, "min_steps": 0}
        data |= {"policy": "random", "compression": compression}
        return build_config({"env": {"id": "tiny_env:TinyEnv"}, "data": data, "image_size": 16})

    with open_datasets(config("lz4")) as datasets:
        assert datasets.train.header.compression == "lz4"
        assert datasets.validation.header.compression == "lz4"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.bin")}
    with open_datasets(config("none")) as datasets:
        assert datasets.train.header.compression == "lz4"
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.bin")}


def test_a_conversion_changes_the_form_and_no_frame(ten, tmp_path):
    convert(ten, tmp_path / "same", to="buffer")
    convert(ten, tmp_path / "plain", to="buffer", compression="none")
    arguments = ["convert", str(tmp_path / "plain"), str(tmp_path / "again"), "--to", "buffer"]
    assert CliRunner().invoke(app, [*arguments, "--compression", "lz4"]).exit_code == 0
    for name, compression in {"same": "lz4", "plain": "none", "again": "lz4"}.items():
        with ReplayBuffer.open(tmp_path / name) as buffer:
            assert buffer.header.compression == compression
            assert len(buffer) == 10
            assert_intact(buffer)
    with pytest.raises(ValueError, match="compression is an option of replay buffers"):
        convert(ten, tmp_path / "x.h5", compression="lz4")
    assert buffer.action_space == BOX
