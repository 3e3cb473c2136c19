"""Prefetching: the batch of the next update is read while the current update runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields

import torch

from worldmodel.batches import Batch, WindowSampler
from worldmodel.device_buffer import DeviceReplayBuffer
from worldmodel.distributed import batch_slice
from worldmodel.models import WorldModel

BatchReader = Callable[[int], Batch]
"""Maps an update to its batch."""

_Read = tuple[Batch, torch.cuda.Event | None]
"""A batch, and on CUDA the event after which its copies are complete."""


class Prefetcher:
    """Reads the batch of the next update in a background thread, one update ahead.

    The batch of an update depends on nothing else, so the batches are those that `read` returns
    without a thread, also after resuming. On CUDA the thread copies them on a stream of its own,
    so that the copy runs beside the update.

    Args:
        read: reads the batch of an update.
        updates: number of updates; nothing is read beyond the last one.
        device: device of the batches.
    """

    def __init__(self, read: BatchReader, updates: int, device: torch.device) -> None:
        self._read, self._updates, self._device = read, updates, device
        self._thread = ThreadPoolExecutor(1, "prefetch")
        self._next: tuple[int, Future[_Read]] | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:  # what `read` uses may still be computed
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def __call__(self, update: int) -> Batch:
        """Return the batch of an update, and start to read the next one."""
        ahead, self._next = self._next, None
        if ahead is None or ahead[0] != update:
            ahead = update, self._thread.submit(self._read_and_copy, update)
        batch, copied = ahead[1].result()
        if update + 1 < self._updates:
            self._next = update + 1, self._thread.submit(self._read_and_copy, update + 1)
        if copied is not None:
            self._hand_over(batch, copied)
        return batch

    def _read_and_copy(self, update: int) -> _Read:
        """Read a batch; runs in the thread."""
        if self._stream is None:
            return self._read(update), None
        with torch.cuda.stream(self._stream):
            return self._read(update), self._stream.record_event()

    def _hand_over(self, batch: Batch, copied: torch.cuda.Event) -> None:
        """Let the stream of the update wait for the copies, and keep their memory until it ends."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copied)
        for field in fields(batch):
            getattr(batch, field.name).record_stream(stream)


def batch_reader(
    sampler: WindowSampler, model: WorldModel, updates: int, *, prefetch: bool
) -> BatchReader:
    """Make a function that reads this process's part of the batches of a phase.

    Args:
        sampler: draws the windows.
        model: gives the device.
        updates: of the phase.
        prefetch: whether to read one update ahead; windows that are on the device need no reading.
    """
    part = batch_slice(sampler.batch_size)

    def read(update: int) -> Batch:
        return sampler.batch(update, model, part)

    if not prefetch or isinstance(sampler.buffer, DeviceReplayBuffer):
        return read
    return Prefetcher(read, updates, model.device)
