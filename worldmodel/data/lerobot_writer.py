"""Episodes to LeRobot datasets; see `worldmodel.data.lerobot_layout`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from worldmodel.data.header import Header
from worldmodel.data.lerobot_layout import (
    ACTION,
    CHUNK_FILES,
    DATA_FILE_MB,
    DATA_PATH,
    DONE,
    EPISODES_PATH,
    HEADER,
    IMAGE,
    INDEX_COLUMNS,
    INFO,
    REWARD,
    SEED,
    STATE,
    STATS,
    TASKS,
    TERMINATED,
    TRUE_STATE,
    TRUNCATED,
    VERSION,
    VIDEO_FILE_MB,
    VIDEO_PATH,
)
from worldmodel.data.lerobot_stats import Stats, image_stats, merge_stats, number_stats
from worldmodel.data.reader import collected_env
from worldmodel.data.rollout import Episode
from worldmodel.data.video_files import CODEC, VideoWriter, pixel_format
from worldmodel.data.writer import Contents, Writer
from worldmodel.extras import require
from worldmodel.files import write_json

_BUFFERED_EPISODES = 100
_MB = 2**20


class LeRobotWriter(Writer):
    """A LeRobot dataset of version 3.0 with one camera, or vectors, and one task.

    An episode of T transitions has T + 1 rows, one per frame. The last row has no action: it
    repeats the one before, with the reward 0. ``next.terminated``, ``next.truncated``, ``seed`` and
    the true state in ``observation.environment_state`` are features.

    Args:
        path: where the directory is made.
        contents: `lossless` stores images as PNG in the parquet files instead of mp4.
    """

    def __init__(self, path: Path, contents: Contents) -> None:
        require("pyarrow", "data")
        import pyarrow
        import pyarrow.parquet

        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._root, self._header = path, contents.header
        self._fps = max(1, round(contents.fps))
        self._task = str(collected_env(contents.header.metadata).get("id", contents.name))
        self._kind = _frame_kind(contents)
        self._features = _features(self._header, self._kind, self._fps)
        self.notes = _notes(contents, self._kind, self._fps)
        path.mkdir(parents=True)
        self._schema = _schema(pyarrow, self._features)
        self._tables = _FileSeries(path, DATA_PATH, DATA_FILE_MB)
        self._videos = _FileSeries(path, VIDEO_PATH.replace("{video_key}", IMAGE), VIDEO_FILE_MB)
        self._table_writer: Any = None
        self._video: VideoWriter | None = None
        self._index: Any = None
        self._rows: list[dict[str, Any]] = []
        self._episodes, self._frames = 0, 0
        self._stats: dict[str, Stats] = {}

    def add(self, episode: Episode) -> None:
        """Write one episode."""
        columns = self._columns(episode)
        stats = {key: number_stats(values) for key, values in columns.items()}
        place: dict[str, Any] = {}
        if self._kind == "vector":
            columns[STATE] = episode.frames
            stats[STATE] = number_stats(episode.frames)
        else:
            color = np.broadcast_to(episode.frames, (*episode.frames.shape[:3], 3))
            video = self._kind == "video"
            stats[IMAGE] = image_stats(color if video else episode.frames)
            place = self._add_video(color) if video else {}
        images = [_png(frame) for frame in episode.frames] if self._kind == "image" else []
        place = {**self._add_rows(columns, images), **place}
        self._add_to_index(len(episode.frames), place, stats)
        self._episodes += 1
        self._frames += len(episode.frames)

    def close(self) -> None:
        """Complete the files."""
        self._flush_index()
        for writer in (self._index, self._table_writer, self._video):
            if writer is not None:
                writer.close()
        self._write_tasks()
        stats = {
            key: {name: value.tolist() for name, value in found.items()}
            for key, found in self._stats.items()
        }
        write_json(self._root / STATS, stats)
        write_json(self._root / HEADER, self._header.as_json())
        write_json(self._root / INFO, self._info())

    def abort(self) -> None:
        """Stop the encoder and close the files."""
        if self._video is not None:
            self._video.abort()
        for writer in (self._table_writer, self._index):
            if writer is not None:
                writer.close()

    def _columns(self, episode: Episode) -> dict[str, np.ndarray]:
        """Make the columns of numbers, a row per frame."""
        steps = len(episode.actions)
        ended = np.arange(steps + 1) >= steps - 1
        actions = episode.actions.reshape(steps, *self._header.action_shape)
        true_state = {} if episode.states is None else {TRUE_STATE: episode.states}
        frame = np.arange(steps + 1)
        return {
            ACTION: np.concatenate([actions, actions[-1:]]),
            **true_state,
            REWARD: np.append(episode.rewards, np.float32(0)),
            DONE: ended,
            TERMINATED: ended & episode.terminated,
            TRUNCATED: ended & (not episode.terminated),
            SEED: np.full(steps + 1, episode.seed),
            "timestamp": (frame / self._fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(steps + 1, self._episodes),
            "index": self._frames + frame,
            "task_index": np.zeros(steps + 1, np.int64),
        }

    def _add_video(self, frames: np.ndarray) -> dict[str, Any]:
        """Append the frames to the video; return where they are."""
        if self._video is None or self._videos.full():
            if self._video is not None:
                self._video.close()
            path = self._videos.next_file()
            height, width = frames.shape[1:3]
            self._video = VideoWriter(path, height, width, self._fps)
        start = self._video.frames
        self._video.add(frames)
        return {
            f"videos/{IMAGE}/chunk_index": self._videos.chunk,
            f"videos/{IMAGE}/file_index": self._videos.file,
            f"videos/{IMAGE}/from_timestamp": start / self._fps,
            f"videos/{IMAGE}/to_timestamp": self._video.frames / self._fps,
        }

    def _add_rows(self, columns: dict[str, np.ndarray], images: list[Any]) -> dict[str, Any]:
        """Append the rows to the data, as one row group; return where they are."""
        if self._table_writer is None or self._tables.full():
            if self._table_writer is not None:
                self._table_writer.close()
            path = self._tables.next_file()
            self._table_writer = self._parquet.ParquetWriter(path, self._schema)
        arrays = [
            self._arrow.array(images, field.type)
            if field.name == IMAGE
            else _to_arrow(self._arrow, columns[field.name], field.type)
            for field in self._schema
        ]
        table = self._arrow.Table.from_arrays(arrays, schema=self._schema)
        self._table_writer.write_table(table, row_group_size=len(table))
        return {
            "data/chunk_index": self._tables.chunk,
            "data/file_index": self._tables.file,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + len(table),
        }

    def _add_to_index(self, length: int, place: dict[str, Any], stats: dict[str, Stats]) -> None:
        for key, found in stats.items():
            kept = self._stats.get(key)
            self._stats[key] = found if kept is None else merge_stats(kept, found)
        self._rows.append(
            {
                "episode_index": self._episodes,
                "tasks": [self._task],
                "length": length,
                **place,
                **{
                    f"stats/{key}/{name}": value.tolist()
                    for key, found in stats.items()
                    for name, value in found.items()
                },
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        if len(self._rows) >= _BUFFERED_EPISODES:
            self._flush_index()

    def _flush_index(self) -> None:
        if not self._rows:
            return
        table = self._arrow.Table.from_pylist(self._rows)
        if self._index is None:
            path = self._root / EPISODES_PATH.format(chunk_index=0, file_index=0)
            path.parent.mkdir(parents=True)
            self._index = self._parquet.ParquetWriter(path, table.schema)
        self._index.write_table(table.cast(self._index.schema))
        self._rows = []

    def _write_tasks(self) -> None:
        """Write the table of tasks, whose index is the text, as pandas reads it."""
        index = {"name": "task", "field_name": "task", "pandas_type": "unicode"}
        column = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64"}
        pandas = {
            "index_columns": ["task"],
            "column_indexes": [],
            "columns": [
                {**column, "numpy_type": "int64", "metadata": None},
                {**index, "numpy_type": "object", "metadata": None},
            ],
            "creator": {"library": "pyarrow", "version": self._arrow.__version__},
            "pandas_version": "2.0.0",
        }
        table = self._arrow.table({"task_index": [0], "task": [self._task]})
        table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
        self._parquet.write_table(table, self._root / TASKS)

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": self._episodes,
            "total_frames": self._frames,
            "total_tasks": 1,
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": self._fps,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._kind == "video" else None,
            "features": self._features,
        }


class _FileSeries:
    """Names the files of one kind: at most 1000 per chunk, each up to a size."""

    def __init__(self, root: Path, template: str, megabytes: int) -> None:
        self._root, self._template, self._limit = root, template, megabytes * _MB
        self._count = 0

    @property
    def chunk(self) -> int:
        return (self._count - 1) // CHUNK_FILES

    @property
    def file(self) -> int:
        return (self._count - 1) % CHUNK_FILES

    def full(self) -> bool:
        """Whether the newest file has its size."""
        path = self._path()  # the encoder makes a video when it has its first frames
        return path.exists() and path.stat().st_size >= self._limit

    def next_file(self) -> Path:
        """Return the path of another file."""
        self._count += 1
        path = self._path()
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _path(self) -> Path:
        return self._root / self._template.format(chunk_index=self.chunk, file_index=self.file)


def _frame_kind(contents: Contents) -> str:
    """Return ``video``, ``image`` or ``vector``."""
    shape = contents.header.frame_shape
    if contents.header.frame_dtype != "uint8":
        return "vector"
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise ValueError(
            f"frames have shape {shape}; LeRobot stores images with 1 or 3 channels: convert to "
            "hdf5 or minari"
        )
    return "image" if contents.lossless else "video"


def _notes(contents: Contents, kind: str, fps: int) -> tuple[str, ...]:
    notes = []
    if kind == "video":
        notes.append(
            "Images are compressed as H.264, which changes pixels; --lossless stores them as PNG"
        )
    if abs(fps - contents.fps) > 1e-6:
        notes.append(
            f"LeRobot stores a whole number of frames per second: {fps} instead of {contents.fps:g}"
        )
    return tuple(notes)


def _features(header: Header, kind: str, fps: int) -> dict[str, dict[str, Any]]:
    """Describe the columns and the video, as ``info.json`` does."""

    def numbers(dtype: str, size: int = 1) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [size], "names": None}

    discrete = isinstance(header.action_space, gym.spaces.Discrete)
    action = numbers("int64") if discrete else numbers("float32", header.action_shape[0])
    true_state = {TRUE_STATE: numbers("float64", header.state_dim)} if header.state_dim else {}
    indices = {name: numbers("int64") for name in INDEX_COLUMNS}
    return {
        **({STATE: numbers("float32", header.frame_shape[0])} if kind == "vector" else {}),
        **({IMAGE: _image_feature(header, kind, fps)} if kind != "vector" else {}),
        **true_state,
        ACTION: action,
        REWARD: numbers("float32"),
        DONE: numbers("bool"),
        TERMINATED: numbers("bool"),
        TRUNCATED: numbers("bool"),
        SEED: numbers("int64"),
        **indices,
        "timestamp": numbers("float32"),
    }


def _image_feature(header: Header, kind: str, fps: int) -> dict[str, Any]:
    height, width, channels = header.frame_shape
    names = ["height", "width", "channels"]
    if kind == "image":
        return {"dtype": "image", "shape": [height, width, channels], "names": names}
    info = {
        "video.height": height,
        "video.width": width,
        "video.codec": CODEC,
        "video.pix_fmt": pixel_format(height, width),
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }
    return {"dtype": "video", "shape": [height, width, 3], "names": names, "info": info}


def _schema(arrow: Any, features: dict[str, dict[str, Any]]) -> Any:
    """Make the schema of the data; its metadata are for Hugging Face's `datasets`."""
    fields: list[Any] = []
    described: dict[str, dict[str, Any]] = {}
    for key, feature in features.items():
        size, dtype = feature["shape"][0], feature["dtype"]
        if dtype == "video":
            continue
        if dtype == "image":
            kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
            described[key] = {"_type": "Image"}
        elif size == 1:
            kind = arrow.bool_() if dtype == "bool" else getattr(arrow, dtype)()
            described[key] = {"dtype": dtype, "_type": "Value"}
        else:
            kind = arrow.list_(getattr(arrow, dtype)(), size)
            value = {"dtype": dtype, "_type": "Value"}
            described[key] = {"feature": value, "length": size, "_type": "Sequence"}
        fields.append(arrow.field(key, kind))
    return arrow.schema(fields, {"huggingface": json.dumps({"info": {"features": described}})})


def _to_arrow(arrow: Any, values: np.ndarray, kind: Any) -> Any:
    """Convert rows of numbers (N,), (N, 1) or (N, D) to a column."""
    if not arrow.types.is_fixed_size_list(kind):
        return arrow.array(values.reshape(-1), kind)
    flat = arrow.array(np.ascontiguousarray(values).reshape(-1), kind.value_type)
    return arrow.FixedSizeListArray.from_arrays(flat, kind.list_size)


def _png(frame: np.ndarray) -> dict[str, Any]:
    """Encode an image uint8 (H, W, C), C 1 or 3."""
    memory = io.BytesIO()
    Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(
        memory, "PNG", compress_level=1
    )
    return {"bytes": memory.getvalue(), "path": None}
