"""Data: collect episodes from a Gymnasium environment, keep them on disk, sample windows."""

from worldmodel.data.errors import ReplayBufferError
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.windows import Windows

__all__ = ["ReplayBuffer", "ReplayBufferError", "Windows"]
