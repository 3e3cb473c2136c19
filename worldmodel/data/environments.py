"""Make the environments that data is collected from."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

NATIVE_BATCH = 32


def find_spec(env_id: str) -> EnvSpec:
    """The spec of a registered environment, importing the module of ``module:id`` first."""
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    return gym.spec(name)


def make_single(spec: EnvSpec, kwargs: Mapping[str, Any]) -> gym.Env:
    """One environment, without the checks that each step would repeat.

    Raises:
        ValueError: the environment does not take the arguments.
    """
    _draw_without_display()
    try:
        return gym.make(spec, disable_env_checker=True, **kwargs)
    except TypeError as error:
        names = ", ".join(_named(spec.entry_point)) if spec.entry_point else "none"
        raise ValueError(
            f"{spec.id} cannot be made with {dict(kwargs)} ({str(error).split(' was raised')[0]}); "
            f"its arguments are {names}"
        ) from error


def _draw_without_display() -> None:
    """Keep SDL from looking for a display that is not there, and from complaining about it."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def make_batch(
    spec: EnvSpec, kwargs: Mapping[str, Any], *, native: bool, num_envs: int
) -> VectorEnv:
    """A batch of environments that reset only when told to.

    Args:
        spec: the registered environment.
        kwargs: passed to its constructor.
        native: use its own vector environment.
        num_envs: how many.
    """
    if native:
        return gym.make_vec(
            spec,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            autoreset_mode=AutoresetMode.DISABLED,
            **kwargs,
        )
    makers = [lambda: make_single(spec, kwargs)] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)


def is_native(spec: EnvSpec) -> bool:
    """Whether an environment has a vector form that can leave resetting to the caller.

    Such a form takes ``autoreset_mode``. With next-step autoreset, the only mode of most others,
    the step after an episode's end returns the next episode's first observation.
    """
    if spec.vector_entry_point is None or spec.additional_wrappers:
        return False
    return "autoreset_mode" in _parameters(spec.vector_entry_point)


def accepts(spec: EnvSpec, name: str) -> bool:
    """Whether the environment's constructor has a parameter of that name."""
    return spec.entry_point is not None and name in _parameters(spec.entry_point)


def _named(entry_point: Any) -> list[str]:
    """Parameters that are given by name one by one."""
    gathering = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [n for n, p in _parameters(entry_point).items() if p.kind not in gathering]


def _parameters(entry_point: Any) -> Mapping[str, inspect.Parameter]:
    creator = entry_point if callable(entry_point) else load_env_creator(entry_point)
    return inspect.signature(creator).parameters
