"""Schedules of the learning rate and of the target encoder's momentum."""

from __future__ import annotations

import math

import torch


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end` as `progress` goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def learning_rate(step: int, total: int, peak: float, warmup: int, final: float) -> float:
    """Linear warm-up to `peak` over `warmup` steps, then a cosine down to ``final * peak``.

    A warm-up longer than a tenth of the run is shortened to that.
    """
    warmup = min(warmup, total // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine(peak, final * peak, (step - warmup) / max(total - warmup, 1))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = value
