"""What a replay buffer holds: its header, its locks, and the validation of new episodes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
from filelock import FileLock, Timeout

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.errors import ReplayBufferError
from worldmodel.files import write_text
from worldmodel.hyperparameters import Compression

FORMAT = "worldmodel-replay"
VERSION = 2
"""Of compressed buffers; others have version 1, which older programs read too."""

HEADER_FILE = "header.json"
_LOCK_FILE = "write.lock"
_TEMPORARY = re.compile(r"\.header\.[0-9a-f]+\.json")
"""Names of unfinished headers, see `worldmodel.files.replacing`."""
FRAME_DTYPES = ("uint8", "float32")

ACTION_SLACK = 1e-3
"""How far a Box action may be outside of its bounds, as a fraction of their distance."""


@dataclass(frozen=True)
class Header:
    """What every episode of one replay buffer has in common.

    Attributes:
        frame_shape: shape of one frame, ``(H, W, C)`` for images, ``(N,)`` for vectors.
        frame_dtype: ``"uint8"`` for images or ``"float32"`` for vectors.
        action_space: ``Box`` or ``Discrete``.
        state_dim: length of the true state stored beside each frame, 0 for none.
        metadata: how the data was collected; JSON values only.
        compression: how frames are stored; it does not change them.
    """

    frame_shape: tuple[int, ...]
    frame_dtype: str
    action_space: gym.Space[Any]
    state_dim: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    compression: Compression = "none"

    def __post_init__(self) -> None:
        if self.compression not in get_args(Compression):
            raise ValueError(
                f"compression is {self.compression!r}; expected one of {get_args(Compression)}"
            )
        if self.frame_dtype not in FRAME_DTYPES:
            raise ValueError(
                f"frame_dtype is {self.frame_dtype!r}; frames are stored as uint8 (images) or "
                f"float32 (vectors): pass one of {FRAME_DTYPES}"
            )
        if not self.frame_shape or min(self.frame_shape) < 1:
            raise ValueError(f"frame_shape is {self.frame_shape}; every axis needs at least 1")
        if self.state_dim < 0:
            raise ValueError(f"state_dim is {self.state_dim}; expected 0 (no states) or more")
        _space_to_json(self.action_space)
        try:
            json.dumps(self.metadata, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metadata must be made of JSON values: {error}") from error

    @property
    def discrete(self) -> bool:
        """Whether actions are integers of a ``Discrete`` space."""
        return isinstance(self.action_space, gym.spaces.Discrete)

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one stored action: ``()`` for Discrete, ``(A,)`` for Box."""
        if self.discrete:
            return ()
        assert self.action_space.shape is not None
        return (math.prod(self.action_space.shape),)

    @property
    def action_dtype(self) -> np.dtype:
        """``int64`` for Discrete, ``float32`` for Box."""
        return np.dtype(np.int64 if self.discrete else np.float32)

    def write(self, directory: Path) -> None:
        """Write the header as a whole: readers see all of it or none, also after a power cut."""
        write_text(directory / HEADER_FILE, json.dumps(self.as_json(), indent=1, allow_nan=False))

    @classmethod
    def read(cls, directory: Path) -> Header:
        """Read the header of a buffer.

        Raises:
            ReplayBufferError: If there is no header, or one that this version cannot read, or a
                file of the buffer is a link.
        """
        require_no_links(directory)
        content = _read_json(directory)
        try:
            return cls.from_json(content)
        except ValueError as error:
            raise ReplayBufferError(
                f"{directory / HEADER_FILE} is damaged ({error}); restore the file from a copy, "
                "or collect the data again under another path"
            ) from error

    @classmethod
    def from_json(cls, content: Any) -> Header:
        """Make a header of what `as_json` returns.

        Raises:
            ValueError: If a value is missing or invalid.
        """
        try:
            return cls(
                frame_shape=tuple(int(n) for n in content["frame_shape"]),
                frame_dtype=content["frame_dtype"],
                action_space=_space_from_json(content["action_space"]),
                state_dim=int(content["state_dim"]),
                metadata=dict(content["metadata"]),
                compression=content.get("compression", "none"),
            )
        except KeyError as error:
            raise ValueError(f"{error} is missing") from error
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from error

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``header.json``."""
        stored = {"compression": self.compression} if self.compression != "none" else {}
        return {
            "format": FORMAT,
            "version": VERSION if stored else 1,
            "frame_shape": list(self.frame_shape),
            "frame_dtype": self.frame_dtype,
            "action_space": _space_to_json(self.action_space),
            "state_dim": self.state_dim,
            "metadata": self.metadata,
            **stored,
        }


def require_no_links(directory: Path) -> None:
    """Raise ReplayBufferError if a file of a buffer is a link, which could lead to any file."""
    for entry in directory.iterdir() if directory.is_dir() else ():
        if entry.is_symlink():
            raise ReplayBufferError(
                f"{entry} is a link, and the files of a replay buffer must be in its directory; "
                "replace the link by a copy"
            )


def _read_json(directory: Path) -> dict[str, Any]:
    path = directory / HEADER_FILE
    if not directory.is_dir():
        raise ReplayBufferError(
            f"{directory} is not a directory; expected a replay buffer: check the path, "
            "or collect one there"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReplayBufferError(
            f"{directory} holds no {HEADER_FILE}, so it is not a replay buffer; "
            "pass the directory that `collect` or `ReplayBuffer.create` made"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ReplayBufferError(
            f"{path} is not valid JSON ({error}); restore the file from a copy, "
            "or collect the data again under another path"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ReplayBufferError(
            f'{path} lacks "format": "{FORMAT}", so {directory} is not a replay buffer; '
            "pass the directory that `collect` or `ReplayBuffer.create` made"
        )
    if content.get("version") not in range(1, VERSION + 1):
        raise ReplayBufferError(
            f"{directory} has format version {content.get('version')!r}; this worldmodel reads "
            f"version 1 to {VERSION}: update worldmodel, or collect the data again under another "
            "path"
        )
    return content


def _space_to_json(space: gym.Space[Any]) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gym.spaces.Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": space.dtype.name,
            "low": [_number_to_json(x) for x in space.low.ravel().tolist()],
            "high": [_number_to_json(x) for x in space.high.ravel().tolist()],
        }
    raise ValueError(f"action_space is {space}; a replay buffer stores Box or Discrete actions")


def _space_from_json(content: dict[str, Any]) -> gym.Space[Any]:
    if content["type"] == "Discrete":
        return gym.spaces.Discrete(content["n"], start=content["start"])
    if content["type"] != "Box":
        raise ValueError(f"unknown action space type {content['type']!r}")
    dtype = np.dtype(content["dtype"])
    low, high = (
        np.array([float(x) for x in content[key]]).astype(dtype).reshape(content["shape"])
        for key in ("low", "high")
    )
    return gym.spaces.Box(low, high, dtype=dtype.type)


def _number_to_json(x: float) -> float | str:
    """Replace infinities, which strict JSON lacks, by names that ``float()`` reads."""
    return x if math.isfinite(x) else str(x)


def unknown_files(path: Path) -> list[str]:
    """List names in a directory, but for what an interrupted creation leaves; [] if missing."""
    if not path.is_dir():
        return []
    names = {entry.name for entry in path.iterdir()} - {_LOCK_FILE}
    return sorted(name for name in names if not _TEMPORARY.fullmatch(name))


def lock_for_writing(path: Path, *, new: bool = False) -> FileLock:
    """Become the one writer of a buffer. The system frees the lock of a process that dies.

    Args:
        path: the buffer's directory.
        new: whether the buffer is about to be created; a foreign directory gets no lock file.

    Raises:
        ReplayBufferError: If another writer holds the lock, or a new buffer's directory holds
            anything.
    """
    if new and not (path / _LOCK_FILE).exists():
        _require_empty(path)
    lock = FileLock(path / _LOCK_FILE, thread_local=False)
    try:
        lock.acquire(blocking=False)
        if new:
            _require_empty(path)
    except Timeout:
        raise ReplayBufferError(
            f"{path} is open for appending elsewhere and takes one writer at a time; "
            "wait until that one is closed, or open it for reading (append=False)"
        ) from None
    except BaseException:
        lock.release()
        raise
    return lock


def _require_empty(path: Path) -> None:
    found = unknown_files(path)
    if found:
        raise ReplayBufferError(
            f"{path} is not empty ({', '.join(found[:3])}); a new replay buffer needs a directory "
            "of its own: pass another path"
        )


def episode_rows(
    header: Header,
    frames: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    states: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Validate an episode of T transitions and give the rows it adds to each file of a buffer.

    Args:
        header: what the buffer holds.
        frames: ``(T+1, *frame_shape)``, uint8 for images, any float for vectors.
        actions: ``(T, *action_space.shape)``.
        rewards: ``(T,)``.
        states: ``(T+1, state_dim)``, or None if the buffer stores none.

    Returns:
        Arrays by file name, C-contiguous.

    Raises:
        ValueError: If a shape, a dtype or a value does not fit.
    """
    frames = np.asarray(frames)
    steps = len(frames) - 1 if frames.ndim else 0
    if steps < 1:
        raise ValueError(f"frames have shape {frames.shape}; an episode has at least 2 frames")
    _require_shape("frames", frames, (steps + 1, *header.frame_shape))
    rows = {
        "frames": _frames(header, frames),
        "actions": _actions(header, np.asarray(actions), steps),
        "rewards": _floats("rewards", rewards, (steps,), np.float32),
    }
    if (states is not None) != (header.state_dim > 0):
        given = "none were given" if states is None else "some were given"
        raise ValueError(f"the buffer stores states of length {header.state_dim}, but {given}")
    if states is not None:
        rows["states"] = _floats("states", states, (steps + 1, header.state_dim), np.float64)
    return rows


def _frames(header: Header, frames: np.ndarray) -> np.ndarray:
    if header.frame_dtype == "float32":
        return _floats("frames", frames, frames.shape, np.float32)
    if frames.dtype != np.uint8:
        raise ValueError(
            f"frames are {frames.dtype}; this buffer stores images as uint8 from 0 to 255"
        )
    return np.ascontiguousarray(frames)


def _actions(header: Header, actions: np.ndarray, steps: int) -> np.ndarray:
    space = header.action_space
    assert space.shape is not None
    _require_shape("actions", actions, (steps, *space.shape))
    if not isinstance(space, gym.spaces.Discrete):
        flat = actions.reshape(steps, *header.action_shape)
        rows = _floats("actions", flat, flat.shape, np.float32)
        assert isinstance(space, gym.spaces.Box)
        low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
        slack = ACTION_SLACK * np.where(np.isfinite(high - low), high - low, 0.0)
        outside = rows[(rows < low - slack) | (rows > high + slack)]
        if len(outside):
            raise ValueError(f"action {outside[0]:g} is outside {space}; clip the actions to it")
        return rows
    if not np.issubdtype(actions.dtype, np.integer):
        raise ValueError(f"actions are {actions.dtype}; {space} takes integers")
    outside = actions[(actions < space.start) | (actions >= space.start + space.n)]
    if len(outside):
        raise ValueError(f"action {outside[0]} is outside {space}")
    return np.ascontiguousarray(actions, np.int64)


def _floats(name: str, values: np.ndarray, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    array = np.asarray(values)
    _require_shape(name, array, shape)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} are {array.dtype}; expected numbers to store as {dtype.__name__}")
    array = np.ascontiguousarray(array, dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold NaN or infinity; every stored value must be finite")
    return array


def _require_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} have shape {array.shape}; expected {shape}")


@contextmanager
def dataset_lock(path: Path, callbacks: Sequence[Callback] = ()) -> Iterator[None]:
    """Hold the lock of one cached dataset; wait while another run collects it.

    Args:
        path: the dataset's directory, which may be missing.
        callbacks: get a message if there is another run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.parent / f".{path.name}.lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        CallbackList(callbacks).on_message(
            f"Another process collects {path.name}; waiting for it ..."
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
