"""Specs of environments by their ids, registered or ``module:Name``."""

from __future__ import annotations

import importlib
import re
import shlex

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from worldmodel.errors import ConfigError
from worldmodel.registry import import_named, load_reference
from worldmodel.user_code import in_user_code

PACKAGES = {
    "ALE/": "ale-py",
    "MiniGrid-": "minigrid",
    "gym_pusht/": "gym-pusht",
    "dm_control/": "shimmy[dm-control] mujoco<4",
}
"""Start of an environment's id -> what to install; importing the first package registers the id."""


def find_spec(env_id: str) -> EnvSpec:
    """Find the spec of an environment.

    Args:
        env_id: a registered id; ``module:id``, whose module is imported first; or the
            ``module:Name`` of a class or factory, which needs no registration.

    Raises:
        gymnasium.error.Error: If there is no such id.
        ConfigError: If ``module:Name`` cannot be imported or is not callable.
    """
    module, _, name = env_id.rpartition(":")
    if not module:
        _import_package(name)
        try:
            return gym.spec(name)
        except gym.error.Error as error:
            raise type(error)(f"{str(error).rstrip('.')}{_hint(name)}") from None
    try:
        with in_user_code(f"the import of {module}"):
            import_named(module)
        return gym.spec(name)
    except (ImportError, gym.error.Error) as error:
        try:
            creator = load_reference(env_id, "environment")
        except ConfigError:
            if isinstance(error, gym.error.Error) and not name.replace(".", "").isidentifier():
                raise error from None
            raise
    if not callable(creator):
        raise ConfigError(f"{env_id} is {creator!r}; expected an environment class or a factory")
    return EnvSpec(id=re.sub(r"[^\w:.-]", "", env_id), entry_point=creator)


def _import_package(env_id: str) -> None:
    """Import the package that registers an id of a well-known kind, since Gymnasium does not.

    Raises:
        ConfigError: If it is not installed.
    """
    wanted = next((w for start, w in PACKAGES.items() if env_id.startswith(start)), None)
    if wanted is None or env_id in gym.registry:
        return
    package = re.split(r"[\[ ]", wanted)[0]
    try:
        importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise ConfigError(
            f"{env_id} is an environment of {package}, which cannot be imported ({error}); install "
            f"it with: pip install {shlex.join(wanted.split())}"
        ) from error


def _hint(name: str) -> str:
    """End a message with the versions of an id that has none, or how to name an own class."""
    versions = sorted(i for i in gym.registry if i.rpartition("-v")[0] == name)
    if versions:
        return f". Did you mean {' or '.join(versions)}?"
    if name.isidentifier():
        return f". To use your own class or factory, write module:{name}."
    return ""
