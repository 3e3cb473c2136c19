"""The figures of one trained model on validation episodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation import choose_readout, collapse, fit_probes, pendulum_task
from worldmodel.evaluation.forecast import angle_errors_by_step, forecast_latents, latent_errors
from worldmodel.evaluation.observations import all_times, encode_at, states_at
from worldmodel.evaluation.scores import score_probe
from worldmodel.evaluation.summaries import median_by_step
from worldmodel.models import WorldModel

STEPS = (0, 5, 10, 20, 30, 40)


def judge(
    model: WorldModel, train_buffer: ReplayBuffer, validation: ReplayBuffer
) -> dict[str, Any]:
    """Forecast errors, probes and collapse of a model.

    Returns:
        `error` (k -> median angle error in rad), `error_by_step`, `linear` and `mlp` (target ->
        R²), `worst_linear`, `worst_mlp`, `angle_r2` and `omega_r2` (worst of the MLP probe),
        `effective_rank`, `std`, and `latent_error` at k = 5 over persistence, None if nothing
        changes.
    """
    readout = choose_readout(pendulum_task("DoublePendulumPixels-v0"), train_buffer.state_dim)
    probes = fit_probes(model, train_buffer, readout)
    episodes, times = all_times(validation, model.frame_stack)
    latents = encode_at(model, validation, episodes, times)
    states = states_at(validation, episodes, times)
    linear, mlp = (
        score_probe(readout, probe.predict(latents), states, episodes)
        for probe in (probes.linear, probes.mlp)
    )
    forecast = forecast_latents(model, validation)
    angles = median_by_step(angle_errors_by_step(model, validation, forecast, probes.mlp).forecast)
    moved = latent_errors(model, validation, forecast)
    statistics = collapse(latents)
    return {
        "error": {str(k): float(angles[k]) for k in STEPS},
        "error_by_step": np.round(angles, 4).tolist(),
        "linear": linear["r2"],
        "mlp": mlp["r2"],
        "worst_linear": linear["worst_r2"],
        "worst_mlp": mlp["worst_r2"],
        "angle_r2": min(value for name, value in mlp["r2"].items() if "theta" in name),
        "omega_r2": min(mlp["r2"]["omega1"], mlp["r2"]["omega2"]),
        "effective_rank": statistics.effective_rank,
        "std": float(statistics.std.mean()),
        "latent_error": _ratio(moved["error"]["5"], moved["persistence"]["5"]),
    }


def _ratio(error: float | None, persistence: float | None) -> float | None:
    return None if error is None or not persistence else error / persistence
