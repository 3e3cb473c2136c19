"""The base class of what `convert` writes, and the description of a dataset that it gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from worldmodel.data.header import Header
from worldmodel.data.rollout import Episode


@dataclass(frozen=True)
class Contents:
    """What is the same for all episodes of a new dataset.

    Attributes:
        header: shapes, dtypes, action space and metadata.
        name: name of the dataset, e.g. the last part of its path.
        fps: frames per second, for formats that store it.
        lossless: whether images keep every byte where a format can also compress them with loss.
    """

    header: Header
    name: str
    fps: float = 30.0
    lossless: bool = False


class Writer(ABC):
    """Writes episodes into a new dataset, one at a time.

    Args:
        path: where the dataset is made; nothing is there yet.
        contents: what all episodes have in common.

    Attributes:
        notes: what the format does not hold, or holds in another way, in sentences.

    Raises:
        MissingLibraryError: If a library is not installed.
        ValueError: If the format cannot hold such episodes.
    """

    notes: tuple[str, ...] = ()

    @abstractmethod
    def __init__(self, path: Path, contents: Contents) -> None: ...

    @abstractmethod
    def add(self, episode: Episode) -> None:
        """Write one episode, as `worldmodel.data.store.fit_episode` makes it."""

    @abstractmethod
    def close(self) -> None:
        """Complete the dataset."""

    @abstractmethod
    def abort(self) -> None:
        """Release everything that is open, of a dataset that will be deleted."""
