"""Validate one episode and bring it into the dtypes and shapes of the files."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from worldmodel.data.header import Header


def episode_rows(
    header: Header,
    frames: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    states: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """The rows an episode of T transitions adds to each file of a buffer.

    Args:
        header: what the buffer holds.
        frames: ``(T+1, *frame_shape)``, uint8 for images, any float for vectors.
        actions: ``(T, *action_space.shape)``.
        rewards: ``(T,)``.
        states: ``(T+1, state_dim)``, or ``None`` if the buffer stores none.

    Returns:
        Arrays by file name, C-contiguous.

    Raises:
        ValueError: if a shape, a dtype or a value does not fit.
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
        return _floats("actions", flat, flat.shape, np.float32)
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
