"""Open-loop forecasts from one observation, and their errors step by step.

Indices: in a window of L frames the observation at k = 0 ends at frame S-1, and the forecast for
step k is compared with frame S-1+k and its state. Action k-1 of the forecast is the window's
action S-2+k, which leads from frame S-2+k to frame S-1+k. K = L - S steps fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.images import frame_mse, ssim
from worldmodel.evaluation.observations import encode_at, observation_at
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.evaluation.targets import wrap
from worldmodel.models import WorldModel

STEPS = (0, 5, 10, 20, 30, 40, 60)
"""Steps at which forecasts are reported."""


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
    return unroll(wm, z, actions[:, first:])


def unroll(wm: WorldModel, z: torch.Tensor, actions: np.ndarray) -> torch.Tensor:
    """Open loop from latents (B, D) by actions (B, K, ...): (K+1, B, D), the first is `z`."""
    ahead = torch.as_tensor(actions, device=wm.device).transpose(0, 1)
    return torch.cat([z[None], wm.rollout(z, ahead)])


def newest_frame(images: torch.Tensor | np.ndarray, channels: int) -> np.ndarray:
    """The newest frame of decoded stacks: uint8 (B, H, W, S*C) to uint8 array (B, H, W, C)."""
    return np.asarray(torch.as_tensor(images)[..., -channels:].cpu())


def forecastable(wm: WorldModel, heldout: ReplayBuffer) -> np.ndarray:
    """Episodes that have a step to forecast, int (E,): all functions here leave out the others.

    Raises:
        ValueError: There is none.
    """
    needed = wm.frame_stack + 1
    episodes = heldout.episodes_of_at_least(needed)
    if not len(episodes):
        raise ValueError(
            f"the longest of {heldout.num_episodes} episodes has {np.max(heldout.lengths)} frames; "
            f"a forecast with {wm.frame_stack} frames in an observation needs at least {needed}"
        )
    return episodes


def window_length(wm: WorldModel, heldout: ReplayBuffer) -> int:
    """Frames in a forecast window: up to the last of `STEPS`, or the shortest episode."""
    shortest = np.min(heldout.lengths[forecastable(wm, heldout)])
    return min(wm.frame_stack + STEPS[-1], int(shortest))


def recorded_actions(wm: WorldModel, heldout: ReplayBuffer) -> np.ndarray:
    """The actions under which every episode is forecast, (E, K, A), or (E, K) if discrete."""
    every = forecastable(wm, heldout)
    actions = heldout.actions(every, np.zeros_like(every), window_length(wm, heldout))
    return actions[:, wm.frame_stack - 1 :]


def true_states(wm: WorldModel, heldout: ReplayBuffer, k: int = 0) -> np.ndarray:
    """True states of every episode from step `k` (negative: before) to K, float64 (E, K+1-k, 4)."""
    episodes = forecastable(wm, heldout)
    start = wm.frame_stack - 1 + k
    return heldout.states(
        episodes, np.full_like(episodes, start), window_length(wm, heldout) - start
    )


def angle_errors(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """|wrap(predicted - true)| in rad of any shape, π where the prediction is NaN."""
    return np.nan_to_num(np.abs(wrap(predicted - true)), nan=np.pi)


def forecast_latents(
    wm: WorldModel, heldout: ReplayBuffer, actions: np.ndarray | None = None
) -> torch.Tensor:
    """Forecast every episode from its first observation.

    Args:
        wm: The world model.
        heldout: Held-out episodes.
        actions: (E, K, A), or (E, K) if discrete; None takes those recorded.

    Returns:
        float32 (K+1, E, D), on the model's device.
    """
    if actions is None:
        actions = recorded_actions(wm, heldout)
    every = forecastable(wm, heldout)
    z = encode_at(wm, heldout, every, np.full_like(every, wm.frame_stack - 1))
    return unroll(wm, torch.as_tensor(z, device=wm.device), actions)


@dataclass(frozen=True)
class AngleErrors:
    """Angle errors of E episodes at k = 0 to K, each float64 (K+1, E, 2), in rad.

    Attributes:
        forecast: |wrap(θ̂ - θ)| of the forecast; π where it has diverged to NaN.
        persistence: of the true angles at k = 0 held.
        constant_velocity: of the angles extrapolated from the two newest frames of the
            observation; None if an observation has one frame.
    """

    forecast: np.ndarray
    persistence: np.ndarray
    constant_velocity: np.ndarray | None


def angle_errors_by_step(
    wm: WorldModel, heldout: ReplayBuffer, latents: torch.Tensor, probe: MLPProbe
) -> AngleErrors:
    """Hold forecasts (K+1, E, D) to the true angles, read by `probe`."""
    true = true_states(wm, heldout)[..., :2].swapaxes(0, 1)  # (K+1, E, 2)
    extrapolated = None
    if wm.frame_stack > 1:
        before = true_states(wm, heldout, -1)[:, 0, :2]
        steps = np.arange(len(true))[:, None, None]
        extrapolated = angle_errors(true[0] + steps * wrap(true[0] - before), true)
    return AngleErrors(
        forecast=angle_errors(probe.angles(latents.cpu().numpy()), true),
        persistence=angle_errors(true[:1], true),
        constant_velocity=extrapolated,
    )


@dataclass(frozen=True)
class FrameErrors:
    """Errors of E newest decoded frames against the true ones of step k, each k -> float64 (E,).

    Attributes:
        mse: squared error in squared grey levels.
        ssim: structural similarity.
        mse_persistence: of the true frame of k = 0 repeated.
        ssim_persistence: likewise.
    """

    mse: dict[int, np.ndarray]
    ssim: dict[int, np.ndarray]
    mse_persistence: dict[int, np.ndarray]
    ssim_persistence: dict[int, np.ndarray]


def frame_errors(wm: WorldModel, heldout: ReplayBuffer, latents: torch.Tensor) -> FrameErrors:
    """Hold decoded forecasts (K+1, E, D) to the true frames, at the reported steps."""
    start = _frames_at(wm, heldout, 0)
    errors = FrameErrors({}, {}, {}, {})
    for k in reported_steps(len(latents) - 1):
        true = _frames_at(wm, heldout, k)
        decoded = newest_frame(wm.decode(latents[k]), true.shape[-1])
        errors.mse[k], errors.ssim[k] = frame_mse(decoded, true), ssim(decoded, true)
        errors.mse_persistence[k] = frame_mse(start, true)
        errors.ssim_persistence[k] = ssim(start, true)
    return errors


def _frames_at(wm: WorldModel, heldout: ReplayBuffer, k: int) -> np.ndarray:
    episodes = forecastable(wm, heldout)
    return heldout.windows(episodes, np.full_like(episodes, wm.frame_stack - 1 + k), 1).frames[:, 0]


def latent_errors(wm: WorldModel, heldout: ReplayBuffer, latents: torch.Tensor) -> dict[str, Any]:
    """How far forecasts are from the latents of what came, in shares of the latent's variance.

    Args:
        wm: The world model.
        heldout: The episodes that were forecast.
        latents: float32 (K+1, E, D), from `forecast_latents`.

    Returns:
        `error` and `persistence` (the latent of k = 0 repeated): k as a string -> mean squared
        distance to the encoding of the true observation, over the total variance of those.
    """
    episodes = forecastable(wm, heldout)
    forecast = latents.cpu().numpy()
    steps = reported_steps(len(latents) - 1)
    error, persistence, spread = {}, {}, []
    for k in steps:
        true = encode_at(wm, heldout, episodes, np.full_like(episodes, wm.frame_stack - 1 + k))
        error[k] = _mean_square(forecast[k] - true)
        persistence[k] = _mean_square(forecast[0] - true)
        spread.append(true)
    variance = float(np.concatenate(spread).astype(np.float64).var(axis=0).sum())
    return {
        "error": {str(k): _share(error[k], variance) for k in steps},
        "persistence": {str(k): _share(persistence[k], variance) for k in steps},
    }


def _mean_square(difference: np.ndarray) -> float:
    return float(np.mean(np.sum(difference.astype(np.float64) ** 2, axis=-1)))


def _share(value: float, variance: float) -> float | None:
    """None where JSON has no number: a diverged forecast, or a latent that never changes."""
    share = value / variance if variance > 0.0 else float("inf")
    return share if np.isfinite(share) else None


def reported_steps(last: int) -> list[int]:
    """Those of `STEPS` up to `last`."""
    return [k for k in STEPS if k <= last]
