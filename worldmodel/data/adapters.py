"""Adapters from Gymnasium environments to the frames that are stored and encoded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from worldmodel.data import frames
from worldmodel.data.env_ids import find_spec
from worldmodel.data.env_wrappers import (
    NO_LAYERS,
    Layers,
    StackedFrames,
    Wrapper,
    choose_layers,
    own_layers,
)
from worldmodel.data.frames import FrameSource, FrameStack, frame_source, is_oblong
from worldmodel.user_code import in_user_code, named_errors

if TYPE_CHECKING:
    from worldmodel.config import Config


def make_single(
    spec: EnvSpec | str, kwargs: Mapping[str, Any], layers: Layers = NO_LAYERS
) -> gym.Env[Any, Any]:
    """Make one environment, without the checks that each step would repeat.

    Args:
        spec: from `find_spec`, or an id that it takes.
        kwargs: passed to the constructor.
        layers: what is wrapped around it.

    Raises:
        ValueError: If the environment does not take the arguments.
    """
    spec = find_spec(spec) if isinstance(spec, str) else spec
    return layers.adapt_spaces(_make_own(spec, kwargs, layers))


def _make_own(spec: EnvSpec, kwargs: Mapping[str, Any], layers: Layers) -> gym.Env[Any, Any]:
    env = layers.apply_own(_make_bare(spec, kwargs))
    return named_errors(env, spec.id, wrapped=bool(layers.wrappers))


def _make_bare(spec: EnvSpec, kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    frames.allow_no_display()
    try:
        with in_user_code(f"the constructor of {spec.id}"):
            return gym.make(spec, disable_env_checker=True, **kwargs)
    except TypeError as error:
        text = str(error).split(" was raised from the environment creator")[0]
        names = _named(spec.entry_point)
        if "expected one of" not in text and names:
            text += f"; expected one of {', '.join(map(repr, names))}"
        given = f" with {dict(kwargs)}" if kwargs else ""
        raise ValueError(f"cannot make {spec.id}{given}: {text}") from error


def make_batch(
    spec: EnvSpec | str,
    kwargs: Mapping[str, Any],
    *,
    native: bool,
    num_envs: int,
    layers: Layers = NO_LAYERS,
) -> VectorEnv[Any, Any, Any]:
    """Make a vector environment with autoreset disabled.

    Args:
        spec: from `find_spec`, or an id that it takes.
        kwargs: passed to the constructor.
        native: whether to use the environment's own vector form, see `is_native`. It takes no
            layers.
        num_envs: number N of environments.
        layers: what is wrapped around each of them.
    """
    spec = find_spec(spec) if isinstance(spec, str) else spec
    if native:
        return gym.make_vec(
            spec,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            autoreset_mode=AutoresetMode.DISABLED,
            **kwargs,
        )
    makers = [lambda: make_single(spec, kwargs, layers)] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)


def is_native(spec: EnvSpec, kwargs: Mapping[str, Any] | None = None) -> bool:
    """Check whether an environment has its own vector form that can take the place of single ones.

    Its autoreset can be disabled, and its observations are those of single environments. Most
    others only offer next-step autoreset, where the step after the end of an episode returns the
    first observation of the next one; that of Atari preprocesses its frames.
    """
    if spec.vector_entry_point is None or spec.additional_wrappers:
        return False
    if "autoreset_mode" not in _parameters(spec.vector_entry_point):
        return False
    try:
        envs = make_batch(spec, kwargs or {}, native=True, num_envs=1)
    except (ValueError, AssertionError, NotImplementedError):
        return False
    with closing(envs), closing(make_single(spec, kwargs or {})) as env:
        return bool(envs.single_observation_space == env.observation_space)


def accepts(spec: EnvSpec, name: str) -> bool:
    """Check whether the environment's constructor has a parameter of that name."""
    return spec.entry_point is not None and name in _parameters(spec.entry_point)


def _named(entry_point: Any) -> list[str]:
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [name for name, p in _parameters(entry_point).items() if p.kind not in variadic]


def _parameters(entry_point: Any) -> Mapping[str, inspect.Parameter]:
    creator = entry_point if callable(entry_point) else load_env_creator(entry_point)
    return inspect.signature(creator).parameters


@dataclass(frozen=True)
class EnvAdapter:
    """An environment, and the frame that is taken of it at each step; see `adapt`.

    Attributes:
        spec: of the environment.
        kwargs: passed to its constructor.
        source: takes the frames.
        action_space: of the environment.
        info: what its ``reset`` reports beside the observation.
        layers: what is wrapped around the environment.
    """

    spec: EnvSpec
    kwargs: dict[str, Any]
    source: FrameSource
    action_space: gym.Space[Any]
    info: dict[str, Any]
    layers: Layers = NO_LAYERS

    @cached_property
    def native(self) -> bool:
        """Whether batches use the environment's own vector form."""
        plain = self.source.kind != "render" and not self.layers
        return plain and is_native(self.spec, self.kwargs)

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Make one environment."""
        return make_single(self.spec, self._kwargs(render_mode), self.layers)

    def make_batch(
        self, num_envs: int, render_mode: str | None = None, **changes: Any
    ) -> VectorEnv[Any, Any, Any]:
        """Make N environments, with some arguments changed."""
        kwargs = self._kwargs(render_mode) | changes
        return make_batch(
            self.spec, kwargs, native=self.native, num_envs=num_envs, layers=self.layers
        )

    def _kwargs(self, render_mode: str | None) -> dict[str, Any]:
        mode = "rgb_array" if self.source.kind == "render" else render_mode
        return self.kwargs if mode is None else self.kwargs | {"render_mode": mode}


def adapt(
    env_id: str,
    env_kwargs: Mapping[str, Any] | None,
    *,
    image_size: int,
    observation: str,
    own_stack: bool = False,
    wrappers: Sequence[str | Wrapper] = (),
    observation_key: str | None = None,
    frame_skip: int = 1,
) -> EnvAdapter:
    """Make an environment once, and decide which frames to take of it.

    Args:
        env_id: see `find_spec`.
        env_kwargs: passed to its constructor.
        image_size: side of the frames in pixels; passed to the constructor if it has such a
            parameter.
        observation: ``"image"``, ``"render"``, ``"vector"`` or ``"auto"``, see `frame_source`.
        own_stack: keep the environment's ``frame_stack``, which its observations show; else 1.
        wrappers: the user's, the innermost first; see `worldmodel.data.env_wrappers`.
        observation_key: of the entry of a Dict observation; None chooses the only usable one.
        frame_skip: how often each action is repeated.

    Raises:
        ValueError: If the arguments do not fit the environment or each other.
        gymnasium.error.Error: If there is no such environment.
    """
    spec, kwargs = find_spec(env_id), dict(env_kwargs or {})
    if "render_mode" in kwargs:
        raise ValueError("env_kwargs must not hold render_mode; choose with observation='render'")
    if accepts(spec, "image_size") and kwargs.setdefault("image_size", image_size) != image_size:
        raise ValueError(
            f"env_kwargs hold image_size={kwargs['image_size']}, but frames of "
            f"image_size={image_size} are stored; pass the same number, or image_size alone"
        )
    unstacked = kwargs | {"frame_stack": 1} if accepts(spec, "frame_stack") else kwargs
    own = own_layers(wrappers, frame_skip, observation_key)
    env = _make_own(spec, unstacked, own)
    try:
        layers = choose_layers(env, observation, own)
        env = layers.adapt_spaces(env)
        source = frame_source(observation, env, env.observation_space, image_size)
        adapter = EnvAdapter(
            spec=spec,
            kwargs=unstacked,
            source=source,
            action_space=env.action_space,
            info=env.reset(seed=0)[1],
            layers=layers,
        )
    finally:
        env.close()
    if source.kind == "render" and observation_key is not None:
        raise ValueError(
            f"the entry {observation_key!r} of the observations is {env.observation_space}, no "
            "image; learn from it with --observation vector, or from renderings without "
            "--observation-key"
        )
    if source.kind == "render":
        adapter = replace(adapter, source=replace(source, letterbox=_renders_oblong(adapter)))
    return replace(adapter, kwargs=kwargs) if own_stack else adapter


def env_layers(
    spec: EnvSpec, kwargs: Mapping[str, Any], observation: str, own: Layers = NO_LAYERS
) -> Layers:
    """Make an environment once, and choose what is wrapped around it; see `choose_layers`."""
    env = own.apply_own(_make_bare(spec, kwargs))
    try:
        return choose_layers(env, observation, own)
    finally:
        env.close()


def _renders_oblong(adapter: EnvAdapter) -> bool:
    """Check whether the renderings of an environment are not square."""
    env = adapter.make()
    try:
        env.reset(seed=0)
        image: Any = env.render()
        return is_oblong(np.shape(image))
    finally:
        env.close()


def require_env(config: Config) -> str:
    """Return the environment's id.

    Raises:
        ValueError: If the configuration has own data without an environment.
    """
    if config.env.id is None:
        raise ValueError(
            "this needs the environment, and the run was trained on data without one: name the "
            "environment that the data came from with --set env.id=ID, or train with --env ID"
        )
    return config.env.id


def stored_observation(config: Config) -> str:
    """Return what is stored of the environment of a configuration, see `frame_source`."""
    return "vector" if config.observation == "vector" else "auto"


def make_env(
    config: Config, render_mode: str | None = None, **env_kwargs: Any
) -> gym.Env[np.ndarray, Any]:
    """Make the environment of a configuration, with observations for the encoder.

    Args:
        config: of a run.
        render_mode: as in `gymnasium.make`; ``"rgb_array"`` if the frames are renderings.
        env_kwargs: override ``config.env.kwargs``, as in ``start="uniform"``. The arguments that
            are only for collecting data, ``config.data.env_kwargs``, are left out.

    Raises:
        ValueError: If the environment does not take the arguments.
    """
    return _stacked(adapt_config(config, env_kwargs), config, render_mode)


def make_vec_env(
    config: Config, num_envs: int, render_mode: str | None = None, **env_kwargs: Any
) -> VectorEnv[Any, Any, Any]:
    """Make N environments like `make_env`, with autoreset disabled.

    Args:
        config: of a run.
        num_envs: number N of environments.
        render_mode: see `make_env`.
        env_kwargs: see `make_env`.

    Raises:
        ValueError: If the environment does not take the arguments.
    """
    adapter = adapt_config(config, env_kwargs)
    if adapter.native and accepts(adapter.spec, "frame_stack"):
        return adapter.make_batch(num_envs, render_mode, frame_stack=config.frame_stack)
    makers = [lambda: _stacked(adapter, config, render_mode)] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)


def env_options(config: Config) -> dict[str, Any]:
    """Return arguments of `adapt` for the environment of a configuration, but for its own."""
    env = config.env
    return {
        "image_size": config.image_size,
        "observation": stored_observation(config),
        "wrappers": env.wrappers,
        "observation_key": env.observation_key,
        "frame_skip": env.frame_skip,
    }


def adapt_config(config: Config, env_kwargs: Mapping[str, Any] | None = None) -> EnvAdapter:
    """Adapt the environment of a configuration; see `adapt`."""
    kwargs = {**config.env.kwargs, **(env_kwargs or {})}
    return adapt(require_env(config), kwargs, **env_options(config))


def _stacked(adapter: EnvAdapter, config: Config, render_mode: str | None) -> StackedFrames:
    return StackedFrames(adapter.make(render_mode), adapter.source, FrameStack(config.frame_stack))
