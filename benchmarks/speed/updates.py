"""Updates of the weights, against the convolutions and matrix products that they consist of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed.sampling import pendulums
from benchmarks.speed.table import Context, Functions, Row, duration, train_smoke
from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.device_buffer import cache_on_device
from worldmodel.hyperparameters import Training
from worldmodel.models import WorldModel
from worldmodel.optim import Phase, tuned_cpu
from worldmodel.phases import decoder_heads_phase, jepa_phase

_PRODUCTS = {
    torch.ops.aten.convolution,
    torch.ops.aten.convolution_backward,
    torch.ops.aten.mm,
    torch.ops.aten.addmm,
    torch.ops.aten.bmm,
    torch.ops.aten.baddbmm,
}
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


class Recorder(TorchDispatchMode):
    """Keeps the convolutions and matrix products that run, forward and backward.

    Attributes:
        calls: each operator with its arguments.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator, and keep it if it is a product."""
        if func.overloadpacket in _PRODUCTS:
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def bare_products(phase: Phase, *, optimizer: bool = False) -> Callable[[], None]:
    """Make a function that runs only the products of the loss and its gradients, as recorded.

    Args:
        phase: of a training.
        optimizer: also the products of the optimizer.
    """
    with Recorder() as recorder:
        if optimizer:
            phase.update()
        else:
            phase.loss(0)[0].backward()
    calls = recorder.calls

    @torch.no_grad()
    def run() -> None:
        for function, args, kwargs in calls:
            function(*args, **kwargs)

    return run


def new_phase(
    kind: Callable[[WorldModel, ReplayBuffer, Config], Phase],
    context: Context,
    buffer: ReplayBuffer,
    batch: int | None = None,
    *,
    training: Training | None = None,
    device: torch.device | None = None,
) -> Phase:
    """Make a phase of a new model on a buffer, with the settings of the run.

    Args:
        kind: makes the phase.
        context: has the run.
        buffer: training episodes.
        batch: batch size; by default 128.
        training: how to use the device; by default as the run.
        device: of the model; by default the CPU.
    """
    run, size = context.run, batch or context.size(128, 4)
    training = training or run.config.training
    sizes = {"batch_size": size, "updates": 1_000_000, "epochs": None}
    config = run.config.model_copy(
        update={
            "phase1": run.config.phase1.model_copy(update=sizes),
            "phase2": run.config.phase2.model_copy(update=sizes),
            "training": training,
        }
    )
    torch.manual_seed(0)
    model = WorldModel(run.model.spec).to(device or "cpu")
    return kind(model, cache_on_device(buffer, model, training.device_cache), config)


def updates(context: Context) -> Iterator[Row]:
    """Time updates of phase 1 and 2 on double pendulums, also from compressed frames."""
    buffers = pendulums(context, context.run.config.image_size)
    for name, kind in {"phase 1": jepa_phase, "phase 2": decoder_heads_phase}.items():
        phases = {form: new_phase(kind, context, buffer) for form, buffer in buffers.items()}
        functions: Functions = {form: phase.update for form, phase in phases.items()}
        for optimizer, title in ((False, "products"), (True, "all")):
            plain = new_phase(kind, context, buffers["none"])
            functions[title] = bare_products(plain, optimizer=optimizer)
        with tuned_cpu():
            times = context.measure(functions)
        size = phases["none"].settings.batch_size
        work = f"update of {name}, batch of {size}, {context.run.config.model.encoder} encoder"
        limit = "its convolutions and matrix products alone"
        yield duration("updates", work, times["none"], limit, times["products"])
        yield duration("updates", work, times["none"], f"{limit}, and Muon's", times["all"])
        compressed = times["lz4"], "uncompressed", times["none"]
        yield duration("updates", f"{work}, lz4", *compressed)


def train(context: Context) -> Iterator[Row]:
    """Time a whole run of the preset smoke, from an empty directory to the report."""
    folder, seconds = context.folder / "train", []
    for number in range(min(context.repeats, 3)):
        start = time.perf_counter()
        train_smoke(folder / f"{number}", folder / f"data_{number}")
        seconds.append(time.perf_counter() - start)
    yield duration(
        "train", "worldmodel train --preset smoke, data and evaluation included", seconds
    )
