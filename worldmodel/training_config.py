"""Hyperparameters of the device: the section `training` of the configuration."""

from __future__ import annotations

from typing import Literal

from worldmodel.hyperparameters import Section

Precision = Literal["float32", "bfloat16"]

Switch = Literal["auto", True, False]


class TrainingConfig(Section):
    """How training uses its device. But for rounding, nothing here changes what is learned.

    Attributes:
        precision: of the networks: ``float32``, ``bfloat16`` (autocast), or ``auto``, which is
            ``bfloat16`` on CUDA devices that support it and ``float32`` elsewhere. Weights, losses,
            regularizers and the state of the optimizers are float32 in any case.
        compile: compile the networks with ``torch.compile``, on CUDA to CUDA graphs.
        prefetch: read the next batch in a background thread during an update; ``auto``: on CUDA.
        device_cache: copy all training frames to the device and gather batches there; ``auto``: on
            CUDA, if they take at most half of its free memory.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    prefetch: Switch = "auto"
    device_cache: Switch = "auto"
