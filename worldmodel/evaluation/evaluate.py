"""The evaluation of a world model on held-out episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.ablation import action_report, holds_several_actions
from worldmodel.evaluation.collapse import collapse
from worldmodel.evaluation.energy import energy_report
from worldmodel.evaluation.forecast import (
    angle_errors_by_step,
    forecast_latents,
    frame_errors,
    latent_errors,
    recorded_actions,
    true_states,
)
from worldmodel.evaluation.heldout import require_disjoint
from worldmodel.evaluation.lyapunov import lyapunov_report
from worldmodel.evaluation.observations import all_times, encode_at, sample_times, states_at
from worldmodel.evaluation.privileged import train_privileged
from worldmodel.evaluation.probes import (
    MLPProbe,
    fit_linear_probe,
    fit_mlp_probe,
    score_probe,
)
from worldmodel.evaluation.statistics import CONFIDENCE, METHOD, RESAMPLES
from worldmodel.evaluation.summaries import angle_forecast_report, angle_report, frame_report
from worldmodel.models import WorldModel

if TYPE_CHECKING:
    from worldmodel.envs.task import Task

SCHEMA_VERSION = 2

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


@dataclass(frozen=True)
class HeldOut:
    """Episodes that no training has seen.

    Attributes:
        main: collected as the training data was; most figures are taken here.
        passive: without torque, for the energy of dreams; may be `main`. None if not collected.
        driven: under random actions, to see whether actions steer; may be `main`. None likewise.
    """

    main: ReplayBuffer
    passive: ReplayBuffer | None = None
    driven: ReplayBuffer | None = None


def evaluate(
    wm: WorldModel,
    train_buffer: ReplayBuffer,
    heldout: HeldOut,
    *,
    dt: float,
    task: Task | None = None,
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
        task: The true system, for its Lyapunov time and its energy; None leaves them out.
        seed: Of the probes and of the privileged reference.
        privileged_updates: Updates of the privileged reference; 0 leaves it out.
        probes: Probes already fitted by `fit_probes`; None fits them.

    Returns:
        A nested dict that `json.dumps(..., allow_nan=False)` takes, described key by key in
        docs/metrics.md. A part that cannot be had is `{"reason": why}`.

    Raises:
        ValueError: If a held-out episode has the seed of a training episode, or a latent is not
            finite.
    """
    require_disjoint(train_buffer.seeds, heldout.main.seeds)
    reason = missing_states(train_buffer) or missing_states(heldout.main)
    probes = None if reason else probes or fit_probes(wm, train_buffer, seed=seed)
    episodes, times = all_times(heldout.main, wm.frame_stack)
    latents = encode_at(wm, heldout.main, episodes, times)
    lyapunov = _lyapunov(wm, heldout.main, task, reason)
    without: dict[str, Any] = {"reason": reason}
    report = {
        "schema_version": SCHEMA_VERSION,
        "seed": seed,
        "dt_seconds": dt,
        "data": _data(train_buffer, heldout.main),
        "statistics": {"method": METHOD, "confidence": CONFIDENCE, "resamples": RESAMPLES},
        "collapse": _collapse(latents),
        "probes": without,
        "forecast": _forecast(wm, heldout.main, probes, dt, lyapunov, reason),
        "privileged": without,
        "lyapunov": lyapunov,
        "actions": _actions(wm, train_buffer, heldout.driven, probes, reason),
        "energy": _energy(wm, heldout.passive, probes, task, reason),
    }
    if probes:
        report["probes"] = _probes(probes, latents, states_at(heldout.main, episodes, times))
        report["privileged"] = _privileged(
            wm, train_buffer, heldout.main, privileged_updates, seed, dt, lyapunov
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
        "spectrum": statistics.spectrum.tolist(),
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


def _lyapunov(
    wm: WorldModel, heldout: ReplayBuffer, task: Task | None, reason: str | None
) -> dict[str, Any]:
    if task is None or reason:
        return {"reason": reason or "the physics of this environment is not known here"}
    still = np.zeros((1, 2))
    return lyapunov_report(
        lambda states: task.advance(states, np.repeat(still, len(states), axis=0))[0],
        true_states(wm, heldout)[:, 0],
        task.dt,
    )


def _forecast(
    wm: WorldModel,
    heldout: ReplayBuffer,
    probes: Probes | None,
    dt: float,
    lyapunov: dict[str, Any],
    reason: str | None,
) -> dict[str, Any]:
    latents = forecast_latents(wm, heldout)
    angle: dict[str, Any] = {"reason": reason}
    if probes is not None:
        errors = angle_errors_by_step(wm, heldout, latents, probes.mlp)
        angle = angle_forecast_report(errors, dt, lyapunov.get("time_seconds"))
    frames: dict[str, Any] = {"reason": "the model has no decoder"}
    if wm.decoder is not None:
        frames = frame_report(frame_errors(wm, heldout, latents))
    return {"angle": angle, "frames": frames, "latent": latent_errors(wm, heldout, latents)}


def _privileged(
    wm: WorldModel,
    train_buffer: ReplayBuffer,
    heldout: ReplayBuffer,
    updates: int,
    seed: int,
    dt: float,
    lyapunov: dict[str, Any],
) -> dict[str, Any]:
    if updates == 0:
        return {"reason": "not asked for: no updates given"}
    model = train_privileged(
        train_buffer, action_vector=wm.action_vector, updates=updates, seed=seed
    )
    errors = model.errors(true_states(wm, heldout), recorded_actions(wm, heldout))
    return {"updates": updates, **angle_report(errors, dt, lyapunov.get("time_seconds"))}


def _actions(
    wm: WorldModel,
    train_buffer: ReplayBuffer,
    driven: ReplayBuffer | None,
    probes: Probes | None,
    reason: str | None,
) -> dict[str, Any]:
    if driven is None:
        return {"reason": "no driven episodes were given"}
    return action_report(
        wm,
        driven,
        probes.mlp if probes else None,
        reason=reason,
        trained_on=holds_several_actions(train_buffer),
    )


def _energy(
    wm: WorldModel,
    passive: ReplayBuffer | None,
    probes: Probes | None,
    task: Task | None,
    reason: str | None,
) -> dict[str, Any]:
    if task is None or probes is None:
        return {"reason": reason or "the energy of this environment is not known here"}
    if passive is None:
        return {"reason": "no passive episodes were given"}
    return energy_report(wm, passive, probes.mlp, task.energy)
