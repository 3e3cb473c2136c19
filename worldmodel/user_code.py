"""Code of the user: where its exceptions were raised, and the frames of it that concern them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

_ORIGIN = "Raised in "

WORKER_NOTE = "In a process that plays the environment:\n"
"""Start of the note that holds the frames of an exception of another process."""


@contextmanager
def in_user_code(where: str) -> Iterator[None]:
    """Note in any exception that it was raised in code of the user, and where.

    The exception itself stays as it is, with a note (PEP 678); of nested places the innermost one
    counts.

    Args:
        where: the place, as in ``"reset of Own-v0 with seed 17"``.
    """
    try:
        yield
    except Exception as error:
        if user_code_of(error) is None:
            error.add_note(_ORIGIN + where)
        raise


def user_code_of(error: BaseException) -> str | None:
    """Return the place in code of the user that an exception names; None for any other."""
    notes = getattr(error, "__notes__", ())
    places = (note.removeprefix(_ORIGIN) for note in notes if note.startswith(_ORIGIN))
    return next(places, None)


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an exception that follow the last one of this package and Gymnasium."""
    frames = traceback.extract_tb(error.__traceback__)
    packages = (Path(__file__).parent, Path(gym.__file__).parent)
    outside = [
        not any(Path(frame.filename).is_relative_to(p) for p in packages) for frame in frames
    ]
    first = max((i + 1 for i, own in enumerate(outside) if not own), default=0)
    return list(frames[first:])


class NamedErrors(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Notes in the exceptions of an environment where they were raised; see `in_user_code`.

    Args:
        env: The environment, with the user's wrappers.
        name: Of the environment.
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
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        self._steps += 1
        try:
            return self.env.step(action)
        except Exception:
            seed = "" if self._seed is None else f" after the reset with seed {self._seed}"
            with in_user_code(f"step {self._steps} of {self.name}{seed}"):
                raise

    def render(self) -> Any:
        """Render the environment."""
        with in_user_code(f"render of {self.name}"):
            return self.env.render()


def named_errors(env: gym.Env[Any, Any], name: str, *, wrapped: bool) -> gym.Env[Any, Any]:
    """Wrap an environment in `NamedErrors`, unless it is one of this package.

    Args:
        env: the environment.
        name: of the environment.
        wrapped: whether it has wrappers of the user.
    """
    own = type(env.unwrapped).__module__.partition(".")[0] == "worldmodel"
    return env if own and not wrapped else NamedErrors(env, name)
