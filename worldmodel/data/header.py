"""The header of a replay buffer: one JSON file that says what the other files hold."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.errors import ReplayBufferError

FORMAT = "worldmodel-replay"
VERSION = 1
HEADER_FILE = "header.json"
FRAME_DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class Header:
    """What every episode of one replay buffer has in common.

    Attributes:
        frame_shape: shape of one frame, ``(H, W, C)`` for images, ``(N,)`` for vectors.
        frame_dtype: ``"uint8"`` for images or ``"float32"`` for vectors.
        action_space: the ``Box`` or ``Discrete`` space the actions are drawn from.
        state_dim: length of the true state stored beside each frame, 0 for none.
        metadata: what the data was collected with; JSON values only.
    """

    frame_shape: tuple[int, ...]
    frame_dtype: str
    action_space: gym.Space
    state_dim: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
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
        """Put the header in place atomically: readers see all of it or none."""
        text = json.dumps(self._to_json(), indent=1, allow_nan=False)
        temporary = directory / (HEADER_FILE + ".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / HEADER_FILE)

    @classmethod
    def read(cls, directory: Path) -> Header:
        """Read the header of a buffer.

        Raises:
            ReplayBufferError: if there is no header, or one that this version cannot read.
        """
        content = _read_json(directory)
        try:
            return cls(
                frame_shape=tuple(int(n) for n in content["frame_shape"]),
                frame_dtype=content["frame_dtype"],
                action_space=_space_from_json(content["action_space"]),
                state_dim=int(content["state_dim"]),
                metadata=dict(content["metadata"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ReplayBufferError(
                f"{directory / HEADER_FILE} is damaged ({error}); restore the file from a copy, "
                "or collect the data again under another path"
            ) from error

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "frame_shape": list(self.frame_shape),
            "frame_dtype": self.frame_dtype,
            "action_space": _space_to_json(self.action_space),
            "state_dim": self.state_dim,
            "metadata": self.metadata,
        }


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
            f"{directory} holds no {HEADER_FILE}, so it is no replay buffer; "
            "pass the directory that `collect` or `ReplayBuffer.create` made"
        ) from None
    except ValueError as error:
        raise ReplayBufferError(
            f"{path} is not valid JSON ({error}); restore the file from a copy, "
            "or collect the data again under another path"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ReplayBufferError(
            f'{path} does not say "format": "{FORMAT}", so {directory} is no replay buffer; '
            "pass the directory that `collect` or `ReplayBuffer.create` made"
        )
    if content.get("version") != VERSION:
        raise ReplayBufferError(
            f"{directory} has format version {content.get('version')!r}; this worldmodel reads "
            f"version {VERSION}: update worldmodel, or collect the data again under another path"
        )
    return content


def _space_to_json(space: gym.Space) -> dict[str, Any]:
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


def _space_from_json(content: dict[str, Any]) -> gym.Space:
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
    """Strict JSON has no infinities; their names survive ``float()``."""
    return x if math.isfinite(x) else str(x)
