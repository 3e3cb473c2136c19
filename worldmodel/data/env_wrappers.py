"""Wrappers between an environment and the rest of the toolkit: the user's own and the adaptations.

From the inside out: the user's wrappers, frame skip, one entry of a Dict observation, images with
their channels last, and one flat action space. An environment that needs none stays as it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from worldmodel.data.frames import FrameSource, FrameStack
from worldmodel.data.policies import source_digest
from worldmodel.errors import ConfigError
from worldmodel.registry import load_reference, reference
from worldmodel.user_code import in_user_code

Env = gym.Env[Any, Any]
Wrapper = Callable[[Env], Env]

MAX_COMBINATIONS = 1024
"""Most actions that a MultiDiscrete or MultiBinary space may have as one Discrete space."""

CHANNELS = (1, 3, 4)


class FrameSkip(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Repeats each action; the rewards of a step are summed, and it stops at the episode's end.

    The same as ``RepeatAction`` of Gymnasium 1.3 and later.

    Args:
        env: The environment.
        skip: Steps of `env` per step, at least 1.
    """

    def __init__(self, env: Env, skip: int) -> None:
        RecordConstructorArgs.__init__(self, skip=skip)
        super().__init__(env)
        self.skip = skip

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take the action `skip` times; the observation and info are the last ones."""
        total = 0.0
        for _ in range(self.skip):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class PickObservation(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Observes one entry of a Dict observation.

    Args:
        env: An environment with Dict observations.
        key: Of the entry.
    """

    def __init__(self, env: Env, key: str) -> None:
        RecordConstructorArgs.__init__(self, key=key)
        super().__init__(env)
        self.key = key
        self.observation_space = env.observation_space[key]  # type: ignore[index]

    def observation(self, observation: Any) -> Any:
        """Give the entry."""
        return observation[self.key]


class ChannelsLast(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Turns images (C, H, W) into (H, W, C)."""

    def __init__(self, env: Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        space: Any = env.observation_space
        low, high = (np.moveaxis(bound, 0, -1) for bound in (space.low, space.high))
        self.observation_space = spaces.Box(low, high, dtype=space.dtype.type)

    def observation(self, observation: Any) -> np.ndarray:
        """Move the channels to the last axis."""
        return np.ascontiguousarray(np.moveaxis(observation, 0, -1))


class CombinedActions(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Makes one Discrete space of a MultiDiscrete or MultiBinary one: a number per combination.

    The last part changes fastest, as in `numpy.unravel_index`.
    """

    def __init__(self, env: Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        space: Any = env.action_space
        multi = isinstance(space, spaces.MultiDiscrete)
        self._shape, self._dtype = space.shape, space.dtype
        self._start = np.ravel(space.start) if multi else 0
        self._sizes = tuple(np.ravel(space.nvec).tolist()) if multi else (2,) * _size(space)
        self.action_space = spaces.Discrete(_combinations(space))

    def action(self, action: Any) -> np.ndarray:
        """Turn the number of a combination into the environment's action."""
        parts = np.array(np.unravel_index(int(action), self._sizes)) + self._start
        combined: np.ndarray = parts.reshape(self._shape).astype(self._dtype)
        return combined


class FlatActions(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Makes a one-dimensional Box of one with another number of dimensions."""

    def __init__(self, env: Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        space: Any = env.action_space
        self._shape = space.shape
        self.action_space = spaces.Box(
            np.ravel(space.low), np.ravel(space.high), dtype=space.dtype.type
        )

    def action(self, action: Any) -> np.ndarray:
        """Give the action its own shape."""
        return np.reshape(action, self._shape)


@dataclass(frozen=True)
class Layers:
    """Everything that is wrapped around an environment, in this order; see `choose_layers`.

    Attributes:
        wrappers: The user's: classes or functions from an environment to an environment.
        frame_skip: Steps of the wrapped environment per step.
        key: Of the entry that is observed; None if the observation is not a Dict.
        channels_first: Whether images are (C, H, W).
        actions: ``"combined"`` or ``"flat"``, None for actions as they are.
    """

    wrappers: tuple[Wrapper, ...] = ()
    frame_skip: int = 1
    key: str | None = None
    channels_first: bool = False
    actions: str | None = None

    def __bool__(self) -> bool:
        """Check whether there is anything to wrap."""
        return self != NO_LAYERS

    def apply(self, env: Env) -> Env:
        """Wrap an environment; see `apply_own`."""
        return self.adapt_spaces(self.apply_own(env))

    def adapt_spaces(self, env: Env) -> Env:
        """Wrap an environment that has the user's layers in those that adapt its spaces."""
        if self.key is not None:
            env = PickObservation(env, self.key)
        if self.channels_first:
            env = ChannelsLast(env)
        if self.actions is not None:
            env = CombinedActions(env) if self.actions == "combined" else FlatActions(env)
        return env

    def apply_own(self, env: Env) -> Env:
        """Wrap an environment in the user's wrappers and the frame skip.

        Raises:
            ValueError: If one of the wrappers returns no environment.
        """
        for wrapper in self.wrappers:
            with in_user_code(f"wrapper {reference(wrapper)}"):
                wrapped = wrapper(env)
            if not isinstance(wrapped, gym.Env):
                raise ValueError(
                    f"wrapper {reference(wrapper)} returned {wrapped!r}; expected a gymnasium.Env: "
                    "a wrapper is a class or a function that takes an environment and returns one"
                )
            env = wrapped
        return env if self.frame_skip == 1 else FrameSkip(env, self.frame_skip)

    def identity(self) -> dict[str, Any]:
        """Return what decides the data, as JSON values; empty if there is nothing to wrap."""
        content: dict[str, Any] = {}
        if self.wrappers:
            content["wrappers"] = [_describe(wrapper) for wrapper in self.wrappers]
        if self.frame_skip != 1:
            content["frame_skip"] = self.frame_skip
        if self.key is not None:
            content["observation_key"] = self.key
        if self.actions is not None:
            content["actions"] = self.actions
        return content


NO_LAYERS = Layers()


def own_layers(
    wrappers: Sequence[str | Wrapper] = (), frame_skip: int = 1, key: str | None = None
) -> Layers:
    """Resolve what the user asks for.

    Args:
        wrappers: ``module:Name``, or the classes or functions themselves; the innermost first.
        frame_skip: See `Layers`.
        key: See `Layers`.

    Raises:
        ConfigError: If a wrapper cannot be imported or called.
        ValueError: If `frame_skip` is below 1.
    """
    if frame_skip < 1:
        raise ValueError(f"frame_skip is {frame_skip}; expected at least 1")
    if isinstance(wrappers, str):
        wrappers = (wrappers,)
    found = []
    for wrapper in wrappers:
        resolved = load_reference(wrapper, "wrapper") if isinstance(wrapper, str) else wrapper
        if not callable(resolved):
            raise ConfigError(
                f"wrapper {wrapper!r} is {resolved!r}; expected a class or a function that takes "
                "an environment"
            )
        found.append(resolved)
    return Layers(tuple(found), frame_skip, key)


def choose_layers(env: Env, observation: str, own: Layers) -> Layers:
    """Add to the user's layers what adapts the environment's spaces.

    Args:
        env: An environment with the user's layers, see `Layers.apply_own`.
        observation: What is stored, see `frame_source`.
        own: From `own_layers`.

    Raises:
        ValueError: If the observations or the actions cannot be adapted.
    """
    renders = "rgb_array" in env.metadata.get("render_modes", [])
    space: Any = env.observation_space
    key = _choose_key(space, observation, own.key, renders)
    if key is not None:
        space = space[key]
    if observation in ("auto", "image"):
        _refuse_float_images(space)
    return replace(
        own,
        key=key,
        channels_first=observation != "render" and is_image(space) and _channels_first(space),
        actions=_adapt_actions(env.action_space),
    )


def is_image(space: gym.Space[Any]) -> bool:
    """Check whether observations are uint8 images (H, W), (H, W, C) or (C, H, W)."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    return len(shape) == 2 or (len(shape) == 3 and (shape[-1] in CHANNELS or shape[0] in CHANNELS))


def _channels_first(space: gym.Space[Any]) -> bool:
    shape = space.shape or ()
    return len(shape) == 3 and shape[-1] not in CHANNELS and shape[0] in CHANNELS


def _is_vector(space: gym.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def _choose_key(space: Any, observation: str, key: str | None, renders: bool) -> str | None:
    """Choose the entry of a Dict observation; None to leave the observation as it is."""
    if not isinstance(space, spaces.Dict):
        if key is not None:
            raise ValueError(
                f"observation_key is {key!r}, but the environment observes {space}, which has no "
                "keys; leave the option out"
            )
        return None
    entries: Mapping[str, Any] = space.spaces
    if key is not None:
        if key not in entries:
            raise ValueError(f"observation_key is {key!r}; expected one of {_listed(entries)}")
        return key
    usable: list[str] = []
    if observation in ("auto", "image"):
        usable = [name for name, entry in entries.items() if is_image(entry)]
    if not usable and (observation == "vector" or (observation == "auto" and not renders)):
        usable = [name for name, entry in entries.items() if _is_vector(entry)]
    if len(usable) > 1:
        raise ValueError(
            f"the environment observes a Dict with {_listed(entries)}, and {len(usable)} of them "
            f"can be learned from; choose one with --observation-key, as {usable[0]}"
        )
    return usable[0] if usable else None


def _listed(entries: Mapping[str, Any]) -> str:
    return ", ".join(f"{name!r} ({space})" for name, space in entries.items()) or "no keys"


def _refuse_float_images(space: gym.Space[Any]) -> None:
    if not isinstance(space, spaces.Box) or len(space.shape) != 3 or space.dtype.kind != "f":
        return
    raise ValueError(
        f"the environment observes float images, Box of shape {space.shape} and dtype "
        f"{space.dtype}; expected uint8: convert them with a wrapper of your own, --wrapper "
        "module:Name, such as gymnasium.wrappers.TransformObservation with (255 * image).astype("
        "numpy.uint8) for values in [0, 1]"
    )


def _adapt_actions(space: gym.Space[Any]) -> str | None:
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        count = _combinations(space)
        if count > MAX_COMBINATIONS:
            raise ValueError(
                f"action space {space} has {count} combinations; as one Discrete space it may have "
                f"{MAX_COMBINATIONS}: leave some out with a wrapper of your own, --wrapper "
                "module:Name"
            )
        return "combined"
    if isinstance(space, spaces.Box) and len(space.shape) != 1 and space.is_bounded():
        return "flat"
    return None


def _size(space: gym.Space[Any]) -> int:
    return int(np.prod(space.shape or (), dtype=int))


def _combinations(space: Any) -> int:
    sizes = space.nvec if isinstance(space, spaces.MultiDiscrete) else [2] * _size(space)
    count = 1
    for size in np.ravel(sizes).tolist():
        count *= size
    return count


def _describe(wrapper: Any) -> dict[str, Any]:
    """Name and source of a wrapper, with the arguments of a `functools.partial`."""
    if isinstance(wrapper, partial):
        args = [_describe(value) if callable(value) else value for value in wrapper.args]
        items = wrapper.keywords.items()
        kwargs = {name: _describe(value) if callable(value) else value for name, value in items}
        return _describe(wrapper.func) | {"args": args, "kwargs": kwargs}
    return {"name": reference(wrapper), "source": source_digest(wrapper)}


class StackedFrames(gym.Wrapper[np.ndarray, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Observations become what the encoder takes: the newest S frames, oldest first.

    uint8 (H, W, S*C) for images, float32 (S*d,) for vectors. At reset the first frame is repeated.

    Args:
        env: an environment that does not stack frames itself.
        source: takes the newest frame.
        stack: how many frames are stacked.
    """

    def __init__(self, env: gym.Env[Any, Any], source: FrameSource, stack: FrameStack) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, source=source, stack=stack)
        super().__init__(env)
        self._source, self._stack = source, stack
        self._frames: deque[np.ndarray] = deque(maxlen=stack.size)
        low, high = (-np.inf, np.inf) if source.kind == "vector" else (0, 255)
        self.observation_space = spaces.Box(
            low, high, stack.shape(source.shape), dtype=source.dtype.type
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([self._frame(observation)] * self._stack.size)
        return self._stack.join(self._frames), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(self._frame(observation))
        return self._stack.join(self._frames), float(reward), terminated, truncated, info

    def _frame(self, observation: Any) -> np.ndarray:
        batch = np.asarray(observation)[None]
        return np.asarray(self._source(lambda: [self.env.render()], batch, np.zeros(1, int))[0])
