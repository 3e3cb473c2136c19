"""How far a dream is from reality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worldmodel.evaluation.forecast import angle_errors
from worldmodel.evaluation.probes import MLPProbe


class Meter(Protocol):
    """Measures the distance of dreams from reality.

    Attributes:
        title: What is measured, with its unit.
        full: The value at the upper end of the scale.
    """

    @property
    def title(self) -> str: ...

    @property
    def full(self) -> float: ...

    def __call__(
        self, dreamt: np.ndarray, real: np.ndarray, states: np.ndarray | None
    ) -> np.ndarray:
        """Errors of dreamt latents (K, D), beside the real ones and true states (K, 4): (K,)."""


@dataclass(frozen=True)
class AngleMeter:
    """The mean error of both angles in rad, read by a probe."""

    probe: MLPProbe
    title = "angle error, rad"
    full = float(np.pi)

    def __call__(
        self, dreamt: np.ndarray, real: np.ndarray, states: np.ndarray | None
    ) -> np.ndarray:
        """See `Meter`."""
        if states is None:
            raise ValueError("angles are held to the true states, and there are none")
        return angle_errors(self.probe.angles(dreamt), states[:, :2]).mean(-1)


@dataclass(frozen=True)
class LatentMeter:
    """The distance of latents, 1 being that of unrelated ones."""

    unrelated: float
    title = "latent error, 1 = unrelated"
    full = 1.5

    def __call__(
        self, dreamt: np.ndarray, real: np.ndarray, states: np.ndarray | None
    ) -> np.ndarray:
        """See `Meter`."""
        return np.linalg.norm(dreamt - real, axis=-1) / self.unrelated


def choose_meter(probe: MLPProbe | None, starts: np.ndarray) -> Meter:
    """Angles if a probe reads them, else latents, scaled by random ones, float32 (M, D)."""
    if probe is not None:
        return AngleMeter(probe)
    return LatentMeter(float(np.linalg.norm(starts - np.roll(starts, 1, 0), axis=-1).mean()))
