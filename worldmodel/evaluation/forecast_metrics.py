"""The part of the metrics about the learned dynamics: forecasts, actions, energy and chaos.

The conventions are those of `worldmodel.evaluation.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

Interval = tuple[float, float]
ByStep = dict[str, float]
"""Step k as a string -> value."""
ByStepOrNone = dict[str, float | None]
"""The same; None where there is no finite number."""
IntervalOrNone = tuple[float | None, float | None]


class Strict:
    """Unknown keys are rejected on reading."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Horizon(Strict):
    """How long a forecast stays accurate.

    Attributes:
        steps: last step before the median error first reaches the threshold.
        interval_steps: interval of `steps`.
        seconds: `steps` in simulated time.
        lyapunov_times: `seconds` in Lyapunov times; None if those are unknown.
        threshold_rad: median error that counts as inaccurate.
        lower_bound: whether the forecast is still accurate at the last step measured.
    """

    steps: int
    interval_steps: Interval
    seconds: float
    lyapunov_times: float | None
    threshold_rad: float
    lower_bound: bool


@dataclass(frozen=True)
class AngleErrorSummary(Strict):
    """Median angle error of a forecast, in rad.

    Attributes:
        error: k -> median error, at the reported steps.
        interval: k -> interval of the median.
        median_by_step: median error at every step k = 0 to K.
        interval_by_step: interval at every step.
        horizon: how long the forecast stays accurate.
    """

    error: ByStep
    interval: dict[str, Interval]
    median_by_step: list[float]
    interval_by_step: list[Interval]
    horizon: Horizon


@dataclass(frozen=True)
class AngleForecast(AngleErrorSummary):
    """Median angle error of the open-loop forecast beside two baselines, in rad.

    Attributes:
        persistence: k -> median error if the angles of k = 0 are kept.
        persistence_by_step: `persistence` at every step.
        constant_velocity: k -> median error if the angles are extrapolated from the two newest
            frames of the observation; None if an observation is one frame.
        constant_velocity_by_step: `constant_velocity` at every step.
    """

    persistence: ByStep
    persistence_by_step: list[float]
    constant_velocity: ByStep | None
    constant_velocity_by_step: list[float] | None


@dataclass(frozen=True)
class ReferenceForecast(AngleErrorSummary):
    """Median angle error of the reference model that is trained on the true state, in rad.

    Attributes:
        updates: number of updates of its weights.
    """

    updates: int


@dataclass(frozen=True)
class FrameForecast(Strict):
    """Newest decoded frame of the forecast against the true frame, k -> value.

    Attributes:
        psnr: PSNR in dB of the squared error pooled over episodes; None if all frames are exact.
        psnr_interval: interval of `psnr`.
        psnr_persistence: PSNR in dB of the true frame of k = 0.
        psnr_mean_frame: PSNR in dB of the mean training frame against the true frames of k = 0.
        ssim: mean structural similarity, at most 1.
        ssim_persistence: mean structural similarity of the true frame of k = 0.
    """

    psnr: ByStepOrNone
    psnr_interval: dict[str, IntervalOrNone]
    psnr_persistence: ByStepOrNone
    psnr_mean_frame: float | None
    ssim: ByStep
    ssim_persistence: ByStep


@dataclass(frozen=True)
class LatentForecast(Strict):
    """Squared distance to the latent of the true observation over the latents' total variance.

    Attributes:
        error: k -> error of the forecast; None where it diverged or the latent never changes.
        persistence: k -> error of the latent of k = 0.
    """

    error: ByStepOrNone
    persistence: ByStepOrNone


@dataclass(frozen=True)
class ForecastMetrics(Strict):
    """Open-loop forecasts from one observation.

    Attributes:
        angle: errors of the angles of the true state; None if the readout has no angles.
        frames: quality of decoded frames; None if the model has no decoder.
        latent: errors in latent space.
    """

    angle: AngleForecast | None
    frames: FrameForecast | None
    latent: LatentForecast


@dataclass(frozen=True)
class LyapunovMetrics(Strict):
    """Largest Lyapunov exponent of the true system, from held-out first states.

    Attributes:
        exponent_per_second: mean over trajectories.
        standard_error: standard error of the mean.
        time_seconds: Lyapunov time, the inverse of the exponent; None if it is not positive.
        trajectories: number of trajectories.
        seconds: simulated seconds over which each trajectory was measured.
    """

    exponent_per_second: float
    standard_error: float
    time_seconds: float | None
    trajectories: int
    seconds: float


@dataclass(frozen=True)
class ActionErrors(Strict):
    """Forecast errors under different actions, k -> error.

    Attributes:
        true: errors under the recorded actions.
        midpoint: errors under the middle of the action bounds; None for discrete actions.
        shuffled: errors under the actions of another episode.
    """

    true: ByStepOrNone
    midpoint: ByStepOrNone | None
    shuffled: ByStepOrNone


ACTION_LABELS = {
    "true": "recorded actions",
    "midpoint": "middle of the action range",
    "shuffled": "actions of another episode",
}
"""Fields of `ActionErrors` -> what the table and the report call them."""


@dataclass(frozen=True)
class ActionMetrics(Strict):
    """Whether actions affect the forecast, on episodes under random actions.

    Attributes:
        episodes: number of episodes.
        varied_in_training: whether the training data holds more than one action.
        angle: median angle error in rad; None if the readout has no angles.
        latent: latent error, see `LatentForecast.error`.
    """

    episodes: int
    varied_in_training: bool
    angle: ActionErrors | None
    latent: ActionErrors


@dataclass(frozen=True)
class EnergyMetrics(Strict):
    """Energy along imagined trajectories under passive actions, read from the latents by the MLP.

    Attributes:
        unit: unit of all values, ``J``.
        true_std: standard deviation of the true energy over episodes at k = 0.
        readout_rmse: root mean squared error of the energy read at k = 0.
        drift: k -> median over episodes of the energy read at k minus the true one; None where
            the imagined trajectories diverged.
        drift_interval: k -> interval of the median.
        drift_by_step: `drift` at every step.
        abs_drift_by_step: median of the absolute difference at every step.
    """

    unit: str
    true_std: float
    readout_rmse: float
    drift: ByStepOrNone
    drift_interval: dict[str, IntervalOrNone]
    drift_by_step: list[float | None]
    abs_drift_by_step: list[float | None]
