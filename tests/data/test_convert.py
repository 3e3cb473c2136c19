"""Conversion: what goes through another format comes back as it was, or not at all."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import gymnasium as gym
import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from worldmodel.cli import app
from worldmodel.config import build_config
from worldmodel.data import ReplayBuffer, convert
from worldmodel.data.importers import open_source
from worldmodel.data.own_data import known_env, open_own_data
from worldmodel.data.reader import NO_REWARDS, ReadOptions
from worldmodel.data.shards import Manifest, shard_directory
from worldmodel.errors import MissingLibraryError
from worldmodel.extras import install_command

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

BOX = gym.spaces.Box(np.float32([-1, -2]), np.float32([1, 4]))
DISCRETE = gym.spaces.Discrete(4, start=1)
METADATA = {"env": {"id": "CartPole-v1"}, "env_kwargs": {}, "policy": {"name": "random"}}
FORMATS = {
    "buffer": ("buffer", "copy", {}),
    "hdf5": ("hdf5", "data.h5", {}),
    "minari": ("minari", "pole-v0", {}),
    "lerobot": ("lerobot", "robot", {"lossless": True}),
}


def frames_of(seed, length, shape):
    """Smooth images of moving waves, as a codec expects them."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = [np.sin((x + 2 * y + 3 * t + 5 * seed) / 9.0) for t in range(length)]
    return np.broadcast_to((127 + 90 * np.stack(waves))[..., None], (length, *shape)).astype(
        np.uint8
    )


def episode_of(seed, space, shape):
    rng, steps = np.random.default_rng(seed), 1 + seed % 5
    discrete = isinstance(space, gym.spaces.Discrete)
    vectors = len(shape) == 1
    return {
        "frames": rng.normal(size=(steps + 1, *shape)).astype(np.float32)
        if vectors
        else frames_of(seed, steps + 1, shape),
        "actions": rng.integers(1, 5, steps)
        if discrete
        else rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=steps).astype(np.float32),
        "terminated": bool(seed % 2),
        "states": rng.normal(size=(steps + 1, 3)),
        "seed": None if seed == 2 else seed + 2**40,
    }


def fill(path, seeds, space=BOX, shape=(16, 24, 3), metadata=METADATA):
    dtype = "float32" if len(shape) == 1 else "uint8"
    with ReplayBuffer.create(
        path,
        frame_shape=shape,
        frame_dtype=dtype,
        action_space=space,
        state_dim=3,
        metadata=metadata,
    ) as buffer:
        for seed in seeds:
            buffer.add_episode(**episode_of(seed, space, shape))
    return path


def contents(path, frames=True):
    """Everything in a buffer, as values that can be compared."""
    with ReplayBuffer.open(path) as buffer:
        windows = [buffer.windows([i], [0], n) for i, n in enumerate(buffer.lengths.tolist())]
        return {
            "header": buffer.header.as_json(),
            "seeds": buffer.seeds.tolist(),
            "terminated": buffer.terminated.tolist(),
            "frames": [w.frames.tobytes() for w in windows] if frames else [],
            "actions": [(w.actions.dtype, w.actions.tobytes()) for w in windows],
            "rewards": [(w.rewards.dtype, w.rewards.tobytes()) for w in windows],
            "states": [
                buffer.states([i], [0], n).tobytes() for i, n in enumerate(buffer.lengths.tolist())
            ],
        }


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    path = tmp_path_factory.mktemp("sharded") / "data"
    Manifest([3, 4]).write(path)
    fill(shard_directory(path, 0), range(3))
    fill(shard_directory(path, 1), range(3, 7))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_shards_come_back_to_the_byte(sharded, tmp_path, name):
    to, file, options = FORMATS[name]
    result = convert(sharded, tmp_path / file, to=to, **options)
    assert (result["format"], result["episodes"], result["notes"]) == (to, 7, [])
    assert [p.name for p in tmp_path.iterdir()] == [file]
    convert(tmp_path / file, tmp_path / "back", to="buffer")
    assert contents(tmp_path / "back") == contents(sharded)


@pytest.mark.parametrize("shape", [(12, 20, 1), (4,)])
def test_gray_images_vectors_and_choices_come_back_through_all_formats(tmp_path, shape):
    previous = fill(tmp_path / "first", range(6), DISCRETE, shape)
    for to, file, options in FORMATS.values():
        convert(previous, tmp_path / file, to=to, **options)
        previous = tmp_path / file
    convert(previous, tmp_path / "back", to="buffer")
    assert contents(tmp_path / "back") == contents(tmp_path / "first")


@pytest.mark.parametrize("shape", [(16, 24, 3), (15, 17, 1)])
def test_videos_change_the_images_a_little_and_nothing_else(tmp_path, shape):
    source = fill(tmp_path / "source", range(4), BOX, shape)
    result = convert(source, tmp_path / "robot", to="lerobot")
    assert any("--lossless" in note for note in result["notes"])
    convert(tmp_path / "robot", tmp_path / "back", to="buffer")
    before, after = contents(source, frames=False), contents(tmp_path / "back", frames=False)
    assert after["header"]["metadata"].pop("lossy") == "h264"
    assert after == before
    with ReplayBuffer.open(source) as first, ReplayBuffer.open(tmp_path / "back") as second:
        for i, n in enumerate(first.lengths.tolist()):
            true, found = (b.windows([i], [0], n).frames.astype(float) for b in (first, second))
            assert 10 * np.log10(255**2 / np.mean((true - found) ** 2)) > 36


def test_minari_gets_its_seeds_ends_and_environment(tmp_path, monkeypatch):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    source = fill(tmp_path / "source", range(4), shape=(40, 40, 3))
    result = convert(source, "minari:mine/pole-v0")
    assert result["path"] == str(tmp_path / "minari" / "mine" / "pole-v0")
    dataset = minari.load_dataset("mine/pole-v0")
    assert "mine/pole-v0" in minari.list_local_datasets()
    assert dataset.spec.env_spec.id == "CartPole-v1"
    for seed, episode in enumerate(dataset):
        expected = episode_of(seed, BOX, (40, 40, 3))
        assert_array_equal(episode.observations, expected["frames"])  # Minari's default is JPEG
        assert episode.terminations.tolist()[-1] is expected["terminated"]
        assert episode.truncations.tolist()[-1] is not expected["terminated"]
    convert("minari:mine/pole-v0", tmp_path / "back", to="buffer")
    assert contents(tmp_path / "back") == contents(source)
    with pytest.raises(ValueError, match="not an id of Minari"):
        convert(source, "minari:no version")


def test_hdf5_has_the_rows_of_stable_worldmodel(tmp_path):
    convert(fill(tmp_path / "source", range(3)), tmp_path / "data.h5")
    expected = [episode_of(seed, BOX, (16, 24, 3)) for seed in range(3)]
    with h5py.File(tmp_path / "data.h5") as file:
        assert file["ep_len"][:].tolist() == [2, 3, 4]
        assert file["ep_offset"][:].tolist() == [0, 2, 5]
        assert_array_equal(file["pixels"][:], np.concatenate([e["frames"] for e in expected]))
        assert_array_equal(file["action"][2:4], expected[1]["actions"])
        assert np.isnan(file["action"][4]).all()
        assert_array_equal(file["reward"][2:5], [0, *expected[1]["rewards"]])
        assert file["terminated"][:].nonzero()[0].tolist() == [4]
        assert file["truncated"][:].nonzero()[0].tolist() == [1, 8]


def test_a_long_header_fits_into_hdf5(tmp_path):
    space = gym.spaces.Box(-1, 1, (2,), np.float32)
    metadata = {"text": "ä" * 50_000}
    source = fill(tmp_path / "source", range(2), space, metadata=metadata)
    convert(source, tmp_path / "data.h5")
    convert(tmp_path / "data.h5", tmp_path / "back", to="buffer")
    assert contents(tmp_path / "back") == contents(source)


@pytest.mark.parametrize("name", FORMATS)
def test_training_reads_what_was_converted(tmp_path, name):
    to, file, options = FORMATS[name]
    metadata = {"env": {"id": "Unknown-v0"}}
    source = fill(tmp_path / "source", range(20), shape=(16, 16, 3), metadata=metadata)
    convert(source, tmp_path / file, to=to, **options)
    sources = [str(tmp_path / file)]
    assert open_source(sources[0], ReadOptions()).env["id"] == "Unknown-v0"
    assert known_env(sources, ReadOptions()) == {}  # data never names code to import
    layers = {"data": {"sources": sources, "dir": str(tmp_path / "cache")}, "image_size": 16}
    with open_own_data(build_config(layers)) as data, ReplayBuffer.open(source) as expected:
        assert data.train.action_space == BOX
        assert set(data.train.seeds) < set(expected.seeds)
        i = int(np.flatnonzero(expected.seeds == data.train.seeds[-1])[0])
        n = int(expected.lengths[i])
        assert_array_equal(
            data.train.windows([len(data.train) - 1], [0], n).frames,
            expected.windows([i], [0], n).frames,
        )


def endless():
    """Episodes for `module:Name` that never end well."""
    for seed in range(3):
        yield episode_of(seed, BOX, (16, 24, 3))
    raise STOP


def simple():
    """Episodes without rewards, ends, states and seeds."""
    for seed in range(3):
        episode = episode_of(seed, DISCRETE, (16, 24, 3))
        yield {"frames": episode["frames"], "actions": episode["actions"]}


STOP: BaseException = KeyboardInterrupt()


@pytest.mark.parametrize("name", [*FORMATS, "video"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError("no space left")])
def test_nothing_is_left_of_a_conversion_that_fails(tmp_path, monkeypatch, name, stop):
    to, file, options = FORMATS.get(name, ("lerobot", "robot", {}))
    monkeypatch.setattr(f"{__name__}.STOP", stop)
    monkeypatch.setattr(
        "worldmodel.data.importers.FunctionReader.actions",
        lambda self: iter([episode_of(0, BOX, (16, 24, 3))["actions"]]),
    )
    with pytest.raises(type(stop)):
        convert(f"{__name__}:endless", tmp_path / file, to=to, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_a_library_swallows_stops_after_the_episode(tmp_path, monkeypatch):
    from worldmodel.data.hdf5 import HDF5Writer

    source, added, add = fill(tmp_path / "source", range(4)), [], HDF5Writer.add

    def interrupted(writer, episode):
        added.append(episode.seed)
        with contextlib.suppress(KeyboardInterrupt):
            if len(added) == 2:
                os.kill(os.getpid(), signal.SIGINT)
        add(writer, episode)

    monkeypatch.setattr(HDF5Writer, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "data.h5")
    assert len(added) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_what_a_source_lacks_is_said(tmp_path):
    result = convert(f"{__name__}:simple", tmp_path / "data.h5")
    assert result["notes"] == [
        "The source holds no rewards: all of them are 0",
        "The action space, inferred from the data: Discrete(5)",
    ]
    reader = open_source(str(tmp_path / "data.h5"), ReadOptions())
    assert not reader.has_rewards
    assert reader.action_space is None  # as it was inferred
    assert [episode.seed for episode in reader] == [-1, -1, -1]
    convert(tmp_path / "data.h5", tmp_path / "back", to="buffer")
    with ReplayBuffer.open(tmp_path / "back") as buffer:
        assert buffer.metadata[NO_REWARDS]


def test_entries_that_are_not_converted_are_named(tmp_path):
    convert(fill(tmp_path / "source", range(2)), tmp_path / "data.h5")
    with h5py.File(tmp_path / "data.h5", "a") as file:
        file["proprio"], file["depth"] = np.zeros((5, 2)), np.zeros((5, 4, 4))
    result = convert(tmp_path / "data.h5", tmp_path / "back", to="buffer")
    assert result["notes"] == ["Not converted: depth, proprio"]


def test_episodes_are_converted_one_at_a_time(tmp_path, monkeypatch):
    from worldmodel.data.hdf5 import HDF5Writer

    events, source = [], fill(tmp_path / "source", range(4))
    add, read = HDF5Writer.add, ReplayBuffer.windows
    monkeypatch.setattr(HDF5Writer, "add", lambda *a: (events.append("write"), add(*a)))
    monkeypatch.setattr(
        ReplayBuffer, "windows", lambda *a, **k: (events.append("read"), read(*a, **k))[1]
    )
    convert(source, tmp_path / "data.h5")
    assert events == ["read"] + ["read", "write"] * 4  # the first read finds out what there is


def test_wrong_destinations_are_refused_in_one_line(tmp_path):
    source = fill(tmp_path / "source", range(2))
    (tmp_path / "there").mkdir()
    (tmp_path / "there.h5").write_text("mine")
    for dst, to, message in (
        ("there", "buffer", "exists, and nothing is overwritten"),
        ("there.h5", None, "exists, and nothing is overwritten"),
        ("new", None, "does not say the format"),
        ("new", "zarr", "unknown format 'zarr'"),
        ("new.h5", "buffer", "name of a dataset of format hdf5"),
        ("new", "hdf5", r"has to end in \.h5"),
        ("source/new", "buffer", "inside of"),
        ("missing/new.h5", None, "does not exist; create it first"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            convert(source, tmp_path / dst, to=to)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        convert(fill(tmp_path / "two", range(1), shape=(4, 6, 2)), tmp_path / "robot", to="lerobot")
    for options in ({"lossless": True}, {"fps": 10.0}):
        with pytest.raises(ValueError, match=r"options of LeRobot datasets; .*new\.h5 is hdf5"):
            convert(source, tmp_path / "new.h5", **options)
    assert (tmp_path / "there.h5").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"source", "there", "there.h5", "two"}


def test_hdf5_that_leads_to_other_files_is_refused(tmp_path):
    convert(fill(tmp_path / "source", range(2)), tmp_path / "data.h5")
    with h5py.File(tmp_path / "data.h5", "a") as file:
        file["state2"] = h5py.ExternalLink(str(tmp_path / "data.h5"), "/state")
    with pytest.raises(ValueError, match="stored in another file"):
        open_source(str(tmp_path / "data.h5"), ReadOptions())


def test_minari_metadata_never_make_an_environment(tmp_path):
    convert(fill(tmp_path / "source", range(2)), tmp_path / "set-v0", to="minari")
    path = tmp_path / "set-v0" / "data" / "metadata.json"
    content = json.loads(path.read_text())
    del content["action_space"]
    content["env_spec"] = json.dumps({"id": "Evil-v0", "entry_point": "os:abort"})
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lack action_space"):
        open_source(str(tmp_path / "set-v0"), ReadOptions())


def test_a_missing_library_is_reported_with_the_command_that_installs_it(tmp_path, monkeypatch):
    source = fill(tmp_path / "source", range(2))
    monkeypatch.setattr("worldmodel.extras.find_spec", lambda name: None)
    for to, file, _options in list(FORMATS.values())[1:]:
        with pytest.raises(MissingLibraryError, match=re.escape(install_command("data"))):
            convert(source, tmp_path / file, to=to)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_the_command_converts_and_reports(tmp_path):
    source = fill(tmp_path / "source", range(3))
    run = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "a.h5"), "--json"])
    assert run.exit_code == 0, run.output
    summary = json.loads(run.stdout.splitlines()[-1])
    assert (summary["format"], summary["episodes"], summary["frames"]) == ("hdf5", 3, 9)
    again = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "a.h5")])
    assert again.exit_code == 1
    assert "nothing is overwritten" in again.output


def test_importing_loads_no_library_of_a_format():
    script = (
        "import sys, worldmodel, worldmodel.data; "
        "print({'torch', 'pyarrow', 'h5py', 'minari'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr
