"""Saved agents of Stable-Baselines3, read without unpickling.

The ``.zip`` file of an agent holds tensors, JSON values and pickled Python objects, and unpickling
can run any code. To act, an agent needs none of the objects that the algorithms pickle themselves:
the spaces come from the environment, and schedules and buffers only matter for training. They are
replaced. What cannot be replaced, such as a network class of the user, is refused unless the user
trusts the file (``--trust``, see `worldmodel.trust`).
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from worldmodel.files import require_intact
from worldmodel.trust import trusts_all

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

ALGORITHMS = ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3")

_REPLACEABLE = (
    *("learning_rate", "clip_range", "clip_range_vf", "train_freq", "action_noise"),
    *("rollout_buffer_class", "replay_buffer_class"),
)
"""Arguments whose pickled values are replaced by the default of the algorithm."""

_STATE = (
    *("num_timesteps", "_total_timesteps", "_num_timesteps_at_start", "_n_updates", "_n_calls"),
    *("_episode_num", "_current_progress_remaining", "_stats_window_size", "exploration_rate"),
    *("n_envs", "start_time", "use_sde", "observation_space", "action_space", "policy_class"),
)
"""Attributes that are kept beside the arguments of the algorithm."""

_RECREATED = (
    *("lr_schedule", "exploration_schedule", "replay_buffer", "ep_info_buffer", "env"),
    *("ep_success_buffer", "_last_obs", "_last_original_obs", "_last_episode_starts"),
    *("_vec_normalize_env", "tensorboard_log"),
)
"""What the algorithm makes again, whether it is pickled or not."""


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read the settings of an agent as JSON values; pickled ones are not unpickled.

    Raises:
        ValueError: If the file is not one that Stable-Baselines3 saved.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            require_intact(archive)
            content = json.loads(archive.read("data"))
    except (KeyError, RecursionError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged, or not an agent of Stable-Baselines3 ({error}); expected the .zip "
            "file that model.save wrote"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not an agent of Stable-Baselines3: it has no settings")
    return content


def load_agent_file(
    path: str | Path,
    algo: str,
    actions: gym.Space[Any],
    observations: gym.Space[Any],
    settings: Mapping[str, Any] | None = None,
) -> BaseAlgorithm:
    """Load an agent onto the CPU; nothing in its file is executed unless the user trusts it.

    Args:
        path: the ``.zip`` file.
        algo: one of `ALGORITHMS`.
        actions: action space of the environment that it acts in.
        observations: observation space of that environment, of images with the channels last.
        settings: values of the algorithm's settings to train on with, as in its constructor.

    Raises:
        ValueError: If the file is damaged, the agent was trained in other spaces, or it can only be
            unpickled and the user does not trust it.
    """
    import stable_baselines3

    algorithm: Any = getattr(stable_baselines3, algo)
    content = read_settings(path)
    replaced = _replacements(algorithm, content, actions, observations, settings)
    pickled = [key for key, value in content.items() if _is_pickled(value)]
    unknown = [key for key in pickled if key not in {*_RECREATED, *replaced}]
    if unknown and not trusts_all():
        raise ValueError(
            f"{path} holds pickled Python objects ({', '.join(unknown)}), and reading them can "
            "run any code; if you trust the file, add --trust (in Python: the environment "
            "variable WORLDMODEL_TRUST=1)"
        )
    kept = {*inspect.signature(algorithm).parameters, *_STATE, *unknown} - {*_RECREATED}
    try:
        file = _with_settings(path, {key: v for key, v in content.items() if key in kept})
        agent: BaseAlgorithm = algorithm.load(file, device="cpu", custom_objects=replaced)
    except Exception as error:  # Stable-Baselines3 raises many types for damaged files
        raise ValueError(
            f"{path} is damaged, or not an agent of {algo} for these spaces ({error})"
        ) from error
    return agent


def _replacements(
    algorithm: Any,
    content: Mapping[str, Any],
    actions: gym.Space[Any],
    observations: gym.Space[Any],
    settings: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what takes the place of settings in an agent's file; see `load_agent_file`.

    Raises:
        ValueError: If the agent was trained in other spaces.
    """
    _require_space("actions", content.get("action_space"), actions)
    seen = _as_stored(content.get("observation_space"), observations)
    _require_space("observations", content.get("observation_space"), seen)
    arguments = inspect.signature(algorithm).parameters
    pickled = [k for k in _REPLACEABLE if k in arguments and _is_pickled(content.get(k))]
    replaced = {key: arguments[key].default for key in pickled}
    replaced |= {"action_space": actions, "observation_space": seen}
    policy = {
        "policy_class": _policy_class(algorithm, content.get("policy_class")),
        "policy_kwargs": _policy_kwargs(content.get("policy_kwargs")),
    }
    replaced |= {key: value for key, value in policy.items() if value is not None}
    if settings is None:  # acting needs no memory for training
        small = {"buffer_size": 1, "n_steps": 2}
        return replaced | {key: size for key, size in small.items() if key in content}
    return replaced | dict(settings)


def _with_settings(path: str | Path, settings: Mapping[str, Any]) -> io.BytesIO:
    """Copy an agent's file with other settings; the rest would become attributes of the agent."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as written:
        for name in archive.namelist():
            part = json.dumps(settings) if name == "data" else archive.read(name)
            written.writestr(name, part)
    copy.seek(0)
    return copy


def algorithm_of(path: str | Path) -> str | None:
    """Return the algorithm that an agent's file names, one of `ALGORITHMS`; None without one."""
    content = read_settings(path)
    policy = content.get("policy_class")
    module = str(policy.get("__module__", "")) if isinstance(policy, dict) else ""
    if module.endswith("common.policies"):
        return "PPO" if "clip_range" in content else "A2C"
    for algorithm in ("DQN", "SAC", "TD3"):
        if module.endswith(f"{algorithm.lower()}.policies"):
            return algorithm
    return None


def _is_pickled(value: Any) -> bool:
    return isinstance(value, dict) and ":serialized:" in value


def _policy_class(algorithm: Any, stored: Any) -> type | None:
    """Return the algorithm's own policy class that a file names; None for any other."""
    text = stored.get("__init__", "") if isinstance(stored, dict) else ""
    found = re.match(r"<function (\w+)\.__init__ ", str(text))
    classes: dict[str, type] = {kind.__name__: kind for kind in algorithm.policy_aliases.values()}
    return classes.get(found[1]) if found else None


def _policy_kwargs(stored: Any) -> dict[str, Any] | None:
    """Read pickled arguments of a policy from their description; None if that is not enough."""
    if not _is_pickled(stored):
        return stored if isinstance(stored, dict) else None
    described = {key: text for key, text in stored.items() if not key.startswith(":")}
    try:
        return {key: _described_value(str(text)) for key, text in described.items()} or None
    except (SyntaxError, ValueError):
        return None


def _described_value(text: str) -> Any:
    """Read a literal, or a class of `torch.nn` or `torch.optim`, from its description."""
    import torch

    if (found := re.fullmatch(r"<class 'torch\.(nn|optim)\.[\w.]*?(\w+)'>", text)) is None:
        return ast.literal_eval(text)
    kind = getattr(getattr(torch, found[1]), found[2], None)
    if not isinstance(kind, type):
        raise ValueError(f"{text} is no public class of torch")
    return kind


def _as_stored(stored: Any, space: gym.Space[Any]) -> gym.Space[Any]:
    """Move the channels of an image space first if Stable-Baselines3 did so before training."""
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 3 or space.dtype != np.uint8:
        return space
    first = (space.shape[2], *space.shape[:2])
    if _shape(stored) != first or first == space.shape:
        return space
    low, high = (np.moveaxis(bound, -1, 0) for bound in (space.low, space.high))
    return gym.spaces.Box(low, high, dtype=np.uint8)


def _shape(stored: Any) -> tuple[int, ...] | None:
    text = str(stored.get("_shape")) if isinstance(stored, dict) else "None"
    return None if text == "None" else tuple(int(n) for n in re.findall(r"\d+", text))


def _dtype(dtype: Any) -> str:
    """Name a dtype; floats of all sizes are the same, as models act in float32."""
    return re.sub(r"^float\d+$", "float", str(dtype))


def _require_space(what: str, stored: Any, space: gym.Space[Any]) -> None:
    """Raise ValueError if an agent was trained with other actions or observations."""
    described = stored if isinstance(stored, dict) else {}
    if isinstance(space, gym.spaces.Discrete):
        same = (str(described.get("n")), str(described.get("start", 0))) == (
            str(space.n),
            str(space.start),
        )
    else:
        dtypes = _dtype(described.get("dtype")), _dtype(space.dtype)
        same = _shape(stored) == space.shape and dtypes[0] == dtypes[1]
    if not same:
        kind = f"{described.get('dtype')} of shape {_shape(stored)}"
        if "n" in described:
            kind = f"Discrete({described['n']}, start={described.get('start', 0)})"
        box = isinstance(space, gym.spaces.Box)
        given = f"{space.dtype} of shape {space.shape}" if box else str(space)
        raise ValueError(
            f"the agent was trained with {what} {kind}, and the environment has {given}; use an "
            "environment like the one it was trained in"
        )
