"""The errors that this package raises beside `ValueError` and `TypeError`, and notes in others."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym


class ConfigError(ValueError):
    """The configuration is invalid; the message lists every error at once."""


class ReplayBufferError(ValueError):
    """A replay buffer cannot be created, opened, extended or reused.

    The message names the path, what was expected there, what was found, and how to fix it.
    """


@dataclass(frozen=True)
class Problem:
    """Something damaged in a buffer or a run, found by a check.

    Attributes:
        what: what is damaged, one sentence.
        fix: how to repair it.
    """

    what: str
    fix: str


class RunError(RuntimeError):
    """A run directory is missing, damaged, unfinished, or cannot be written."""


class InterruptedRunError(RuntimeError):
    """The user stopped the command; what was finished is saved."""


_ORIGIN = "Raised in "

IN_WORKER = "In a process that plays the environment:\n"
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


@contextmanager
def naming_episode(label: str) -> Iterator[None]:
    """Name an episode in errors about its content."""
    try:
        yield
    except ReplayBufferError:
        raise
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error
