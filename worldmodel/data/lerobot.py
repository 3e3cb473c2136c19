"""Episodes from LeRobot datasets; see `worldmodel.data.lerobot_layout`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodel.data.header import Header
from worldmodel.data.lerobot_layout import (
    ACTION,
    DONE,
    EPISODES,
    HEADER,
    IMAGE,
    INDEX_COLUMNS,
    INFO,
    REWARD,
    SEED,
    STATE,
    TERMINATED,
    TRUE_STATE,
    TRUNCATED,
    Feature,
    fill_path,
    inside,
    read_info,
)
from worldmodel.data.parquet_rows import ParquetRows, read_columns, to_array
from worldmodel.data.reader import Reader, ReadOptions
from worldmodel.data.rollout import Episode
from worldmodel.data.video_files import VideoReader
from worldmodel.errors import RunError
from worldmodel.extras import require
from worldmodel.files import read_json

_PLACE = ("episode_index", "length", "dataset_from_index", "data/chunk_index", "data/file_index")
_KNOWN = {ACTION, REWARD, TERMINATED, DONE, TRUNCATED, SEED, *INDEX_COLUMNS}


class LeRobotReader(Reader):
    """The directory of a LeRobot dataset of version 3.

    N rows are N frames and N - 1 transitions: the action of the last row leads to no frame, so it
    is not read, and neither are its reward and its end. Episodes of one row are left out.
    ``next.terminated`` says whether an episode terminated; without it none did. ``seed``, where
    present, gives the seeds.
    """

    def __init__(self, reference: str, options: ReadOptions) -> None:
        require("pyarrow", "data")
        import pyarrow.parquet

        self._parquet = pyarrow.parquet
        self.root, self.options = Path(reference), options
        self._info = read_info(self.root)
        self._features, self.fps = self._info.features, self._info.fps
        self._key = self._choose()
        if ACTION not in self._features:
            raise ValueError(f"{self.root} has no feature {ACTION!r}; it holds {self._names()}")
        self._state_key = next((k for k in self._state_names() if self._is_numeric(k)), None)
        used = [ACTION, REWARD, TERMINATED, SEED, self._state_key, self._key]
        self._columns = [k for k in used if k and k in self._features and not self._is_video(k)]
        self.unread = tuple(sorted(self._features.keys() - _KNOWN - set(used)))
        self._episodes = self._read_episodes()
        self._numbers = np.flatnonzero(self._episodes["length"] >= 2)
        self.count = len(self._numbers)
        if (self.root / HEADER).exists():
            self.adopt(self._read_header())
        self._open_readers()

    @classmethod
    def matches(cls, reference: str) -> bool:
        """Check whether the path is a directory with ``meta/info.json``."""
        return Path(reference, INFO).is_file()

    @property
    def has_rewards(self) -> bool:
        """Whether the dataset has rewards."""
        return REWARD in self._features and super().has_rewards

    def actions(self) -> Iterator[np.ndarray]:
        """Read the actions alone."""
        rows = self._rows([ACTION])
        for index in self._numbers:
            table = rows.read(*self._place(int(index)))
            yield self._array(table, ACTION)[:-1]

    def identity(self) -> dict[str, Any]:
        """Return a digest of the metadata, and size and time of each file."""
        digest, files = hashlib.sha256(), sorted(self.root.rglob("*.*"))
        digest.update((self.root / INFO).read_bytes())
        for file in files:
            status = file.stat()
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}".encode())
        return {"lerobot": [str(self.root.resolve()), digest.hexdigest(), self._key]}

    def __iter__(self) -> Iterator[Episode]:
        try:
            yield from (self.episode(number) for number in range(len(self._numbers)))
        finally:
            if self._video is not None:
                self._video.close()

    def episode(self, number: int) -> Episode:
        """Read one episode."""
        self.require_episode(number)
        index = int(self._numbers[number])
        table = self._data.read(*self._place(index))
        if (to_array(table["episode_index"]) != self._episodes["episode_index"][index]).any():
            raise ValueError(f"{EPISODES} says other rows for episode {index} than the data have")
        terminated = self._array(table, TERMINATED) if TERMINATED in self._columns else None
        rewards = self._array(table, REWARD) if REWARD in self._columns else None
        return Episode(
            int(self._array(table, SEED)[0]) if SEED in self._columns else -1,
            self._frames(table, index),
            self._array(table, ACTION)[:-1],
            np.zeros(len(table) - 1) if rewards is None else rewards[:-1].reshape(-1),
            terminated is not None and bool(terminated[-2]),
            self._array(table, self._state_key) if self._state_key else None,
        )

    def _choose(self) -> str:
        """Choose the feature with the observations."""
        pixels = self.options.observation == "pixels"
        suitable = {
            key
            for key, feature in self._features.items()
            if (feature.visual if pixels else feature.numeric and len(feature.shape) == 1)
        }
        wanted = (IMAGE,) if pixels else (STATE, TRUE_STATE)
        if self.options.key is not None:
            wanted = (self.options.key,)
        elif pixels and len(suitable) == 1:
            return suitable.pop()
        for key in wanted:
            if key in suitable:
                return key
        kind = "cameras" if pixels else "vectors"
        found = f"its {kind} are {', '.join(sorted(suitable))}" if suitable else f"no {kind}"
        raise ValueError(
            f"{self.root} has no {self.options.observation} under {' or '.join(wanted)}; {found}: "
            "name one with --observation-key, or choose --observation pixels or vector"
        )

    def _state_names(self) -> tuple[str, ...]:
        named = (self.options.state_key, f"observation.{self.options.state_key}")
        own = (TRUE_STATE,) if self.options.state_key == "state" else ()
        return tuple(name for name in (*own, *named) if name != self._key)

    def _is_numeric(self, key: str) -> bool:
        return key in self._features and self._features[key].numeric

    def _is_video(self, key: str) -> bool:
        return self._features[key].dtype == "video"

    def _names(self) -> str:
        return ", ".join(sorted(self._features))

    def _read_episodes(self) -> dict[str, np.ndarray]:
        """Read where each episode is, in order."""
        names = list(_PLACE)
        if self._is_video(self._key):
            place = ("chunk_index", "file_index", "from_timestamp")
            names += [f"videos/{self._key}/{name}" for name in place]
        files = sorted(inside(self.root, EPISODES).glob("*/*.parquet"))
        paths = [inside(self.root, file.relative_to(self.root).as_posix()) for file in files]
        found = read_columns(self._parquet, paths, names, self._info.total_episodes)
        order = np.argsort(found["episode_index"], kind="stable")
        found = {name: column[order] for name, column in found.items()}
        lengths, indices = found["length"], found["episode_index"]
        whole = len(indices) == self._info.total_episodes
        if not whole or (lengths < 0).any() or lengths.sum() > self._info.total_frames:
            raise ValueError(
                f"{self.root / EPISODES} lists {len(indices)} episodes of {lengths.sum()} frames, "
                f"but {INFO} says {self._info.total_episodes} of {self._info.total_frames}"
            )
        place_in = np.stack([found["data/chunk_index"], found["data/file_index"]], axis=1)
        _, group = np.unique(place_in, axis=0, return_inverse=True)
        first = np.full(group.max(initial=-1) + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, group, found["dataset_from_index"])
        found["row"] = found["dataset_from_index"] - first[group]
        return found

    def _read_header(self) -> Header:
        try:
            return Header.from_json(read_json(inside(self.root, HEADER), "delete it"))
        except (RunError, ValueError) as error:
            raise ValueError(f"{self.root / HEADER} is damaged: {error}; delete it") from error

    def _open_readers(self) -> None:
        self._data, self._video = self._rows(self._columns), None
        if self._is_video(self._key):
            self.lossy = True
            height, width, _ = self._features[self._key].image_size
            self._video = VideoReader(height, width, self._info.fps)

    def _rows(self, columns: list[str]) -> ParquetRows:
        return ParquetRows(self._parquet, [*columns, "episode_index"])

    def _place(self, index: int) -> tuple[Path, int, int]:
        """Return file, first row and number of rows of an episode."""
        place = self._episodes
        relative = fill_path(
            self._info.data_path,
            chunk_index=int(place["data/chunk_index"][index]),
            file_index=int(place["data/file_index"][index]),
        )
        path = inside(self.root, relative)
        return path, int(place["row"][index]), int(place["length"][index])

    def _array(self, table: Any, key: str) -> np.ndarray:
        """Return a column as (N, ...), or (N,) if the feature has the shape (1,)."""
        shape, values = self._features[key].shape, to_array(table[key])
        if values.size != len(table) * self._features[key].row_size:
            raise ValueError(f"{self.root}: {key} has not the shape {shape} that {INFO} says")
        return values if shape == [1] else values.reshape(len(table), *shape)

    def _frames(self, table: Any, index: int) -> np.ndarray:
        feature = self._features[self._key]
        if feature.numeric:
            return self._array(table, self._key).reshape(len(table), feature.row_size)
        if self._video is None:
            return np.stack([decode(cell, feature) for cell in table[self._key]])
        place, name = self._episodes, f"videos/{self._key}"
        relative = fill_path(
            str(self._info.video_path),
            video_key=self._key,
            chunk_index=int(place[f"{name}/chunk_index"][index]),
            file_index=int(place[f"{name}/file_index"][index]),
        )
        start = round(float(place[f"{name}/from_timestamp"][index]) * self._info.fps)
        frames = self._video.read(inside(self.root, relative), max(start, 0), len(table))
        gray = self.header is not None and self.header.frame_shape[-1] == 1
        return frames[..., 1:2] if gray else frames


def decode(cell: Any, feature: Feature) -> np.ndarray:
    """Decode an image of a parquet file, uint8 (H, W, C); it must have the declared size.

    Raises:
        ValueError: If it is not such a PNG or JPEG.
    """
    content = cell.as_py() if cell.is_valid else None
    data = content.get("bytes") if isinstance(content, dict) else None
    if data is None:
        raise ValueError("an image is not stored in the parquet file; expected PNG or JPEG bytes")
    height, width, channels = feature.image_size
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.size != (width, height):
                raise ValueError(
                    f"an image has {image.size[0]} x {image.size[1]} pixels, but {INFO} says "
                    f"{width} x {height}"
                )
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"an image is damaged: {error}") from error
    return pixels.reshape(height, width, -1)
