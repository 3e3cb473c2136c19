"""From keys held down to an action."""

from __future__ import annotations

from collections.abc import Collection

import gymnasium as gym
import numpy as np

PAIRS = (("a", "d"), ("j", "l"), ("s", "w"), ("k", "i"))
"""Keys that push one number of a Box action to its low and to its high end."""


class Keyboard:
    """Turns the keys that are held into actions of a space.

    Of a Box with up to 4 numbers each has a pair of keys, and rests in the middle. Discrete actions
    have the digits from 1; the last one pressed stays.

    Args:
        space: A flat Box, or a Discrete.

    Raises:
        ValueError: If there are more numbers or actions than keys.
    """

    def __init__(self, space: gym.Space) -> None:
        self._space = space
        if isinstance(space, gym.spaces.Discrete):
            fits = space.n <= 9
        else:
            fits = isinstance(space, gym.spaces.Box) and space.shape[0] <= len(PAIRS)
        if not fits:
            raise ValueError(f"there are not enough keys to play with {space}")
        self._chosen = 0

    @property
    def help(self) -> str:
        """What the keys do."""
        if isinstance(self._space, gym.spaces.Discrete):
            return f"1 to {self._space.n}: choose the action"
        assert self._space.shape is not None
        pairs = PAIRS[: self._space.shape[0]]
        return "   ".join(f"{low} {high} push {i}" for i, (low, high) in enumerate(pairs, 1))

    def action(self, held: Collection[str]) -> np.ndarray:
        """The action that keys stand for."""
        if isinstance(self._space, gym.spaces.Discrete):
            digits = [int(key) - 1 for key in held if key.isdigit() and key != "0"]
            self._chosen = next((d for d in digits if d < self._space.n), self._chosen)
            return np.asarray(self._space.start + self._chosen)
        assert isinstance(self._space, gym.spaces.Box)
        low, high = self._space.low, self._space.high
        action = (low + high) / 2
        for i, (down, up) in enumerate(PAIRS[: len(action)]):
            if down in held and up not in held:
                action[i] = low[i]
            elif up in held and down not in held:
                action[i] = high[i]
        return action.astype(self._space.dtype)
