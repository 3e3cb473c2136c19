"""What a source of episodes is: the base class of all readers, and what to read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data.header import Header
from worldmodel.data.rollout import Episode

PIXEL_KEYS = ("pixels", "image", "images", "rgb", "frames", "observations", "observation")
VECTOR_KEYS = ("observations", "observation", "proprio", "state")

NO_REWARDS = "no_rewards"
"""Key of the metadata of a buffer whose source held no rewards."""

INFERRED = "action_space_inferred"
"""Key of the metadata of a buffer whose action space is only what its actions need."""


@dataclass(frozen=True)
class ReadOptions:
    """What to read of an episode.

    Attributes:
        observation: ``pixels`` or ``vector``.
        key: entry that holds the observations; None for the first of the usual names.
        state_key: entry that holds the true state.
    """

    observation: str = "pixels"
    key: str | None = None
    state_key: str = "state"

    def choose(self, entries: Mapping[str, Any], where: str) -> str:
        """Choose the entry to read observations from.

        Raises:
            ValueError: If there is none.
        """
        names = PIXEL_KEYS if self.observation == "pixels" else VECTOR_KEYS
        for name in [self.key] if self.key else names:
            if name in entries and fits(entries[name], self.observation):
                return name
        wanted = self.key or f"one of {', '.join(names)}"
        raise ValueError(
            f"{where} has no {self.observation} under {wanted}; it holds "
            f"{', '.join(sorted(map(str, entries)))}: name the entry with --observation-key, or "
            "choose --observation pixels or vector"
        )


class Reader(ABC):
    """Reads the episodes of one source, always in the same order.

    Args:
        reference: what `data.sources` names.
        options: what to read.

    Attributes:
        action_space: space of the actions; None if unknown.
        count: number of episodes; None if unknown.
        env: ``id`` and ``kwargs`` of the environment, and ``policy``, as far as they are known.
        header: header of the replay buffer that the source is, or was converted from; None for
            data from elsewhere.
        fps: frames per second that the source states; None if it states none.
        lossy: whether the images went through a codec that changes pixels.
        unread: names of entries that are not read, in order.

    Raises:
        ValueError: If the source cannot be read.
    """

    action_space: gym.Space[Any] | None = None
    count: int | None = None
    env: Mapping[str, Any] = MappingProxyType({})
    header: Header | None = None
    fps: float | None = None
    lossy: bool = False
    unread: tuple[str, ...] = ()

    @abstractmethod
    def __init__(self, reference: str, options: ReadOptions) -> None: ...

    @classmethod
    @abstractmethod
    def matches(cls, reference: str) -> bool:
        """Check whether this reader is meant for a reference."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return JSON values that change when the episodes change."""

    @property
    def has_rewards(self) -> bool:
        """Whether the source holds rewards; otherwise they are 0."""
        return self.header is None or NO_REWARDS not in self.header.metadata

    @abstractmethod
    def __iter__(self) -> Iterator[Episode]:
        """Read the episodes."""

    def actions(self) -> Iterator[np.ndarray]:
        """Read the actions of every episode."""
        return (episode.actions for episode in self)

    def episode(self, number: int) -> Episode:
        """Read one episode.

        Raises:
            ValueError: If there is no such episode.
        """
        if self.count is not None:
            self.require_episode(number)
        found = next(islice(self, max(number, 0), None), None)
        if found is None:
            raise ValueError(f"there is no episode {number}")
        return found

    def require_episode(self, number: int) -> None:
        """Raise ValueError if there is no such episode; `count` has to be known."""
        count = self.count or 0
        if not 0 <= number < count:
            raise ValueError(f"there is no episode {number}; expected 0 to {count - 1}")

    def adopt(self, header: Header) -> None:
        """Take action space and environment from the header of a replay buffer."""
        self.header, self.env = header, collected_env(header.metadata)
        self.action_space = None if INFERRED in header.metadata else header.action_space


def fits(entry: Any, observation: str) -> bool:
    """Check whether the axes of an array suit ``pixels`` or ``vector`` observations."""
    axes = len(getattr(entry, "shape", ()))
    return axes in (3, 4) if observation == "pixels" else axes == 2


def collected_env(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Read the environment and the policy that `collect` noted; nothing with wrappers.

    Of policies only those that are built in are taken: data never names code to import.
    """
    noted, policy = metadata.get("env"), metadata.get("policy")
    if not isinstance(noted, dict) or not isinstance(noted.get("id"), str):
        return {}
    kwargs = metadata.get("env_kwargs", {})
    if "wrappers" in metadata or not isinstance(kwargs, dict):
        return {}
    name = policy.get("name") if isinstance(policy, dict) else None
    return {
        **{key: metadata[key] for key in ("frame_skip", "observation_key") if key in metadata},
        "id": noted["id"],
        "kwargs": kwargs,
        "policy": name if name in ("passive", "random", "mixed") else None,
    }
