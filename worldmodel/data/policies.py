"""Policies that collect data: the base class for your own, and the built-in ones."""

from __future__ import annotations

import hashlib
import inspect
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.agent_files import ALGORITHMS, algorithm_of, load_agent_file
from worldmodel.errors import ConfigError
from worldmodel.hub import local_path
from worldmodel.registry import POLICIES, reference

Actor = Callable[[int, Any], np.ndarray]
"""Maps the step within the episode and the observation to an action."""

ActorFactory = Callable[[int], Actor]
"""Maps an episode's seed to its actor."""

Space = gym.Space[Any]
Draw = Callable[[np.random.Generator, int], np.ndarray]

_STREAM = 0x0AC7  # the environment draws from the plain seed; actions must not repeat its numbers


class Policy(ABC):
    """Chooses the actions of collected episodes. Subclass it and override `bind`.

    Use a subclass by name, ``--policy mypackage.policies:Sine``, or pass an object to `collect`::

        class Sine(Policy):
            def bind(self, action_space, observation_space, steps):
                def start(seed):
                    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi)
                    waves = np.sin(np.arange(steps) / 3 + phase).astype(action_space.dtype)
                    return lambda t, observation: np.full(action_space.shape, waves[t])

                return start
    """

    @property
    def uses_observations(self) -> bool:
        """Whether actions depend on the environment's own observations, by default True."""
        return True

    @property
    def frame_input(self) -> tuple[tuple[int, ...], int] | None:
        """Stored frames that actors are shown instead of the environment's own observations.

        Their shape (H, W, C) or (d,), and the number S that is stacked to (H, W, S*C) or (S*d,),
        oldest first. By default None.
        """
        return None

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the actions, as JSON values: equal for equal data.

        By default ``module:Name``, a digest of the class's source, and the fields of a dataclass.

        Raises:
            ValueError: If the class takes arguments and is not a dataclass.
        """
        kind = type(self)
        arguments: dict[str, Any] = asdict(self) if is_dataclass(self) else {}
        if not arguments and inspect.signature(kind).parameters:
            raise ValueError(
                f"{kind.__name__} has arguments that its identity lacks, so data of other values "
                "could be reused; make it a dataclass or override `identity`"
            )
        return {"name": reference(kind), "source": source_digest(kind), **arguments}

    @abstractmethod
    def bind(self, action_space: Space, observation_space: Space, steps: int) -> ActorFactory:
        """Prepare to act in an environment.

        Args:
            action_space: of one environment.
            observation_space: of one environment, its own.
            steps: longest episode.

        Returns:
            A function that maps an episode's seed to its actor. The actor maps the step within the
            episode, from 0, and the observation to an action of `action_space`: an array of its
            shape and dtype, or an integer for ``Discrete``. Actions may depend on nothing else, so
            that an episode does not depend on how many are collected at once.

        Raises:
            ValueError: If the policy cannot act in these spaces.
        """


def source_digest(target: Any) -> str | None:
    """Compute SHA-256 of the source of a class or function; None without a source."""
    try:
        return hashlib.sha256(inspect.getsource(target).encode()).hexdigest()
    except (OSError, TypeError):
        return None


def resolve_policy(policy: str | Path | Policy) -> Policy:
    """Find the policy behind a name.

    Args:
        policy: ``"passive"``, ``"random"``, ``"mixed"``, the ``module:Name`` of a `Policy` without
            required arguments, the path of an agent saved by Stable-Baselines3, a run (its model
            plans): a directory or ``hf://user/name``, or a `Policy`.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(policy, Policy):
        return policy
    if not isinstance(policy, str | Path):
        raise ValueError(f"policy is {policy!r}; expected a name, a path or a Policy object")
    path = local_path(policy)
    name = str(path)
    if name not in POLICIES.names and path.is_file():
        return Agent(path)
    if name not in POLICIES.names and (path / "config.yaml").is_file():
        return _made(POLICIES.resolve("planner"), name, path)
    try:
        POLICIES.check(name)
    except ConfigError:
        raise ValueError(
            f"policy is {name!r}; expected 'passive', 'random', 'mixed', module:Name, the path of "
            "an agent saved by Stable-Baselines3, or a run directory"
        ) from None
    return _made(POLICIES.resolve(name), name)


def _made(kind: Callable[..., Any], name: str, *arguments: Any) -> Policy:
    try:
        made = kind(*arguments)
    except TypeError as error:
        raise ValueError(
            f"policy {name!r} cannot be made from its name ({error}); give its arguments default "
            "values, or pass the object"
        ) from error
    if not isinstance(made, Policy):
        raise ValueError(f"policy {name!r} is {made!r}; expected a subclass of Policy")
    return made


@dataclass(frozen=True)
class Passive(Policy):
    """Zero action at every step."""

    uses_observations = False

    def identity(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"name": "passive"}

    def bind(self, action_space: Space, observation_space: Space, steps: int) -> ActorFactory:
        """See `Policy`. The zero action must be in the space."""
        zero = np.zeros(action_space.shape or (), action_space.dtype)
        if not isinstance(action_space, gym.spaces.Box) or not action_space.contains(zero):
            raise ValueError(
                f"policy 'passive' takes the zero action, which is not in {action_space}; "
                "use policy 'random' or a saved agent"
            )
        return lambda seed: lambda t, observation: zero


@dataclass(frozen=True)
class Random(Policy):
    """Uniform random actions, each held for a random number of steps.

    Args:
        hold: fewest and most steps for which an action is held.
    """

    hold: tuple[int, int] = (1, 8)
    uses_observations = False

    def __post_init__(self) -> None:
        if not 1 <= self.hold[0] <= self.hold[1]:
            raise ValueError(f"hold is {self.hold}; expected (fewest, most) steps, at least 1")

    def identity(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"name": "random", "hold": list(self.hold), "streams": 2}

    def bind(self, action_space: Space, observation_space: Space, steps: int) -> ActorFactory:
        """See `Policy`. The action space must be Discrete or a bounded Box."""
        draw = _uniform(action_space)

        def start(seed: int) -> Actor:
            actions = self._held(draw, steps, seed)
            return lambda t, observation: actions[t]

        return start

    def _held(self, draw: Draw, steps: int, seed: int) -> np.ndarray:
        """Draw actions of an episode, (steps, *action_shape); a longer one begins with them."""
        low, high = self.hold
        timing, choice = np.random.default_rng((_STREAM, seed)).spawn(2)
        holds = timing.integers(low, high, size=-(-steps // low), endpoint=True)
        segments = int(np.searchsorted(np.cumsum(holds), steps)) + 1
        return np.repeat(draw(choice, segments), holds[:segments], axis=0)[:steps]


@dataclass(frozen=True)
class Mixed(Policy):
    """Each episode is passive or random, drawn from its seed.

    Args:
        random_fraction: fraction of random episodes, in [0, 1].
        hold: see `Random`.
    """

    random_fraction: float = 0.5
    hold: tuple[int, int] = (1, 8)
    uses_observations = False

    def __post_init__(self) -> None:
        if not 0 <= self.random_fraction <= 1:
            raise ValueError(f"random_fraction is {self.random_fraction}; expected 0 to 1")

    def identity(self) -> dict[str, Any]:
        """See `Policy`."""
        random = Random(self.hold).identity()
        return {"name": "mixed", "random_fraction": float(self.random_fraction), "random": random}

    def bind(self, action_space: Space, observation_space: Space, steps: int) -> ActorFactory:
        """See `Policy`. Both policies must be able to act in the space."""
        passive = Passive().bind(action_space, observation_space, steps)
        random = Random(self.hold).bind(action_space, observation_space, steps)

        def start(seed: int) -> Actor:
            is_random = np.random.default_rng((_STREAM + 1, seed)).random() < self.random_fraction
            return random(seed) if is_random else passive(seed)

        return start


def _uniform(space: Space) -> Draw:
    """Make a function that draws `count` actions uniformly, (count, *space.shape)."""
    if isinstance(space, gym.spaces.Discrete):
        first, n = int(space.start), int(space.n)
        return lambda rng, count: rng.integers(first, first + n, size=count)
    if isinstance(space, gym.spaces.Box) and space.is_bounded("both"):
        box = space
        low, high = box.low.astype(np.float64), box.high.astype(np.float64)
        return lambda rng, count: rng.uniform(low, high, (count, *box.shape)).astype(box.dtype)
    raise ValueError(
        f"policy 'random' draws within the bounds of a Box or Discrete space, not {space}; "
        "bound them with gymnasium.wrappers.TransformAction, or use a saved agent, or policy "
        "'passive' if zero is an action"
    )


STOCHASTIC = ("A2C", "PPO", "SAC")


@dataclass(frozen=True)
class Agent(Policy):
    """A saved Stable-Baselines3 agent.

    Nothing in its file is executed unless you trust it, see `worldmodel.agent_files`. The agent
    gets one observation at a time, never a batch: the batch size changes the last bits of its
    actions, and episodes must not depend on how many are collected at once.

    Args:
        path: the ``.zip`` file that ``model.save`` wrote.
        algo: one of `ALGORITHMS`; None reads it from the file.
        deterministic: take the most likely action; otherwise draw it, seeded by the episode.

    Raises:
        ValueError: If there is no such file or the algorithm is not known.
    """

    path: str | Path
    algo: str | None = None
    deterministic: bool = True

    def __post_init__(self) -> None:
        if not zipfile.is_zipfile(self.path):
            raise ValueError(f"{self.path} is not an agent of Stable-Baselines3 (a .zip file)")
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

    def bind(self, action_space: Space, observation_space: Space, steps: int) -> ActorFactory:
        """See `Policy`. The spaces must be those of the agent, and Discrete actions start at 0."""
        import torch

        if isinstance(action_space, gym.spaces.Discrete) and action_space.start != 0:
            raise ValueError(
                "actions of Stable-Baselines3 agents start at 0, but the environment has "
                f"{action_space}; shift them with gymnasium.wrappers.TransformAction"
            )
        with torch.random.fork_rng(devices=[]):
            model = load_agent_file(self.path, self._algorithm(), action_space, observation_space)

        def start(seed: int) -> Actor:
            acting = seeded_agent(model, seed, self.deterministic)
            return lambda t, observation: acting(observation)

        return start

    def _algorithm(self) -> str:
        """Return the given algorithm, or the one that the file names."""
        algorithm = self.algo or algorithm_of(self.path)
        if algorithm is not None:
            return algorithm
        raise ValueError(
            f"{self.path} does not name the algorithm that saved it; "
            f"pass policy=Agent(path, algo=...), one of {', '.join(ALGORITHMS)}"
        )


def seeded_agent(model: Any, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
    """Turn a loaded agent into a function from an observation to an action.

    Args:
        model: an algorithm of Stable-Baselines3.
        seed: of the actions that are drawn; the global random state stays as it is.
        deterministic: take the most likely action.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    epsilon = getattr(model, "exploration_rate", None)  # of DQN, which draws from global state

    def act(observation: Any) -> np.ndarray:
        if epsilon is not None and not deterministic and rng.random() < epsilon:
            return np.asarray(rng.integers(model.action_space.n))
        if deterministic or epsilon is not None:
            return np.asarray(model.predict(observation, deterministic=True)[0])
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator.get_state())
            action = model.predict(observation, deterministic=False)[0]
            generator.set_state(torch.get_rng_state())
        return np.asarray(action)

    return act
