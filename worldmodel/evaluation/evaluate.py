"""The evaluation of a world model on held-out episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
from worldmodel.evaluation.heads import head_report
from worldmodel.evaluation.heldout import require_disjoint
from worldmodel.evaluation.lyapunov import lyapunov_report
from worldmodel.evaluation.observations import all_times, encode_at
from worldmodel.evaluation.privileged import train_privileged
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.evaluation.probing import (
    Probes,
    fit_probes,
    missing_angles,
    missing_states,
    probe_report,
)
from worldmodel.evaluation.statistics import CONFIDENCE, METHOD, RESAMPLES
from worldmodel.evaluation.summaries import angle_forecast_report, angle_report, frame_report
from worldmodel.evaluation.targets import choose_readout
from worldmodel.models import WorldModel

if TYPE_CHECKING:
    from worldmodel.envs.task import Task

SCHEMA_VERSION = 2


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
        task: The double pendulum's physics; None for another environment, of which only the
            numbers of its state are probed.
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
    main = heldout.main
    readout = probes.readout if probes else choose_readout(task, train_buffer.state_dim)
    blind, unread = missing_states(main), missing_angles(main, readout)
    if blind is None and probes is None:
        probes = fit_probes(wm, train_buffer, readout, seed=seed)
    angle_probe = probes.mlp if probes and unread is None else None
    lyapunov = _lyapunov(wm, main, task, unread)
    episodes, times = all_times(main, wm.frame_stack)
    latents = encode_at(wm, main, episodes, times)
    return {
        "schema_version": SCHEMA_VERSION,
        "seed": seed,
        "dt_seconds": dt,
        "data": _data(train_buffer, main),
        "statistics": {"method": METHOD, "confidence": CONFIDENCE, "resamples": RESAMPLES},
        "collapse": _collapse(latents),
        "probes": {"reason": blind}
        if probes is None
        else probe_report(wm, probes, train_buffer, main, latents, episodes, times, seed=seed),
        "forecast": _forecast(wm, main, angle_probe, dt, lyapunov, unread),
        "privileged": {"reason": unread}
        if unread
        else _privileged(wm, train_buffer, main, privileged_updates, seed, dt, lyapunov),
        "lyapunov": lyapunov,
        "actions": _actions(wm, train_buffer, heldout.driven, angle_probe, unread),
        "energy": _energy(wm, heldout.passive, angle_probe, task, unread),
        "heads": head_report(wm, main, latents, episodes, times),
    }


def _data(train_buffer: ReplayBuffer, heldout: ReplayBuffer) -> dict[str, Any]:
    return {
        "train_episodes": train_buffer.num_episodes,
        "train_steps": train_buffer.num_transitions,
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


def _lyapunov(
    wm: WorldModel, heldout: ReplayBuffer, task: Task | None, unread: str | None
) -> dict[str, Any]:
    if task is None or unread:
        return {"reason": unread}
    still = np.zeros((1, 2))
    return lyapunov_report(
        lambda states: task.advance(states, np.repeat(still, len(states), axis=0))[0],
        true_states(wm, heldout)[:, 0],
        task.dt,
    )


def _forecast(
    wm: WorldModel,
    heldout: ReplayBuffer,
    probe: MLPProbe | None,
    dt: float,
    lyapunov: dict[str, Any],
    unread: str | None,
) -> dict[str, Any]:
    latents = forecast_latents(wm, heldout)
    angle: dict[str, Any] = {"reason": unread}
    if probe is not None:
        errors = angle_errors_by_step(wm, heldout, latents, probe)
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
    probe: MLPProbe | None,
    unread: str | None,
) -> dict[str, Any]:
    if driven is None:
        return {"reason": "no driven episodes were given"}
    return action_report(
        wm, driven, probe, reason=unread, trained_on=holds_several_actions(train_buffer)
    )


def _energy(
    wm: WorldModel,
    passive: ReplayBuffer | None,
    probe: MLPProbe | None,
    task: Task | None,
    unread: str | None,
) -> dict[str, Any]:
    if task is None or probe is None:
        return {"reason": unread}
    if passive is None:
        return {"reason": "no passive episodes were given"}
    return energy_report(wm, passive, probe, task.energy)
