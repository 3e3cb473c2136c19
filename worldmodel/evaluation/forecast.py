"""Open-loop forecasts from one observation, and how far they stay true.

Indices: in a window of L frames the observation at k = 0 ends at frame S-1, and the forecast for
step k is compared with frame S-1+k and its state. Action k-1 of the forecast is the window's
action S-2+k, which leads from frame S-2+k to frame S-1+k. K = L - S steps fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldmodel.data import ReplayBuffer, Windows
from worldmodel.evaluation.observations import observation_at
from worldmodel.evaluation.probes import MLPProbe, wrap
from worldmodel.evaluation.psnr import frame_mse, psnr
from worldmodel.models import WorldModel

STEPS = (0, 5, 10, 20, 30, 40, 60)
"""Steps at which forecasts are reported."""

THRESHOLD = 0.3
"""Median angle error in rad below which a forecast counts as true."""

_EPISODES_AT_ONCE = 32


def open_loop(wm: WorldModel, frames: np.ndarray, actions: np.ndarray) -> torch.Tensor:
    """Encode the first observation of each window and unroll to its end.

    Args:
        wm: The world model.
        frames: (B, L, *frame_shape); only the first S are looked at.
        actions: (B, L-1, A), or (B, L-1) if discrete, as recorded.

    Returns:
        float32 (K+1, B, D), K = L - S: the latents at k = 0 (encoded) to K.

    Raises:
        ValueError: If no step fits.
    """
    first = wm.frame_stack - 1
    if frames.shape[1] < first + 2:
        raise ValueError(
            f"windows have {frames.shape[1]} frames; a forecast with {wm.frame_stack} frames in an "
            f"observation needs at least {first + 2}"
        )
    z = wm.encode(observation_at(frames, first, wm.frame_stack))
    ahead = torch.as_tensor(actions[:, first:], device=wm.device).transpose(0, 1)
    return torch.cat([z[None], wm.rollout(z, ahead)])


def newest_frame(images: torch.Tensor | np.ndarray, channels: int) -> np.ndarray:
    """The newest frame of decoded stacks: uint8 (B, H, W, S*C) to uint8 array (B, H, W, C)."""
    return np.asarray(torch.as_tensor(images)[..., -channels:].cpu())


@dataclass(frozen=True)
class Errors:
    """Errors of the forecasts of E episodes at steps k = 0 to K.

    Attributes:
        angle: float64 (K+1, E, 2), |wrap(θ̂ - θ)| in rad of the forecast; π where it has diverged
            to NaN. None without a probe.
        angle_persistence: the same, of the true angles at k = 0 held.
        mse: step -> float64 (E,), squared error of the newest decoded frame against the true
            frame of that step. None without a decoder.
        mse_persistence: the same, of the true frame of k = 0 repeated.
    """

    angle: np.ndarray | None
    angle_persistence: np.ndarray | None
    mse: dict[int, np.ndarray] | None
    mse_persistence: dict[int, np.ndarray] | None


def window_length(wm: WorldModel, heldout: ReplayBuffer) -> int:
    """Frames in a forecast window: up to the last of `STEPS`, or the shortest episode."""
    return min(wm.frame_stack + STEPS[-1], int(np.min(heldout.lengths)))


def angle_errors(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """|wrap(predicted - true)| in rad of any shape, π where the prediction is NaN."""
    return np.nan_to_num(np.abs(wrap(predicted - true)), nan=np.pi)


def forecast_errors(wm: WorldModel, heldout: ReplayBuffer, probe: MLPProbe | None) -> Errors:
    """Forecast every held-out episode from its first observation.

    Args:
        wm: The world model.
        heldout: Held-out episodes.
        probe: Reads angles from latents; None leaves the angle errors out.
    """
    angle, persistence = [], []
    mse: dict[int, list[np.ndarray]] = {}
    mse_persistence: dict[int, list[np.ndarray]] = {}
    for episodes, windows in forecast_windows(wm, heldout):
        latents = open_loop(wm, windows.frames, windows.actions)
        if probe is not None:
            true = forecast_states(wm, heldout, episodes)[..., :2].swapaxes(0, 1)  # (K+1, B, 2)
            angle.append(angle_errors(probe.angles(latents.cpu().numpy()), true))
            persistence.append(angle_errors(true[:1], true))
        if wm.decoder is not None:
            for k, of_model, of_persistence in _frame_errors(wm, latents, windows.frames):
                mse.setdefault(k, []).append(of_model)
                mse_persistence.setdefault(k, []).append(of_persistence)
    return Errors(
        np.concatenate(angle, axis=1) if angle else None,
        np.concatenate(persistence, axis=1) if persistence else None,
        {k: np.concatenate(v) for k, v in mse.items()} or None,
        {k: np.concatenate(v) for k, v in mse_persistence.items()} or None,
    )


def forecast_windows(wm: WorldModel, heldout: ReplayBuffer) -> Iterator[tuple[np.ndarray, Windows]]:
    """The first window of every episode, some episodes (B,) at a time."""
    length = window_length(wm, heldout)
    for i in range(0, heldout.num_episodes, _EPISODES_AT_ONCE):
        episodes = np.arange(i, min(i + _EPISODES_AT_ONCE, heldout.num_episodes))
        yield episodes, heldout.windows(episodes, np.zeros_like(episodes), length)


def forecast_states(wm: WorldModel, heldout: ReplayBuffer, episodes: np.ndarray) -> np.ndarray:
    """True states at k = 0 to K of `forecast_windows`, float64 (B, K+1, 4)."""
    first = wm.frame_stack - 1
    length = window_length(wm, heldout) - first
    return heldout.states(episodes, np.full_like(episodes, first), length)


def _frame_errors(
    wm: WorldModel, latents: torch.Tensor, frames: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    first, channels = wm.frame_stack - 1, frames.shape[-1]
    for k in _reported_steps(len(latents) - 1):
        true = frames[:, first + k]
        decoded = newest_frame(wm.decode(latents[k]), channels)
        yield k, frame_mse(decoded, true), frame_mse(frames[:, first], true)


def _reported_steps(last: int) -> list[int]:
    return [k for k in STEPS if k <= last]


def at_reported_steps(angle: np.ndarray) -> dict[str, float]:
    """Medians of angle errors (K+1, E, 2) in rad at those of `STEPS` that there are."""
    median = median_by_step(angle)
    return {str(k): float(median[k]) for k in _reported_steps(len(median) - 1)}


def median_by_step(angle: np.ndarray) -> np.ndarray:
    """Median over episodes and both angles: float (K+1, E, 2) to float (K+1,), in rad."""
    return np.median(angle.reshape(len(angle), -1), axis=1)


def horizon(median: np.ndarray, threshold: float = THRESHOLD) -> int:
    """The largest k whose median, and that of every earlier step, is below the threshold.

    Args:
        median: float (K+1,), in rad, from `median_by_step`.
        threshold: In rad.

    Returns:
        Steps. 0 too if already the reading at k = 0 is not below the threshold; K, a lower bound,
        if all are.
    """
    above = np.flatnonzero(~(median < threshold))
    return len(median) - 1 if not len(above) else max(int(above[0]) - 1, 0)


def angle_report(angle: np.ndarray, dt: float) -> dict[str, Any]:
    """Summarise angle errors of any forecaster.

    Args:
        angle: float (K+1, E, 2), in rad.
        dt: Seconds a step.

    Returns:
        `error` (k as a string -> median over episodes and both angles, in rad, at `STEPS`),
        `median_by_step` (the same at every k from 0 to K) and `horizon`, with `steps`, `seconds`,
        `threshold_rad` and `lower_bound` (true if the forecast is still good at the last step).
    """
    median = median_by_step(angle)
    steps = horizon(median)
    return {
        "error": at_reported_steps(angle),
        "median_by_step": median.tolist(),
        "horizon": {
            "steps": steps,
            "seconds": steps * dt,
            "threshold_rad": THRESHOLD,
            "lower_bound": bool((median < THRESHOLD).all()),
        },
    }


def finite_psnr(mse: np.ndarray) -> float | None:
    """PSNR in dB, None where it is infinite, as JSON has no infinity."""
    value = psnr(mse)
    return value if np.isfinite(value) else None
