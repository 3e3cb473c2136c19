"""How networks run on a device in training: precision, compilation, copies without waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from worldmodel.errors import ConfigError
from worldmodel.hyperparameters import Precision, Training

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Accelerator:
    """The section `training` of the configuration, resolved for a device.

    Attributes:
        device: where the model is.
        precision: of convolutions and matrix products of the networks.
        compile: whether the networks are compiled.
        prefetch: whether the next batch is read in a background thread.
    """

    device: torch.device
    precision: Precision = "float32"
    compile: bool = False
    prefetch: bool = False

    @classmethod
    def of(cls, settings: Training, device: torch.device) -> Accelerator:
        """Resolve what is ``auto``.

        Args:
            settings: section `training` of the configuration.
            device: where the model is.
        """
        prefetch = settings.prefetch
        return cls(
            device,
            choose_precision(settings, device),
            settings.compile,
            device.type == "cuda" if prefetch == "auto" else prefetch,
        )

    def prepare(self, networks: Callable[[T], R]) -> Callable[[T], R]:
        """Make a function of tensors run in the precision, and compiled if that is configured.

        Compiling the function rather than the modules leaves the names of their weights alone. On
        CUDA its results are valid until the next call, since CUDA graphs reuse their memory.

        Args:
            networks: function of tensors that runs networks and nothing that draws random numbers.
        """
        if self.precision == "float32" and not self.compile:
            return networks
        graphs = self.compile and self.device.type == "cuda"
        call = networks
        if self.compile:
            mode = "reduce-overhead" if graphs else "default"
            call = torch.compile(networks, dynamic=False, mode=mode)

        def run(inputs: T) -> R:
            if graphs:
                torch.compiler.cudagraph_mark_step_begin()
            if self.precision == "float32":
                return call(inputs)
            with torch.autocast(self.device.type, torch.bfloat16):
                return call(inputs)

        return run


def choose_precision(settings: Training, device: torch.device) -> Precision:
    """Return `training.precision`, with ``auto`` resolved for a device.

    GPUs that only emulate bfloat16, which is slower than float32, train in float32.
    """
    if settings.precision != "auto":
        return settings.precision
    if device.type != "cuda":
        return "float32"
    with torch.cuda.device(device):
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if supported else "float32"


def check_compiler(settings: Training, device: torch.device) -> None:
    """Compile a small function, so that a missing compiler shows before data is collected.

    Raises:
        ConfigError: If `training.compile` is set and ``torch.compile`` does not work here.
    """
    if not settings.compile:
        return
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(8, device=device))
    except RuntimeError as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(
            f"training.compile is true, but torch.compile fails on {device} ({reason}); install a "
            "C++ compiler (on CUDA also Triton), or set training.compile=false"
        ) from error


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to CUDA through pinned memory, without waiting for the copy.

    PyTorch reuses pinned memory only after the copies from it are complete.

    Args:
        tensor: on the CPU.
        device: where it goes.
    """
    if device.type != "cuda":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)
