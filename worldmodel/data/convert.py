"""Conversion between formats of episodes, one episode at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.callbacks import Callback, CallbackList, deferred_interrupt
from worldmodel.data import minari_dataset
from worldmodel.data.hdf5 import HDF5Writer
from worldmodel.data.header import Header
from worldmodel.data.importers import open_source
from worldmodel.data.lerobot_writer import LeRobotWriter
from worldmodel.data.minari_dataset import MinariWriter
from worldmodel.data.reader import INFERRED, NO_REWARDS, Reader, ReadOptions
from worldmodel.data.replay import ReplayBuffer
from worldmodel.data.rollout import Episode
from worldmodel.data.store import fit_episode, infer_action_space, stored_frames
from worldmodel.data.writer import Contents, Writer
from worldmodel.errors import naming_episode
from worldmodel.files import sync
from worldmodel.plugins import find_plugin

FPS, LOSSY = "fps", "lossy"
"""Keys of the metadata of a converted buffer: frames per second of the source, and the codec that
changed the images."""

HDF5_SUFFIXES = (".h5", ".hdf5")


class BufferWriter(Writer):
    """A replay buffer."""

    def __init__(self, path: Path, contents: Contents) -> None:
        header = contents.header
        self._buffer = ReplayBuffer.create(
            path,
            frame_shape=header.frame_shape,
            frame_dtype=header.frame_dtype,
            action_space=header.action_space,
            state_dim=header.state_dim,
            metadata=header.metadata,
        )

    def add(self, episode: Episode) -> None:
        """Append one episode."""
        self._buffer.add_episode(
            episode.frames,
            episode.actions,
            episode.rewards,
            episode.terminated,
            states=episode.states,
            seed=episode.seed if episode.seed >= 0 else None,
        )

    def close(self) -> None:
        """Flush and close the buffer."""
        self._buffer.close()
        (self._buffer.path / "write.lock").unlink(missing_ok=True)

    abort = close


WRITERS: dict[str, type[Writer]] = {
    "buffer": BufferWriter,
    "minari": MinariWriter,
    "hdf5": HDF5Writer,
    "lerobot": LeRobotWriter,
}
"""Formats by name."""


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: str | None = None,
    observation: str | None = None,
    observation_key: str | None = None,
    state_key: str = "state",
    lossless: bool = False,
    fps: float | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Write the episodes of one dataset as a new one, in the same or in another format.

    One episode is in memory at a time. The new dataset appears under its name when it is complete.

    Args:
        src: a replay buffer, sharded or not, an HDF5 file, a Minari dataset (``minari:ID`` or its
            directory), a LeRobot v3 dataset, or ``module:Name`` of a function that yields episodes.
        dst: path of the new dataset, or ``minari:ID``; nothing may be there.
        to: ``buffer``, ``minari``, ``hdf5`` or ``lerobot``; None to decide by `dst`: ``.h5`` and
            ``.hdf5`` are HDF5, ``minari:ID`` is Minari.
        observation: ``pixels`` or ``vector``; None for pixels where there are any.
        observation_key: entry with the observations; None for the usual names.
        state_key: entry with the true state.
        lossless: to LeRobot: store images as PNG instead of mp4.
        fps: to LeRobot: frames per second; None for those of the source or of its environment.
        callbacks: receive progress and messages.

    Returns:
        ``path``, ``format``, ``episodes``, ``frames`` and ``notes``: what the new dataset holds in
        another way or not at all.

    Raises:
        MissingLibraryError: If a library is not installed.
        ValueError: If the source cannot be read, the format is unknown or cannot hold the episodes.
        FileExistsError: If `dst` exists.
        OSError: If it cannot be written.
    """
    watching = CallbackList(callbacks)
    form = _format(str(dst), to)
    path = minari_dataset.local_path(str(dst)) if _is_minari_id(str(dst)) else Path(dst)
    if form != "lerobot" and (lossless or fps is not None):
        raise ValueError(f"lossless and fps are options of LeRobot datasets; {dst} is {form}")
    _require_new(path, src)
    reader = open_episodes(src, observation, observation_key, state_key)
    if _is_minari_id(str(dst)):
        path.parent.mkdir(parents=True, exist_ok=True)
    prefix = minari_dataset.PREFIX
    name = str(dst).removeprefix(prefix) if _is_minari_id(str(dst)) else path.name
    with (
        deferred_interrupt() as stop,  # h5py swallows exceptions in callbacks of weak references
        _created(path) as unfinished,
        watching.task("converting episodes", reader.count) as advance,
    ):
        conversion = _Conversion(reader, WRITERS[form], unfinished, name, lossless, fps)
        with closing(conversion.run()) as episodes:
            for done in episodes:
                advance(done)
                if stop.requested:
                    raise KeyboardInterrupt
    if _is_minari_id(str(dst)):
        minari_dataset.register_namespace(str(dst))
    notes = conversion.notes()
    for note in notes:
        watching.on_message(note)
    return {
        "path": str(path),
        "format": form,
        "episodes": conversion.episodes,
        "frames": conversion.frames,
        "notes": notes,
    }


def open_episodes(
    src: str | Path,
    observation: str | None = None,
    observation_key: str | None = None,
    state_key: str = "state",
) -> Reader:
    """Open a source with the observations that it has.

    Args:
        src: see `convert`.
        observation: ``pixels`` or ``vector``; None for pixels where there are any.
        observation_key: entry with the observations; None for the usual names.
        state_key: entry with the true state.

    Raises:
        ValueError: If it cannot be read, or has no such observations.
    """
    first_error: ValueError | None = None
    for kind in ("pixels", "vector") if observation is None else (observation,):
        try:
            reader = open_source(str(src), ReadOptions(kind, observation_key, state_key))
            if reader.count == 0:
                raise ValueError(f"{src} holds no episodes")
            reader.episode(0)
            return reader
        except ValueError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def frame_rate(reader: Reader) -> float:
    """Return the frames per second of a source: its own, else those of its environment, else 30."""
    metadata = {} if reader.header is None else reader.header.metadata
    stated = reader.fps or metadata.get(FPS)
    if isinstance(stated, int | float) and stated > 0:
        return float(stated)
    env = reader.env if reader.env.get("id") in gym.registry else {}
    seconds = find_plugin(env.get("id"), env.get("kwargs")).seconds_per_step()
    return 1.0 / (seconds * int(env.get("frame_skip", 1)))


class _Conversion:
    """Reads, fits and writes every episode.

    Attributes:
        episodes: number of episodes written.
        frames: number of frames written.
    """

    def __init__(
        self,
        reader: Reader,
        kind: type[Writer],
        path: Path,
        name: str,
        lossless: bool,
        fps: float | None,
    ) -> None:
        self._reader, self._kind, self._path, self._name = reader, kind, path, name
        self._lossless, self._fps = lossless, fps
        self._writer: Writer | None = None
        self.episodes, self.frames = 0, 0

    def run(self) -> Generator[int, None, None]:
        """Convert, yielding the number of episodes that are done."""
        try:
            for number, episode in enumerate(self._reader):
                with naming_episode(f"episode {number}"):
                    self._add(episode)
                yield self.episodes
            if self._writer is None:
                raise ValueError("there are no episodes to convert")
            self._writer.close()
        except BaseException:
            if self._writer is not None:
                self._writer.abort()
            raise

    def notes(self) -> list[str]:
        """Say what the new dataset holds in another way, or not at all."""
        notes = list(self._writer.notes if self._writer is not None else ())
        if self._reader.unread:
            notes.append(f"Not converted: {', '.join(self._reader.unread)}")
        if not self._reader.has_rewards:
            notes.append("The source holds no rewards: all of them are 0")
        if self._reader.header is None and self._reader.action_space is None:
            notes.append(f"The action space, inferred from the data: {self._header.action_space}")
        return notes

    def _add(self, episode: Episode) -> None:
        source = self._reader.header
        if source is None or episode.frames.shape[1:] != source.frame_shape:
            episode = episode._replace(frames=stored_frames(episode.frames, None))
        if self._writer is None:
            self._header = self._make_header(episode)
            fps = self._fps or (frame_rate(self._reader) if self._kind is LeRobotWriter else 30.0)
            contents = Contents(self._header, self._name, fps, self._lossless)
            self._writer = self._kind(self._path, contents)
        self._writer.add(fit_episode(self._header, episode))
        self.episodes += 1
        self.frames += len(episode.frames)

    def _make_header(self, first: Episode) -> Header:
        reader, stored = self._reader, self._reader.header
        states = first.states
        fields: dict[str, Any] = {
            "frame_shape": first.frames.shape[1:],
            "frame_dtype": first.frames.dtype.name,
            "state_dim": 0 if states is None else int(np.prod(states.shape[1:])),
        }
        if stored is not None:
            lossy = {LOSSY: "h264"} if reader.lossy else {}
            return replace(stored, **fields, metadata={**stored.metadata, **lossy})
        metadata: dict[str, Any] = {FPS: reader.fps} if reader.fps is not None else {}
        if not reader.has_rewards:
            metadata[NO_REWARDS] = True
        space = reader.action_space
        if space is None:
            metadata[INFERRED] = True
            space = infer_action_space(
                (f"episode {number}", actions) for number, actions in enumerate(reader.actions())
            )
        if "id" in reader.env:
            metadata |= {"env": {"id": reader.env["id"]}, "env_kwargs": dict(reader.env["kwargs"])}
        return Header(**fields, action_space=space, metadata=metadata)


def _is_minari_id(dst: str) -> bool:
    return dst.startswith(minari_dataset.PREFIX)


def _format(dst: str, to: str | None) -> str:
    """Decide the format of a destination.

    Raises:
        ValueError: If it is unknown, or does not fit the name.
    """
    if to is not None and to not in WRITERS:
        raise ValueError(f"unknown format {to!r}; expected one of {', '.join(WRITERS)}")
    if _is_minari_id(dst):
        named: str | None = "minari"
    else:
        named = "hdf5" if Path(dst).suffix in HDF5_SUFFIXES else None
    if to is None and named is None:
        raise ValueError(
            f"the name {dst!r} does not say the format; add --to buffer, minari or lerobot, or end "
            "the name in .h5"
        )
    if to is not None and to != (named or to):
        raise ValueError(f"{dst!r} is the name of a dataset of format {named}, but --to is {to}")
    if to == "hdf5" and named is None:
        raise ValueError(f"{dst!r} has to end in .h5 or .hdf5, by which HDF5 files are recognized")
    return str(to or named)


def _require_new(path: Path, src: str | Path) -> None:
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists, and nothing is overwritten; choose another path")
    if Path(src).is_dir() and path.resolve().is_relative_to(Path(src).resolve()):
        raise ValueError(f"{path} is inside of {src}; choose a path outside of the source")


@contextmanager
def _created(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, which is renamed on success; nothing is left on failure."""
    path = path.absolute()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the directory {path.parent} does not exist; create it first")
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        unfinished = folder / path.name
        yield unfinished
        for file in [unfinished, *unfinished.rglob("*")]:
            if file.is_file():
                sync(file)
        if path.exists():
            raise FileExistsError(f"{path} appeared meanwhile, and nothing is overwritten")
        os.rename(unfinished, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
