"""The evaluation of a world model on held-out episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.collapse import collapse
from worldmodel.evaluation.forecast import (
    Errors,
    angle_report,
    at_reported_steps,
    finite_psnr,
    forecast_errors,
    forecast_states,
    forecast_windows,
    median_by_step,
)
from worldmodel.evaluation.heldout import require_disjoint
from worldmodel.evaluation.observations import all_times, encode_at, sample_times, states_at
from worldmodel.evaluation.privileged import train_privileged
from worldmodel.evaluation.probes import (
    MLPProbe,
    fit_linear_probe,
    fit_mlp_probe,
    score_probe,
)
from worldmodel.models import WorldModel

SCHEMA_VERSION = 1

_PROBE_OBSERVATIONS = 60_000


@dataclass(frozen=True)
class Probes:
    """Both probes, fitted on the same `observations` latents of training episodes."""

    linear: Pipeline
    mlp: MLPProbe
    observations: int


def missing_states(buffer: ReplayBuffer) -> str | None:
    """Why the figures that need the true state are left out for a buffer; None if they are not."""
    if buffer.state_dim == 0:
        return "the environment does not tell its true state"
    if buffer.state_dim != 4:
        return (
            f"the true state has {buffer.state_dim} numbers; "
            "probes read the double pendulum's [theta1, theta2, omega1, omega2]"
        )
    return None


def fit_probes(wm: WorldModel, train_buffer: ReplayBuffer, *, seed: int = 0) -> Probes:
    """Fit the probes on at most 60,000 observations of the training episodes.

    Args:
        wm: The world model.
        train_buffer: Training episodes, with states.
        seed: Of the choice of observations and of the MLP probe.
    """
    episodes, times = sample_times(train_buffer, wm.frame_stack, _PROBE_OBSERVATIONS, seed)
    latents = encode_at(wm, train_buffer, episodes, times)
    states = states_at(train_buffer, episodes, times)
    mlp = fit_mlp_probe(latents, states, seed=seed)
    return Probes(fit_linear_probe(latents, states), mlp, len(latents))


def evaluate(
    wm: WorldModel,
    train_buffer: ReplayBuffer,
    heldout: ReplayBuffer,
    *,
    dt: float,
    seed: int = 0,
    privileged_updates: int = 0,
    probes: Probes | None = None,
) -> dict[str, Any]:
    """Evaluate a world model on held-out episodes.

    Two calls with the same arguments on one machine give the same figures.

    Args:
        wm: The world model.
        train_buffer: The episodes it was trained on; probes are fitted here.
        heldout: Episodes it has not seen; every figure is taken here.
        dt: Seconds a step.
        seed: Of the probes and of the privileged reference.
        privileged_updates: Updates of the privileged reference; 0 leaves it out.
        probes: Probes already fitted by `fit_probes`; None fits them.

    Returns:
        A nested dict that `json.dumps(..., allow_nan=False)` takes. Angles in rad, velocities in
        rad/s, PSNR in dB (None if infinite); a k is a string. A part that cannot be had is
        `{"reason": why}`.

        - `schema_version` (1), `seed`, `dt_seconds`.
        - `data`: `train_episodes`, `heldout_episodes`, and `train_seeds` and `heldout_seeds`, each
          [least, greatest].
        - `collapse`, of the latents of all held-out observations: `observations`, `dimensions`,
          `std` (`min`, `median`, `max`, `per_dimension`), `effective_rank`, `rankme`.
        - `probes`: `train_observations`, `heldout_observations`, and `linear` and `mlp`, each with
          `r2`, `worst_r2`, `rmse`, `angle_rmse_rad` (see `score_probe`).
        - `forecast`: `angle`, with `error`, `median_by_step` and `horizon` (see `angle_report`),
          `persistence` and `persistence_by_step` likewise; and `frames`, with `psnr` (k -> dB)
          and `psnr_persistence` (k -> dB), both of the newest frame against the true frame at k.
        - `privileged`: `updates`, `error`, `median_by_step`, `horizon`.

    Raises:
        ValueError: If a held-out episode has the seed of a training episode, or a latent is not
            finite.
    """
    require_disjoint(train_buffer.seeds, heldout.seeds)
    reason = missing_states(train_buffer) or missing_states(heldout)
    probes = None if reason else probes or fit_probes(wm, train_buffer, seed=seed)
    episodes, times = all_times(heldout, wm.frame_stack)
    latents = encode_at(wm, heldout, episodes, times)
    errors = forecast_errors(wm, heldout, probes.mlp if probes else None)
    without = {"reason": reason}
    report = {
        "schema_version": SCHEMA_VERSION,
        "seed": seed,
        "dt_seconds": dt,
        "data": _data(train_buffer, heldout),
        "collapse": _collapse(latents),
        "probes": without,
        "forecast": _forecast(errors, dt, reason),
        "privileged": without,
    }
    if probes:
        states = states_at(heldout, episodes, times)
        report["probes"] = _probes(probes, latents, states)
        report["privileged"] = _privileged(
            wm, train_buffer, heldout, updates=privileged_updates, seed=seed, dt=dt
        )
    return report


def _data(train_buffer: ReplayBuffer, heldout: ReplayBuffer) -> dict[str, Any]:
    return {
        "train_episodes": train_buffer.num_episodes,
        "train_seeds": _range(train_buffer.seeds),
        "heldout_episodes": heldout.num_episodes,
        "heldout_seeds": _range(heldout.seeds),
    }


def _range(seeds: np.ndarray) -> list[int]:
    return [int(np.min(seeds)), int(np.max(seeds))]


def _collapse(latents: np.ndarray) -> dict[str, Any]:
    statistics = collapse(latents)
    std = statistics.std
    return {
        "observations": len(latents),
        "dimensions": len(std),
        "std": {
            "min": float(std.min()),
            "median": float(np.median(std)),
            "max": float(std.max()),
            "per_dimension": std.tolist(),
        },
        "effective_rank": statistics.effective_rank,
        "rankme": statistics.rankme,
    }


def _probes(probes: Probes, latents: np.ndarray, states: np.ndarray) -> dict[str, Any]:
    return {
        "train_observations": probes.observations,
        "heldout_observations": len(latents),
        "linear": score_probe(probes.linear.predict(latents), states),
        "mlp": score_probe(probes.mlp.predict(latents), states),
    }


def _forecast(errors: Errors, dt: float, reason: str | None) -> dict[str, Any]:
    angle: dict[str, Any] = {"reason": reason}
    if errors.angle is not None and errors.angle_persistence is not None:
        angle = angle_report(errors.angle, dt)
        angle["persistence"] = at_reported_steps(errors.angle_persistence)
        angle["persistence_by_step"] = median_by_step(errors.angle_persistence).tolist()
    frames: dict[str, Any] = {"reason": "the model has no decoder"}
    if errors.mse is not None and errors.mse_persistence is not None:
        frames = {
            "psnr": {str(k): finite_psnr(mse) for k, mse in errors.mse.items()},
            "psnr_persistence": {
                str(k): finite_psnr(mse) for k, mse in errors.mse_persistence.items()
            },
        }
    return {"angle": angle, "frames": frames}


def _privileged(
    wm: WorldModel,
    train_buffer: ReplayBuffer,
    heldout: ReplayBuffer,
    *,
    updates: int,
    seed: int,
    dt: float,
) -> dict[str, Any]:
    if updates == 0:
        return {"reason": "not asked for: no updates given"}
    model = train_privileged(
        train_buffer, action_vector=wm.action_vector, updates=updates, seed=seed
    )
    errors = []
    for episodes, windows in forecast_windows(wm, heldout):
        states = forecast_states(wm, heldout, episodes)
        errors.append(model.errors(states, windows.actions[:, wm.frame_stack - 1 :]))
    return {"updates": updates, **angle_report(np.concatenate(errors, axis=1), dt)}
