"""The layout of LeRobot datasets, version 3.0, and what of it may be trusted.

A dataset is a directory::

    meta/info.json                              frames per second, features, paths of the files
    meta/tasks.parquet                          texts of the tasks
    meta/stats.json                             statistics of all features
    meta/episodes/chunk-000/file-000.parquet    one row per episode: where it is, its statistics
    data/chunk-000/file-000.parquet             one row per frame, episode after episode
    videos/<key>/chunk-000/file-000.mp4         frames of the same rows

Row t of an episode holds the observation at t, the action that is taken there, and the reward that
this action leads to.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from worldmodel.errors import RunError
from worldmodel.files import read_record

VERSION = "v3.0"
INFO, TASKS, STATS = "meta/info.json", "meta/tasks.parquet", "meta/stats.json"
EPISODES = "meta/episodes"
HEADER = "meta/worldmodel.json"
"""An addition: the header of the replay buffer that was converted."""
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{FILE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{FILE}.mp4"
EPISODES_PATH = f"{EPISODES}/{FILE}.parquet"
CHUNK_FILES, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200

IMAGE, STATE, TRUE_STATE = (
    "observation.image",
    "observation.state",
    "observation.environment_state",
)
ACTION, REWARD, DONE = "action", "next.reward", "next.done"
TERMINATED, TRUNCATED, SEED = "next.terminated", "next.truncated", "seed"
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")

_PLACEHOLDER = re.compile(r"\{(\w+)(?::0?(\d)d)?\}")
_REPAIR = "download the dataset again"

Positive = Annotated[int, Field(ge=1, le=2**31)]
Count = Annotated[int, Field(ge=0, le=2**40)]


@dataclass(frozen=True)
class Feature:
    """A feature of ``info.json``: one column of the data, or one video.

    Attributes:
        dtype: of numpy, or ``image``, ``video`` or another word.
        shape: of one row.
        info: more about a video.
    """

    dtype: str
    shape: Annotated[list[Positive], Field(min_length=1, max_length=5)]
    info: dict[str, Any] | None = None

    @property
    def visual(self) -> bool:
        """Whether its rows are images, but not depth maps."""
        depth = {"is_depth_map", "video.is_depth_map"} & {k for k, v in self._info.items() if v}
        return self.dtype in ("image", "video") and len(self.shape) == 3 and not depth

    @property
    def numeric(self) -> bool:
        """Whether its rows are numbers."""
        return re.fullmatch(r"bool|u?int\d+|float\d+", self.dtype) is not None

    @property
    def image_size(self) -> tuple[int, int, int]:
        """Height, width and channels of an image, which may be listed in either order."""
        first, middle, last = self.shape
        if last not in (1, 3, 4) and first in (1, 3, 4):
            return middle, last, first
        return first, middle, last

    @property
    def row_size(self) -> int:
        """Values per row."""
        return math.prod(self.shape)

    @property
    def _info(self) -> dict[str, Any]:
        return self.info or {}


@dataclass(frozen=True)
class Info:
    """What is used of ``meta/info.json``."""

    codebase_version: str
    fps: Annotated[float, Field(gt=0, le=10_000)]
    total_episodes: Count
    total_frames: Count
    features: dict[str, Feature]
    data_path: str = DATA_PATH
    video_path: str | None = VIDEO_PATH


def read_info(root: Path) -> Info:
    """Read and validate ``meta/info.json``.

    Raises:
        ValueError: If it is damaged, or of another version.
    """
    try:
        info = read_record(inside(root, INFO), Info, _REPAIR)
    except RunError as error:
        raise ValueError(str(error)) from error
    if not info.codebase_version.startswith("v3."):
        raise ValueError(
            f"{root} is a LeRobot dataset of version {info.codebase_version[:20]}; this reads "
            "v3.0: convert it with lerobot's script convert_dataset_v21_to_v30"
        )
    return info


def inside(root: Path, relative: str) -> Path:
    """Join a path of a dataset to its directory.

    Raises:
        ValueError: If it leads out of the directory, also by a link.
    """
    path = root / relative
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{relative!r} leads out of the dataset {root}; if a link does, replace it by a copy "
            "(cp -rL)"
        )
    return path


def fill_path(template: str, **values: int | str) -> str:
    """Insert numbers and names into a path of ``info.json``.

    Unlike `str.format`, it looks up no attributes and pads to 9 digits at most.

    Raises:
        ValueError: If the path names another value.
    """

    def insert(match: re.Match[str]) -> str:
        name, digits = match.groups()
        if name not in values:
            raise ValueError(
                f"{INFO} has the path {template[:100]!r}; expected {{chunk_index}}, {{file_index}} "
                "and {video_key} in it"
            )
        return str(values[name]).zfill(int(digits or 0))

    return _PLACEHOLDER.sub(insert, template)
