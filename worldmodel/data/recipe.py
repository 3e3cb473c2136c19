"""Recipes: everything that decides the bytes of collected data, and its identity."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from worldmodel.data.adapters import EnvAdapter, adapt
from worldmodel.data.env_ids import find_spec
from worldmodel.data.env_wrappers import Wrapper
from worldmodel.data.policies import Policy, resolve_policy, source_digest
from worldmodel.files import require_space
from worldmodel.hyperparameters import Data
from worldmodel.plugins import plugin_class

MADE_WITH = "made_with"
STATE_KEY = "state"


@dataclass(frozen=True)
class Recipe:
    """How to collect, resolved: the same recipe and seed give the same episode.

    Attributes:
        env: the environment and the frames that are stored of it.
        policy: chooses the actions.
        steps: longest episode.
        state_key: key of the environment's ``info`` with its true state.
        state_dim: length of that state, 0 for none.
    """

    env: EnvAdapter
    policy: Policy
    steps: int
    state_key: str
    state_dim: int

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the data, as JSON values; equal for equal data.

        Raises:
            ValueError: If the arguments of the environment or the policy are not JSON values.
        """
        spec = self.env.spec
        content = {
            "env": _describe(spec),
            "env_kwargs": self.env.kwargs,
            "observation": self.env.source.kind,
            "frame_shape": self.env.source.shape,
            "policy": self.policy.identity(),
            "state_key": self.state_key,
            "steps": self.steps,
            "versions": {name: _version(name) for name in sorted({"gymnasium", _package(spec)})},
            **self.env.layers.identity(),
        }
        if self.env.source.letterbox:
            content["oblong_images"] = "letterbox"  # data from before they had bars lack it
        try:
            plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"env_kwargs {self.env.kwargs}, the arguments of a wrapper or the identity of the "
                f"policy, {content['policy']}, cannot be written as JSON ({error}); pass numbers, "
                "strings, lists and dicts"
            ) from error
        return plain

    def metadata(self) -> dict[str, Any]:
        """Return what a buffer stores: the identity, and under `MADE_WITH` further versions."""
        noted = {name: _version(name) for name in ("numpy", "numba", "pillow", "pygame")}
        return self.identity() | {MADE_WITH: {"python": platform.python_version(), **noted}}

    def require_images(self, env_id: str, observation: str) -> None:
        """Raise ValueError if frames are images by `observation`, but the environment has none."""
        if observation == "pixels" and len(self.env.source.shape) != 3:
            raise ValueError(
                f"{env_id} has no images, only vectors; learn from its vectors with "
                "--observation vector"
            )

    def require_space(self, path: Path, episodes: int, hint: str) -> None:
        """Raise OSError if the disk of a path has too little space for this many episodes."""
        source = self.env.source
        frame = int(np.prod(source.shape)) * source.dtype.itemsize
        needed = episodes * (self.steps + 1) * frame
        require_space(path, needed, f"{episodes} episodes", hint)

    def make(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Make N environments to collect in."""
        return self.env.make_batch(num_envs)


def resolve(
    env_id: str,
    env_kwargs: Mapping[str, Any] | None,
    *,
    policy: str | Path | Policy | None,
    steps: int,
    image_size: int,
    observation: str,
    state_key: str = STATE_KEY,
    wrappers: Sequence[str | Wrapper] = (),
    observation_key: str | None = None,
    frame_skip: int = 1,
) -> Recipe:
    """Make an environment once and decide how to collect from it; see `collect` for arguments.

    Raises:
        ValueError: If the arguments do not fit the environment or each other.
        gymnasium.error.Error: If there is no such environment.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; an episode has at least 1")
    actor = resolve_policy(default_policy(env_id) if policy is None else policy)
    env = adapt(
        env_id,
        env_kwargs,
        image_size=image_size,
        observation=observation,
        own_stack=actor.uses_observations,
        wrappers=wrappers,
        observation_key=observation_key,
        frame_skip=frame_skip,
    )
    frame_input = actor.frame_input
    if frame_input is not None and frame_input[0] != env.source.shape:
        raise ValueError(
            f"the policy takes frames of shape {frame_input[0]}, but frames of {env.spec.id} would "
            f"be stored in shape {env.source.shape}; use the same image_size and observation"
        )
    return Recipe(env, actor, steps, state_key, _state_dim(env, state_key))


def default_policy(env_id: str) -> str:
    """Name the policy that collects data of an environment by default.

    Args:
        env_id: see `find_spec`.

    Returns:
        What its plug-in says, else ``"random"``.
    """
    find_spec(env_id)  # imports the module of module:id, which may register a plug-in
    defaults: dict[str, Any] = plugin_class(env_id).config_defaults.get("data", {})
    return str(defaults.get("policy", Data().policy))


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Compare the metadata of two buffers; one line per difference, none for the same data."""
    lines = []
    for key in sorted({*found, *wanted} - {MADE_WITH}):
        ours, theirs = wanted.get(key), found.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            lines += [f"{key}.{line}" for line in differences(theirs, ours)]
        elif ours != theirs:
            lines.append(f"{key} is {theirs!r}, wanted {ours!r}")
    return lines


def _describe(spec: EnvSpec) -> dict[str, Any]:
    content = {
        "id": spec.id,
        "entry_point": _entry_point(spec),
        "max_episode_steps": spec.max_episode_steps,
        "kwargs": spec.kwargs,
        "wrappers": [wrapper.name for wrapper in spec.additional_wrappers],
    }
    if ":" in spec.id:  # not registered: the id has no version to change with the code
        content["source"] = source_digest(spec.entry_point)
    return content


def _entry_point(spec: EnvSpec) -> str:
    """Return ``module:name`` of the environment's class or factory."""
    entry: Any = spec.entry_point
    if not callable(entry):
        return str(entry)
    named = entry if hasattr(entry, "__qualname__") else type(entry)
    return f"{named.__module__}:{named.__qualname__}"


def _package(spec: EnvSpec) -> str:
    return _entry_point(spec).split(":")[0].split(".")[0]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _state_dim(env: EnvAdapter, key: str) -> int:
    """Return the length of the state; for the default key, 0 for anything but numbers.

    Raises:
        ValueError: If any other key is missing or holds no numbers.
    """
    state = np.asarray(env.info.get(key, ()))
    if state.ndim <= 1 and state.size and state.dtype.kind in "fiu":
        return state.size
    if key == STATE_KEY:
        return 0
    keys = ", ".join(map(repr, sorted(env.info))) or "none"
    raise ValueError(
        f"state_key is {key!r}, but {env.spec.id} reports no numbers under that key of info at "
        f"reset; expected a key with a number or a vector of numbers, and there are {keys}"
    )
