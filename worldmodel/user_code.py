"""Exceptions in user code: where they were raised, and the lines of that code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

_ORIGIN = "Raised in "

WORKER_NOTE = "In a process that plays the environment:\n"
"""Start of the note that holds the frames of an exception of another process."""


@contextmanager
def in_user_code(where: str) -> Iterator[None]:
    """Name the place in any exception that is raised here, in user code; see `name_place`."""
    try:
        yield
    except Exception as error:
        name_place(error, where)
        raise


def name_place(error: Exception, where: str) -> None:
    """Add a note (PEP 678) with the place in user code where an exception was raised.

    Of nested places the innermost one counts.

    Args:
        error: the exception; it stays as it is otherwise.
        where: the place, as in ``"reset of Own-v0 with seed 17"``.
    """
    if user_code_of(error) is None:
        error.add_note(_ORIGIN + where)


def user_code_of(error: BaseException) -> str | None:
    """Return the place in user code that an exception names; None without one."""
    notes = getattr(error, "__notes__", ())
    places = (note.removeprefix(_ORIGIN) for note in notes if note.startswith(_ORIGIN))
    return next(places, None)


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an exception that follow the last one of this package and Gymnasium."""
    packages = (Path(__file__).parent, Path(gym.__file__).parent)
    frames: list[traceback.FrameSummary] = []
    for frame in traceback.extract_tb(error.__traceback__):
        inside = any(Path(frame.filename).is_relative_to(package) for package in packages)
        frames = [] if inside else [*frames, frame]
    return frames


_Values = TypeVar("_Values")

_RESET = ("observation", "info")
_STEP = ("observation", "reward", "terminated", "truncated", "info")


class NamedErrors(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds to the exceptions of an environment where they were raised; see `name_place`.

    Args:
        env: The environment, with the user's wrappers.
        name: Name of the environment.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        RecordConstructorArgs.__init__(self, name=name)
        super().__init__(env)
        self.name = name
        self._seed: int | None = None
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        self._seed, self._steps = seed, 0
        with in_user_code(f"reset of {self.name} with seed {seed}"):
            return _require_values(self.env.reset(seed=seed, options=options), _RESET)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        self._steps += 1
        try:
            return _require_values(self.env.step(action), _STEP)
        except Exception as error:
            seed = "" if self._seed is None else f" after the reset with seed {self._seed}"
            name_place(error, f"step {self._steps} of {self.name}{seed}")
            raise

    def render(self) -> Any:
        """Render the environment."""
        with in_user_code(f"render of {self.name}"):
            return self.env.render()


def _require_values(values: _Values, names: tuple[str, ...]) -> _Values:
    """Check that an environment returned what the Gymnasium API asks for."""
    if not isinstance(values, tuple) or len(values) != len(names):
        found = f"{len(values)} values" if isinstance(values, tuple) else type(values).__name__
        raise ValueError(f"the environment returned {found}; expected ({', '.join(names)})")
    return values


def named_errors(env: gym.Env[Any, Any], name: str, *, wrapped: bool) -> gym.Env[Any, Any]:
    """Wrap an environment in `NamedErrors`, unless it is one of this package.

    Args:
        env: the environment.
        name: of the environment.
        wrapped: whether it has wrappers of the user's own.
    """
    own = type(env.unwrapped).__module__.partition(".")[0] == "worldmodel"
    return env if own and not wrapped else NamedErrors(env, name)
