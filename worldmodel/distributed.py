"""Data-parallel training: several processes share each batch and hold the same weights.

A launcher such as ``torchrun`` starts the processes and sets the environment variables ``RANK``,
``LOCAL_RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT`` of each one
(https://docs.pytorch.org/docs/stable/elastic/run.html). Rank r reads and encodes the r-th part of
each batch. `all_gather` then collects the latents of the whole batch on every rank, so regularizers
use the statistics of the whole batch, and `average_gradients` gives all ranks the gradients that a
single process would have. Only the main process, rank 0, collects data, writes and evaluates.

In a single process, and outside of `process_group`, all functions have no effect.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from worldmodel.errors import ConfigError, RunError

T = TypeVar("T")

_STARTING = timedelta(minutes=10)
_LONGEST_WAIT = timedelta(days=1)
"""Timeout of the other ranks while the main process collects or evaluates."""


class LostProcess(RuntimeError):  # noqa: N818
    """A collective operation failed, usually because another process has ended."""


class _Group:
    """The processes of a running training; None outside of `process_group`."""

    waiting: Any = None
    """Group for flags, numbers and waiting, on CPUs; gradients use the default group."""


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def process_group() -> Iterator[None]:
    """Initialize the process group of the launcher's processes, and destroy it at the end.

    A group that already exists, as in Ray Train, is used and kept.

    Raises:
        RunError: If the other processes cannot be reached, or one of them ends.
    """
    exists = dist.is_available() and dist.is_initialized()
    if not exists and not launched():
        yield
        return
    if not exists:
        _start_group()
    _Group.waiting = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    try:
        yield
    except LostProcess as error:
        raise RunError(f"{error}; look at the messages of the others") from error
    finally:
        _Group.waiting = None
        if not exists:
            dist.destroy_process_group()


def _start_group() -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=_STARTING)
    except (ValueError, RuntimeError) as error:
        raise RunError(
            f"cannot join the {os.environ['WORLD_SIZE']} processes of WORLD_SIZE ({error}); start "
            "them with a launcher: torchrun --nproc-per-node N -m worldmodel train"
        ) from error


def process_count() -> int:
    """Number of processes."""
    return dist.get_world_size() if _Group.waiting is not None else 1


def process_rank() -> int:
    """Rank of this process."""
    return dist.get_rank() if _Group.waiting is not None else 0


def is_main_process() -> bool:
    """Whether this is rank 0, or a single process."""
    return process_rank() == 0


def own_gpu() -> torch.device:
    """Return the GPU of this process among those of its machine.

    Raises:
        ConfigError: If the machine has more processes than GPUs.
    """
    number, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= gpus:
        raise ConfigError(
            f"LOCAL_RANK is {number}, and this machine has {gpus} GPUs; start at most {gpus} "
            "processes on it, or pass --device cpu"
        )
    return torch.device("cuda", number)


def batch_slice(size: int) -> slice:
    """Return this process's part of a batch of `size`, which `require_divisible` has checked."""
    part = size // process_count()
    return slice(process_rank() * part, (process_rank() + 1) * part)


def require_divisible(sizes: dict[str, int]) -> None:
    """Check that all batches can be divided.

    Args:
        sizes: key of the configuration -> its batch size.

    Raises:
        ConfigError: If a batch size is not a multiple of the number of processes.
    """
    count = process_count()
    for key, size in sizes.items():
        if size % count:
            raise ConfigError(
                f"{key} is {size}, and {count} processes share each batch; expected a multiple of "
                f"{count}"
            )


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.size = dim, part.shape[dim]
        parts = [torch.empty_like(part) for _ in range(process_count())]
        _collective(lambda: dist.all_gather(parts, part.contiguous()))
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Every rank computes the same loss of the whole batch, and each rank's gradient covers its
        # own part only. Averaging over ranks divides by their number, so multiply by it here.
        own = gradients[0].narrow(ctx.dim, process_rank() * ctx.size, ctx.size)
        return own * process_count(), None


def all_gather(part: Tensor, dim: int) -> Tensor:
    """Concatenate the parts of all processes along a dimension, in the order of their ranks.

    If every process computes the same loss of the result, `average_gradients` makes the gradients
    of the weights those of that loss.
    """
    if process_count() == 1:
        return part
    whole: Tensor = _Gather.apply(part, dim)  # type: ignore[no-untyped-call]
    return whole


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace all gradients by their mean over the processes."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if process_count() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    _collective(lambda: dist.all_reduce(flat))
    flat /= process_count()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def broadcast_module(module: nn.Module) -> None:
    """Copy the parameters and buffers of a module from rank 0 to all ranks."""
    if process_count() > 1:
        for tensor in module.state_dict().values():
            _collective(partial(dist.broadcast, tensor, 0))


def average_losses(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average 0-d tensors over the processes, which all have the same names."""
    if process_count() == 1 or not terms:
        return terms
    values = torch.tensor([float(term) for term in terms.values()])
    _collective(lambda: dist.all_reduce(values, group=_Group.waiting))
    return dict(zip(terms, values / process_count(), strict=True))


def any_process(flag: bool) -> bool:
    """Whether a flag is true on any rank."""
    if process_count() == 1:
        return flag
    found = torch.tensor(int(flag))
    _collective(lambda: dist.all_reduce(found, dist.ReduceOp.MAX, group=_Group.waiting))
    return bool(found)


def barrier() -> None:
    """Wait until all ranks have called this."""
    any_process(False)


def broadcast_result(make: Callable[[], T]) -> T:
    """Call a function on rank 0, and return its result on all ranks."""
    shared: list[Any] = [make() if is_main_process() else None]
    if process_count() > 1:
        group = _Group.waiting
        _collective(lambda: dist.broadcast_object_list(shared, 0, group=group))
    result: T = shared[0]
    return result


def _collective(call: Callable[[], Any]) -> None:
    """Run a collective operation.

    Raises:
        LostProcess: If it fails.
    """
    try:
        call()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise LostProcess(
            f"a process of this training ended, or cannot be reached ({reason})"
        ) from error
