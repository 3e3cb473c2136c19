"""Updates on a GPU, or on the CPU without one, against the rate of the device's matrix products."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.sampling import pendulums
from benchmarks.speed.table import Context, Functions, Row, duration, rate
from benchmarks.speed.updates import new_phase
from worldmodel.hyperparameters import Training
from worldmodel.models import choose_device
from worldmodel.optim import Phase, tuned_cpu
from worldmodel.phases import decoder_heads_phase, jepa_phase

CPU = torch.device("cpu")
PLAIN = {"precision": "float32", "prefetch": False, "device_cache": False}
VARIANTS = {
    "read in the update": PLAIN,
    "prefetched": PLAIN | {"prefetch": True},
    "cached on the device": PLAIN | {"device_cache": True},
    "cached, bfloat16": PLAIN | {"device_cache": True, "precision": "bfloat16"},
    "cached, bfloat16, compiled": PLAIN
    | {"device_cache": True, "precision": "bfloat16", "compile": True},
}
"""Sections `training` of the configuration; the last one on CUDA only."""


def device(context: Context) -> Iterator[Row]:
    """Time updates of phase 1 and 2 in every variant, beside their products and the CPU."""
    where = choose_device("auto")
    rates = {dtype: matmul_rate(context, where, dtype) for dtype in ("float32", "bfloat16")}
    for dtype, (seconds, flops) in rates.items():
        yield rate("device", f"matrix products in {dtype}, {where}", seconds, flops, "FLOP/s")
    for name, kind in {"phase 1": jepa_phase, "phase 2": decoder_heads_phase}.items():
        yield from _phase(context, where, name, kind, rates)


def _phase(
    context: Context,
    where: torch.device,
    name: str,
    kind: Callable[..., Phase],
    rates: dict[str, tuple[list[float], float]],
) -> Iterator[Row]:
    buffer, count = pendulums(context, context.run.config.image_size)["none"], context.size(20, 1)
    variants = {key: Training(**values) for key, values in VARIANTS.items()}
    if where.type != "cuda":
        variants = {key: each for key, each in variants.items() if not each.compile}

    def make(training: Training, place: torch.device) -> Phase:
        return new_phase(kind, context, buffer, training=training, device=place)

    phases = {key: make(training, where) for key, training in variants.items()}
    functions: Functions = {key: block(phase, where, count) for key, phase in phases.items()}
    if where.type == "cuda":
        functions["cpu"] = block(make(Training(), CPU), CPU, 1)
    flops = count_flops(make(Training(**PLAIN), where))

    def seconds_per_flop(dtype: str) -> float:
        return statistics.median(rates[dtype][0]) / rates[dtype][1]

    with tuned_cpu():
        times = context.measure(functions)
    if where.type == "cuda":
        report_waits(phases)
    size = phases["prefetched"].settings.batch_size
    for key, training in variants.items():
        work = f"update of {name}, batch of {size}, {where}, {key}"
        mixed = training.precision == "bfloat16"  # some products stay in float32
        dtype = min(rates, key=seconds_per_flop) if mixed else "float32"
        peer = f"its {flops / 1e9:.3g} GFLOP at the rate of matrix products in {dtype}"
        bound = [count * flops * seconds_per_flop(dtype)] * len(times[key])
        yield duration("device", work, times[key], peer, bound, count)
        if "cpu" in times:
            slow = [count * each for each in times["cpu"]]
            yield duration("device", work, times[key], "the same on the CPU", slow, count)


def matmul_rate(context: Context, where: torch.device, dtype: str) -> tuple[list[float], float]:
    """Measure a product of two square matrices: seconds of each repeat, and its operations."""
    size = context.size(8192 if where.type == "cuda" else 1024, 64)
    a, b = (torch.randn(size, size, device=where, dtype=getattr(torch, dtype)) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        synchronize(where)

    return context.measure({"product": product}, 3)["product"], 2.0 * size**3


def count_flops(phase: Phase) -> float:
    """Count the operations of the convolutions and matrix products of an update."""
    with FlopCounterMode(display=False) as counter:
        phase.update()
    return float(counter.get_total_flops())


def block(phase: Phase, where: torch.device, count: int) -> Callable[[], None]:
    """Make a function that runs updates and waits for the last of them only."""

    def run() -> None:
        for _ in range(count):
            phase.update()
        synchronize(where)

    return run


def report_waits(phases: dict[str, Phase]) -> None:
    """Run an update of each phase while PyTorch warns of everything that waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        for phase in phases.values():
            phase.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def synchronize(where: torch.device) -> None:
    """Wait until a GPU has done everything."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)
