"""A recipe: everything that decides which bytes a collection writes, and its identity."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from worldmodel.data.agent import Agent
from worldmodel.data.environments import accepts, find_spec, is_native, make_batch, make_single
from worldmodel.data.observe import FrameSource, frame_source
from worldmodel.data.policies import Mixed, Passive, Policy, Random

POLICIES = {"passive": Passive, "random": Random, "mixed": Mixed}
MADE_WITH = "made_with"
STATE_KEY = "state"


@dataclass(frozen=True)
class Recipe:
    """What to collect, resolved: the same recipe and seed give the same episode.

    Attributes:
        spec: the registered environment.
        env_kwargs: what its constructor is passed.
        source: what is stored of an observation.
        policy: who acts.
        steps: longest episode.
        action_space: of the environment.
        state_key: of the environment's ``info``, where it tells its true state.
        state_dim: length of that state, 0 without.
    """

    spec: EnvSpec
    env_kwargs: dict[str, Any]
    source: FrameSource
    policy: Policy
    steps: int
    action_space: gym.Space
    state_key: str
    state_dim: int

    def identity(self) -> dict[str, Any]:
        """Everything that decides the data, as JSON values; equal for equal data.

        Raises:
            ValueError: if the environment's arguments are not JSON values.
        """
        content = {
            "env": _describe(self.spec),
            "env_kwargs": self.env_kwargs,
            "observation": self.source.kind,
            "frame_shape": self.source.shape,
            "policy": self.policy.identity(),
            "state_key": self.state_key,
            "steps": self.steps,
            "versions": {
                name: _version(name) for name in sorted({"gymnasium", _package(self.spec)})
            },
        }
        try:
            return json.loads(json.dumps(content, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"env_kwargs {self.env_kwargs} cannot be written down as JSON ({error}), so the "
                "data could not be told from other data; pass numbers, strings, lists and dicts"
            ) from error

    def metadata(self) -> dict[str, Any]:
        """What a buffer keeps: the identity, and under `MADE_WITH` versions noted beside it."""
        noted = {name: _version(name) for name in ("numpy", "numba", "pillow", "pygame")}
        return self.identity() | {MADE_WITH: {"python": platform.python_version(), **noted}}

    @property
    def native(self) -> bool:
        """Whether the environment's own batched form is used."""
        return self.source.kind != "render" and is_native(self.spec)

    def make(self, num_envs: int) -> gym.vector.VectorEnv:
        """The environments to play in."""
        kwargs = dict(self.env_kwargs)
        if self.source.kind == "render":
            kwargs["render_mode"] = "rgb_array"
        return make_batch(self.spec, kwargs, native=self.native, num_envs=num_envs)


def resolve(
    env_id: str,
    env_kwargs: Mapping[str, Any] | None,
    *,
    policy: str | Path | Policy,
    steps: int,
    image_size: int,
    observation: str,
    state_key: str = STATE_KEY,
) -> Recipe:
    """Look at an environment and decide how to collect from it; see `collect` for arguments.

    Raises:
        ValueError: if the arguments do not fit the environment or each other.
        gymnasium.error.Error: if there is no such environment.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; an episode has at least 1")
    spec, who = find_spec(env_id), as_policy(policy)
    kwargs = dict(env_kwargs or {})
    if "render_mode" in kwargs:
        raise ValueError("env_kwargs must not hold render_mode; choose with observation='render'")
    if accepts(spec, "image_size") and kwargs.setdefault("image_size", image_size) != image_size:
        raise ValueError(
            f"env_kwargs say image_size={kwargs['image_size']} and image_size={image_size} is "
            "stored; pass the same number, or image_size alone"
        )
    stacks = accepts(spec, "frame_stack")
    unstacked = kwargs | {"frame_stack": 1} if stacks else kwargs
    env = make_single(spec, unstacked)
    try:
        source = frame_source(observation, env, env.observation_space, image_size)
        if who.sees is not None and who.sees[0] != source.shape:
            raise ValueError(
                f"the policy looks at frames of shape {who.sees[0]}, and {spec.id} would be stored "
                f"in frames of {source.shape}; use the same image_size and observation"
            )
        info = env.reset(seed=0)[1]
        return Recipe(
            spec=spec,
            env_kwargs=kwargs if who.observes else unstacked,
            source=source,
            policy=who,
            steps=steps,
            action_space=env.action_space,
            state_key=state_key,
            state_dim=_state_dim(spec.id, info, state_key),
        )
    finally:
        env.close()


def as_policy(policy: str | Path | Policy) -> Policy:
    """A policy from its name or from a saved agent's path.

    Raises:
        ValueError: if it is neither.
    """
    if not isinstance(policy, str | Path):
        return policy
    if policy in POLICIES:
        return POLICIES[str(policy)]()
    if not Path(policy).is_file():
        raise ValueError(
            f"policy is {str(policy)!r}; expected {', '.join(map(repr, POLICIES))}, "
            "the path of an agent saved by Stable-Baselines3, or a run directory"
        )
    return Agent(policy)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What tells two buffers' metadata apart, one line each; empty for the same data."""
    lines = []
    for key in sorted({*found, *wanted} - {MADE_WITH}):
        ours, theirs = wanted.get(key), found.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            lines += [f"{key}.{line}" for line in differences(theirs, ours)]
        elif ours != theirs:
            lines.append(f"{key} is {theirs!r}, wanted {ours!r}")
    return lines


def _describe(spec: EnvSpec) -> dict[str, Any]:
    return {
        "id": spec.id,
        "entry_point": _entry_point(spec),
        "max_episode_steps": spec.max_episode_steps,
        "kwargs": spec.kwargs,
        "wrappers": [wrapper.name for wrapper in spec.additional_wrappers],
    }


def _entry_point(spec: EnvSpec) -> str:
    """``module:name`` of the environment's class or maker."""
    entry: Any = spec.entry_point
    return f"{entry.__module__}:{entry.__qualname__}" if callable(entry) else str(entry)


def _package(spec: EnvSpec) -> str:
    return _entry_point(spec).split(":")[0].split(".")[0]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _state_dim(env_id: str, info: Mapping[str, Any], key: str) -> int:
    """Length of the state; of the default key, anything but numbers counts as no state.

    Raises:
        ValueError: a key that the user named is not there or holds no numbers.
    """
    state = np.asarray(info.get(key, ()))
    if state.ndim <= 1 and state.size and state.dtype.kind in "fiu":
        return state.size
    if key == STATE_KEY:
        return 0
    told = ", ".join(map(repr, sorted(info))) or "nothing"
    raise ValueError(
        f"{env_id} tells no numbers under info[{key!r}] when it is reset; it tells {told}: name a "
        "key that holds a number or a vector of numbers"
    )
