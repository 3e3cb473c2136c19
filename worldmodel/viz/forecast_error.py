"""The error of a forecast: of angles if a probe reads them from latents, else of latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worldmodel.evaluation.forecast import angle_errors
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.plugins import Readout
from worldmodel.run import Run


class ForecastError(Protocol):
    """Measures how far imagined latents are from the real ones."""

    @property
    def title(self) -> str:
        """What is measured, with its unit."""

    @property
    def high(self) -> float:
        """A large error, for the upper end of a scale."""

    def __call__(
        self, imagined: np.ndarray, real: np.ndarray, states: np.ndarray | None
    ) -> np.ndarray:
        """Measure the error at N steps.

        Args:
            imagined: float32 (N, D), imagined latents.
            real: float32 (N, D), latents of the real observations.
            states: float64 (N, d), true states; None if the environment does not report them.

        Returns:
            float (N,).
        """


class AngleError:
    """The mean absolute error of the angles that a probe reads: a `ForecastError` in rad.

    Args:
        probe: probe that reads the targets of the readout from latents.
        readout: readout that converts targets and true states to angles.
    """

    title: str = "angle error, rad"
    high: float = float(np.pi)

    def __init__(self, probe: MLPProbe, readout: Readout) -> None:
        self.probe, self.readout = probe, readout

    def per_angle(self, imagined: np.ndarray, states: np.ndarray) -> np.ndarray:
        """Measure absolute errors (N, P) of all angles in rad; π where a latent is not finite."""
        angles = self.readout.angles(self.probe.predict(imagined))
        return angle_errors(angles, self.readout.true_angles(states))

    def __call__(
        self, imagined: np.ndarray, real: np.ndarray, states: np.ndarray | None
    ) -> np.ndarray:
        """Measure the error, see `ForecastError`.

        Raises:
            ValueError: If there are no true states.
        """
        if states is None:
            raise ValueError("angle errors need true states, and the environment gave none")
        mean: np.ndarray = self.per_angle(imagined, states).mean(axis=-1)
        return mean


@dataclass(frozen=True)
class LatentError:
    """The distance of latents, where 1 is that of unrelated ones: a `ForecastError`.

    Attributes:
        unrelated: mean distance of unrelated latents.
    """

    unrelated: float
    title: str = "latent error, 1 = unrelated"
    high: float = 1.5

    @classmethod
    def of(cls, latents: np.ndarray) -> LatentError:
        """Take the mean distance of neighbours among latents (M, D) in random order."""
        distances = np.linalg.norm(latents - np.roll(latents, 1, axis=0), axis=-1)
        return cls(float(distances.mean()))

    def __call__(
        self, imagined: np.ndarray, real: np.ndarray, states: np.ndarray | None
    ) -> np.ndarray:
        """Measure the error, see `ForecastError`."""
        distances: np.ndarray = np.linalg.norm(imagined - real, axis=-1)
        return distances / self.unrelated


def forecast_error(run: Run, states: np.ndarray | None) -> ForecastError:
    """Choose the error of a run's forecasts: of angles if its probe reads them, else of latents.

    Args:
        run: a finished run.
        states: float64 (..., d), true states; None if the environment does not report them.
    """
    if run.probe is not None and states is not None:
        return AngleError(run.probe, run.readout(states.shape[-1]))
    return LatentError.of(run.starts.cpu().numpy())
