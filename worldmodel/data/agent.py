"""A saved Stable-Baselines3 agent as a policy that collects data."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.policies import Actor, ActorFactory

ALGORITHMS = ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3")
STOCHASTIC = ("A2C", "PPO", "SAC")


@dataclass(frozen=True)
class Agent:
    """A saved Stable-Baselines3 agent.

    Loading one runs code from its file: load only agents you trust. Each observation is passed
    to the agent alone, never in a batch, because a batch's size changes the last bits of its
    actions, and episodes must not depend on how many are collected at once.

    Args:
        path: the ``.zip`` file that ``model.save`` wrote.
        algo: one of `ALGORITHMS`; found from the file if missing.
        deterministic: take the most likely action; otherwise draw it, from the episode's seed.

    Raises:
        ValueError: if there is no such file or the algorithm is not known.
    """

    path: str | Path
    algo: str | None = None
    deterministic: bool = True
    observes = True
    sees = None

    def __post_init__(self) -> None:
        if not zipfile.is_zipfile(self.path):
            raise ValueError(
                f"{self.path} is no agent saved by Stable-Baselines3 (a .zip file); "
                "pass such a file, or one of the policies 'passive', 'random' and 'mixed'"
            )
        if self.algo is not None and self.algo not in ALGORITHMS:
            raise ValueError(f"algo is {self.algo!r}; expected one of {', '.join(ALGORITHMS)}")
        if not self.deterministic and self._algorithm() not in STOCHASTIC:
            raise ValueError(
                f"a {self._algorithm()} agent has no action distribution to draw from with "
                f"deterministic=False; only {', '.join(STOCHASTIC)} have"
            )

    def identity(self) -> dict[str, Any]:
        """See `Policy`."""
        return {
            "name": "agent",
            "algo": self._algorithm(),
            "sha256": hashlib.sha256(Path(self.path).read_bytes()).hexdigest(),
            "deterministic": self.deterministic,
            "versions": {name: version(name) for name in ("stable-baselines3", "torch")},
        }

    def bind(
        self, action_space: gym.Space, observation_space: gym.Space, steps: int
    ) -> ActorFactory:
        """See `Policy`.

        Raises:
            ValueError: if the agent was trained on other actions or observations, or the actions
                do not count from 0, as those of Stable-Baselines3 do.
        """
        import stable_baselines3
        import torch

        algorithm = getattr(stable_baselines3, self._algorithm())
        with torch.random.fork_rng(devices=[]):
            model = algorithm.load(self.path, device="cpu")
        _require_same("actions", model.action_space, action_space)
        _require_same("observations", _channels_last(model.observation_space), observation_space)

        if isinstance(action_space, gym.spaces.Discrete) and action_space.start != 0:
            raise ValueError(
                f"Stable-Baselines3 agents count actions from 0, but the environment has "
                f"{action_space}; shift them with gymnasium.wrappers.TransformAction"
            )

        def start(seed: int) -> Actor:
            acting = seeded_agent(model, seed, self.deterministic)
            return lambda t, observation: acting(observation)

        return start

    def _algorithm(self) -> str:
        """The algorithm: as given, or found from what the file says about its policy."""
        if self.algo is not None:
            return self.algo
        with zipfile.ZipFile(self.path) as archive:
            try:
                content = json.loads(archive.read("data"))
                module = content["policy_class"]["__module__"]
            except (KeyError, TypeError, ValueError):
                content, module = {}, ""
        if module.endswith("common.policies"):
            return "PPO" if "clip_range" in content else "A2C"
        for algorithm in ("DQN", "SAC", "TD3"):
            if module.endswith(f"{algorithm.lower()}.policies"):
                return algorithm
        raise ValueError(
            f"{self.path} does not say which algorithm saved it; "
            f"pass policy=Agent(path, algo=...), one of {', '.join(ALGORITHMS)}"
        )


def seeded_agent(model: Any, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
    """A loaded agent as a function from an observation to an action.

    What it draws comes from the seed; the global random state is untouched.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    epsilon = getattr(model, "exploration_rate", None)  # DQN's, which it draws globally

    def act(observation: Any) -> np.ndarray:
        if epsilon is not None and not deterministic and rng.random() < epsilon:
            return np.asarray(rng.integers(model.action_space.n))
        if deterministic or epsilon is not None:
            return model.predict(observation, deterministic=True)[0]
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator.get_state())
            action = model.predict(observation, deterministic=False)[0]
            generator.set_state(torch.get_rng_state())
        return action

    return act


def _channels_last(space: gym.Space) -> gym.Space:
    """Undo the transposition of images that Stable-Baselines3 applies before training."""
    if (
        isinstance(space, gym.spaces.Box)
        and len(space.shape) == 3
        and space.dtype == np.uint8
        and space.shape[0] < space.shape[2]
    ):
        return gym.spaces.Box(
            np.moveaxis(space.low, 0, -1), np.moveaxis(space.high, 0, -1), dtype=np.uint8
        )
    return space


def _require_same(what: str, trained: gym.Space, given: gym.Space) -> None:
    same = trained.shape == given.shape and trained.dtype == given.dtype
    if isinstance(trained, gym.spaces.Discrete) or isinstance(given, gym.spaces.Discrete):
        same = trained == given
    if not same:
        raise ValueError(
            f"the agent was trained with {what} {_told(trained)}, and the environment has "
            f"{_told(given)}; give it an environment like the one it was trained in"
        )


def _told(space: gym.Space) -> str:
    """A space in a few words, without its bounds."""
    if isinstance(space, gym.spaces.Box):
        return f"{space.dtype} of shape {space.shape}"
    return str(space)
