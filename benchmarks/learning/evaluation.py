"""Evaluation of a model on validation episodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldmodel.config import Config
from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.collapse import collapse
from worldmodel.evaluation.forecast import ForecastEpisodes, angle_errors_by_step, latent_forecast
from worldmodel.evaluation.intervals import median_by_step
from worldmodel.evaluation.probes import fit_probes, states_at
from worldmodel.evaluation.scores import score_probe
from worldmodel.latents import encode_at
from worldmodel.models import WorldModel
from worldmodel.plugins import find_plugin

STEPS = (0, 5, 10, 20, 30, 40)


def evaluate_model(
    model: WorldModel, train_buffer: ReplayBuffer, validation: ReplayBuffer, config: Config
) -> dict[str, Any]:
    """Measure forecast errors, probe scores and collapse of a model.

    Args:
        model: The model, in evaluation mode.
        train_buffer: Training episodes, for the probes.
        validation: Validation episodes.
        config: The configuration of the model, for environment and probes.

    Returns:
        `error` (k -> median angle error in rad), `error_by_step`, `linear` and `mlp` (target ->
        R²), `worst_linear`, `worst_mlp`, `angle_r2` and `omega_r2` (minimum over the targets of
        the MLP probe), `effective_rank`, `std`, and `latent_error` at k = 5 relative to
        persistence, None where the latents do not change.
    """
    readout = find_plugin(config.env.id, config.env.kwargs).readout(train_buffer.state_dim)
    probes = fit_probes(model, train_buffer, readout, config.evaluation.probe)
    episodes, times = model.frames.times(validation)
    latents = encode_at(model, validation, episodes, times)
    states = states_at(validation, episodes, times)
    linear, mlp = (
        score_probe(readout, probe.predict(latents), states, episodes)
        for probe in (probes.linear, probes.mlp)
    )
    windows = ForecastEpisodes.of(model, validation)
    forecast = windows.forecast()
    errors = angle_errors_by_step(windows, forecast, probes.mlp, readout).forecast
    median = median_by_step(errors)
    latent = latent_forecast(windows, forecast)
    statistics = collapse(latents)
    return {
        "error": {str(k): float(median[k]) for k in STEPS},
        "error_by_step": np.round(median, 4).tolist(),
        "linear": linear.r2,
        "mlp": mlp.r2,
        "worst_linear": linear.worst_r2,
        "worst_mlp": mlp.worst_r2,
        "angle_r2": min(value for name, value in mlp.r2.items() if "theta" in name),
        "omega_r2": min(mlp.r2["omega1"], mlp.r2["omega2"]),
        "effective_rank": statistics.effective_rank,
        "std": float(statistics.std.mean()),
        "latent_error": _ratio(latent.error["5"], latent.persistence["5"]),
    }


def _ratio(error: float | None, persistence: float | None) -> float | None:
    return None if error is None or not persistence else error / persistence
