"""LeRobot datasets: those of others are read, ours have the same layout, bad ones are refused."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_convert import BOX, DISCRETE, contents, episode_of, fill

from worldmodel.data import convert
from worldmodel.data.importers import open_source
from worldmodel.data.lerobot_layout import fill_path
from worldmodel.data.lerobot_stats import image_stats, merge_stats, number_stats
from worldmodel.data.reader import ReadOptions

ROWS = (3, 1, 4)
"""Frames of the episodes of `foreign`."""


def read(path, **options):
    return list(open_source(str(path), ReadOptions(**options)))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lerobot")
    source = fill(folder / "source", range(5))
    convert(source, folder / "video", to="lerobot")
    convert(source, folder / "images", to="lerobot", lossless=True)
    return folder


@pytest.fixture
def images(stored, tmp_path):
    return shutil.copytree(stored / "images", tmp_path / "images")


@pytest.fixture
def video(stored, tmp_path):
    return shutil.copytree(stored / "video", tmp_path / "video")


@pytest.fixture
def foreign(tmp_path):
    """A dataset as others make it: all rows in one row group, two cameras, no ends, no seeds."""
    root, total = tmp_path / "foreign", sum(ROWS)
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    features = {
        "observation.images.top": {"dtype": "video", "shape": [3, 16, 24]},
        "observation.images.wrist": {"dtype": "video", "shape": [16, 24, 3]},
        "observation.images.depth": {
            "dtype": "video",
            "shape": [16, 24, 3],
            "info": {"video.is_depth_map": True},
        },
        "observation.state": {"dtype": "float32", "shape": [2]},
        "action": {"dtype": "float32", "shape": [1]},
        "next.reward": {"dtype": "float32", "shape": [1]},
        "next.done": {"dtype": "bool", "shape": [1]},
        "language": {"dtype": "string", "shape": [1]},
    }
    info = {
        "codebase_version": "v3.0",
        "fps": 10,
        "total_episodes": len(ROWS),
        "total_frames": total,
        "features": features,
        "unknown": None,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    starts = np.cumsum(ROWS) - ROWS
    pq.write_table(
        pa.table(
            {
                "episode_index": [0, 1, 2],
                "length": list(ROWS),
                "dataset_from_index": starts + 100,  # part of a larger dataset
                "data/chunk_index": [0] * 3,
                "data/file_index": [0] * 3,
            }
        ),
        root / "meta/episodes/chunk-000/file-000.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "observation.state": np.arange(2.0 * total).reshape(-1, 2).tolist(),
                "action": np.arange(total, dtype=np.float32),
                "next.reward": 10 * np.arange(total, dtype=np.float32),
                "next.done": [False] * (total - 1) + [True],
                "language": ["push"] * total,
                "episode_index": np.repeat([0, 1, 2], ROWS),
            }
        ),
        root / "data/chunk-000/file-000.parquet",
    )
    return root


def test_rows_of_others_lose_only_the_last_action(foreign):
    reader = open_source(str(foreign), ReadOptions(observation="vector"))
    assert (reader.count, reader.fps, reader.has_rewards) == (2, 10, True)
    first, second = reader  # the episode of one frame has no transition
    assert_array_equal(first.frames, [[0, 1], [2, 3], [4, 5]])
    assert_array_equal(first.actions, [0, 1])
    assert_array_equal(second.actions, [4, 5, 6])
    assert_array_equal(second.rewards, [40, 50, 60])
    assert not second.terminated
    assert second.seed == -1
    assert_array_equal(list(reader.actions())[1], second.actions)
    assert reader.unread == (
        "language",
        "observation.images.depth",
        "observation.images.top",
        "observation.images.wrist",
    )


def test_one_of_several_cameras_has_to_be_named(foreign):
    with pytest.raises(ValueError, match=r"images\.top, observation\.images\.wrist: name one"):
        read(foreign)
    with pytest.raises(ValueError, match=r"has no pixels under observation\.images\.depth"):
        read(foreign, key="observation.images.depth")


def test_the_files_have_the_layout_of_version_3(stored):
    info = json.loads((stored / "video/meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (5, 20, 50)
    assert info["splits"] == {"train": "0:5"}
    assert info["features"]["observation.image"]["shape"] == [16, 24, 3]
    assert info["features"]["observation.image"]["info"]["video.codec"] == "h264"
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": None}
    data = pq.read_table(stored / "video/data/chunk-000/file-000.parquet")
    assert set(data.column_names) == info["features"].keys() - {"observation.image"}
    assert data["index"].to_pylist() == list(range(20))
    assert data["frame_index"].to_pylist()[:5] == [0, 1, 0, 1, 2]
    assert_allclose(data["timestamp"].to_numpy()[2:5], [0, 0.02, 0.04], rtol=1e-6)
    assert data["next.done"].to_pylist()[:5] == [True, True, False, True, True]
    assert data["next.terminated"].to_pylist()[:5] == [False, False, False, True, True]
    assert data["action"].to_pylist()[4] == data["action"].to_pylist()[3]
    places = pq.read_table(stored / "video/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [p["dataset_from_index"] for p in places] == [0, 2, 5, 9, 14]
    assert [p["dataset_to_index"] for p in places] == [2, 5, 9, 14, 20]
    starts = [p["videos/observation.image/from_timestamp"] for p in places]
    assert_allclose(starts, np.array([0, 2, 5, 9, 14]) / 50)
    tasks = pq.read_table(stored / "video/meta/tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": "CartPole-v1"}]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_statistics_are_those_of_all_rows(stored):
    stats = json.loads((stored / "images/meta/stats.json").read_text())
    data = pq.read_table(stored / "images/data/chunk-000/file-000.parquet")
    actions = np.array(data["action"].to_pylist())
    found = stats["action"]
    assert_allclose(found["mean"], actions.mean(0), rtol=1e-6)
    assert_allclose(found["std"], actions.std(0), rtol=1e-6)
    assert_allclose([found["min"], found["max"]], [actions.min(0), actions.max(0)])
    assert found["count"] == [20]
    episodes = read(stored / "images")
    pixels = np.concatenate([e.frames for e in episodes]) / 255
    assert_allclose(np.ravel(stats["observation.image"]["mean"]), pixels.mean((0, 1, 2)))
    assert_allclose(np.ravel(stats["observation.image"]["std"]), pixels.std((0, 1, 2)))
    assert np.shape(stats["observation.image"]["q50"]) == (3, 1, 1)


def test_statistics_of_images_are_those_of_their_numbers():
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (n, 5, 7, 3), np.uint8) for n in (40, 90))
    merged = merge_stats(image_stats(first), image_stats(second))
    numbers = number_stats(np.concatenate([first, second]).reshape(-1, 3) / 255)
    for name in ("min", "max", "mean", "std"):
        assert_allclose(np.ravel(merged[name]), numbers[name], atol=1e-9)
    for name in ("q01", "q10", "q50", "q90", "q99"):
        assert_allclose(np.ravel(merged[name]), numbers[name], atol=0.02)
    assert merged["count"] == [130]


def test_any_episode_of_a_video_is_found(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("worldmodel.data.lerobot_writer._FileSeries.full", lambda files: True)
    monkeypatch.setattr("worldmodel.data.lerobot_writer.CHUNK_FILES", 3)
    convert(stored / "source", tmp_path / "many", to="lerobot")
    names = [str(p.relative_to(tmp_path / "many")) for p in (tmp_path / "many").rglob("*.mp4")]
    assert "videos/observation.image/chunk-001/file-001.mp4" in names
    assert len(names) == 5
    expected = read(stored / "video")
    for path in (stored / "video", tmp_path / "many"):
        reader = open_source(str(path), ReadOptions())
        for number in (3, 1, 4, 0):
            found = reader.episode(number)
            assert_array_equal(found.actions, expected[number].actions)
            if path.name == "video":
                assert_array_equal(found.frames, expected[number].frames)
            else:
                assert found.frames.shape == expected[number].frames.shape
    with pytest.raises(ValueError, match="no episode"):
        reader.episode(5)


def test_frames_per_second_are_those_of_the_environment_or_given(stored, tmp_path):
    for fps, expected in ((None, 50), (12.4, 12)):
        target = tmp_path / str(expected)
        result = convert(stored / "source", target, to="lerobot", lossless=True, fps=fps)
        assert json.loads((target / "meta/info.json").read_text())["fps"] == expected
        assert any("12 instead of 12.4" in note for note in result["notes"]) == (expected == 12)


def change_info(path, change):
    content = json.loads((path / "meta/info.json").read_text())
    change(content)
    (path / "meta/info.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.update(codebase_version="v2.1"), "version v2.1; this reads v3.0"),
        (lambda i: i.update(fps=0), "fps is 0"),
        (lambda i: i.update(total_episodes=10**9), "lists 5 episodes"),
        (lambda i: i.update(total_frames=3), "lists 5 episodes of 20 frames"),
        (lambda i: i.update(total_episodes=4), "more than the 4 rows"),
        (lambda i: i.update(data_path="../source/header.json"), "leads out of the dataset"),
        (lambda i: i.update(data_path="/etc/passwd"), "leads out of the dataset"),
        (lambda i: i.update(data_path="{chunk_index.__class__}"), "is missing"),
        (lambda i: i.update(data_path="{secret}"), "expected {chunk_index}"),
        (lambda i: i["features"].pop("action"), "no feature 'action'"),
        (lambda i: i["features"]["action"].update(shape=[3]), r"not the shape \[3\]"),
        (lambda i: i["features"]["action"].update(shape=[-1]), "features.action.shape"),
        (
            lambda i: i["features"]["observation.image"].update(shape=[10**6, 10**6, 3]),
            "24 x 16 pixels, but meta/info.json says 1000000 x 1000000",
        ),
    ],
)
def test_info_that_is_wrong_is_refused(images, change, message):
    change_info(images, change)
    with pytest.raises(ValueError, match=message):
        read(images)


def test_links_out_of_the_dataset_are_refused(images, tmp_path):
    file = images / "data/chunk-000/file-000.parquet"
    shutil.move(file, tmp_path / "elsewhere.parquet")
    file.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(ValueError, match="leads out of the dataset"):
        read(images)


def test_a_video_of_another_kind_or_size_is_refused(video):
    file = video / "videos/observation.image/chunk-000/file-000.mp4"
    change_info(video, lambda i: i["features"]["observation.image"].update(shape=[160, 240, 3]))
    with pytest.raises(ValueError, match=r"24 x 16 pixels, but meta/info\.json says 240 x 160"):
        read(video)
    change_info(video, lambda i: i["features"]["observation.image"].update(shape=[16, 24, 3]))
    file.rename(file.with_name("other.mp4"))
    file.write_text("ffconcat version 1.0\nfile other.mp4\n")  # ffmpeg would follow it
    with pytest.raises(ValueError, match="not a readable mp4 file"):
        read(video)


def test_a_video_that_lacks_frames_is_refused(video):
    places = video / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(places)
    column = table.column_names.index("videos/observation.image/from_timestamp")
    table = table.set_column(column, table.column_names[column], [[0.0, 0.04, 0.1, 0.18, 0.34]])
    pq.write_table(table, places)
    with pytest.raises(ValueError, match="has no frame 20"):
        read(video)


def test_rows_of_another_episode_are_refused(images):
    places = images / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(places)
    column = table.column_names.index("dataset_from_index")
    pq.write_table(table.set_column(column, "dataset_from_index", [[0, 3, 5, 9, 14]]), places)
    with pytest.raises(ValueError, match="other rows for episode 1"):
        read(images)


def test_huge_row_groups_are_refused_before_they_are_read(images, monkeypatch):
    monkeypatch.setattr("worldmodel.data.parquet_rows.MAX_GROUP_BYTES", 1000)
    with pytest.raises(ValueError, match="has a row group of"):
        read(images)


def test_paths_are_filled_without_looking_up_attributes():
    path = fill_path(
        "a/{chunk_index:03d}/{file_index:03d}-{video_key}",
        chunk_index=7,
        file_index=1234,
        video_key="k",
    )
    assert path == "a/007/1234-k"
    assert fill_path("{file_index:99999999d}", file_index=1) == "{file_index:99999999d}"


def test_a_damaged_header_of_ours_is_reported(images):
    (images / "meta/worldmodel.json").write_text('{"frame_shape": [1]}')
    with pytest.raises(ValueError, match=r"worldmodel\.json is damaged"):
        read(images)


def test_without_our_file_everything_but_the_action_space_comes_back(images, tmp_path):
    (images / "meta/worldmodel.json").unlink()
    convert(images, tmp_path / "back", to="buffer")
    expected = episode_of(3, BOX, (16, 24, 3))
    found = read(tmp_path / "back")[3]
    assert_array_equal(found.frames, expected["frames"])
    assert_array_equal(found.states, expected["states"])
    assert found.terminated
    assert found.seed == expected["seed"]
    assert contents(tmp_path / "back")["header"]["metadata"]["fps"] == 50


def test_integers_stay_integers(tmp_path):
    source = fill(tmp_path / "source", range(3), DISCRETE)
    convert(source, tmp_path / "robot", to="lerobot", lossless=True)
    info = json.loads((tmp_path / "robot/meta/info.json").read_text())
    assert info["features"]["action"]["dtype"] == "int64"
    assert read(tmp_path / "robot")[1].actions.dtype == np.int64
