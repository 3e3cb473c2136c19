"""The one error a replay buffer on disk raises."""

from __future__ import annotations


class ReplayBufferError(ValueError):
    """A replay buffer cannot be created, opened, extended or reused.

    The message names the path, what was expected there, what was found, and the mend.
    """
