"""The errors that this package raises beside `ValueError` and `TypeError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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


class MissingLibraryError(ImportError):
    """An optional library is not installed; the message has the command that installs it."""


class RunError(RuntimeError):
    """A run directory is missing, damaged, unfinished, or cannot be written."""


class InterruptedRunError(RuntimeError):
    """The user stopped the command; what was finished is saved."""


@contextmanager
def naming_episode(label: str) -> Iterator[None]:
    """Name an episode in errors about its content."""
    try:
        yield
    except ReplayBufferError:
        raise
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error
