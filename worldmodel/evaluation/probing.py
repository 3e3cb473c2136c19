"""Probing a model: what its latents hold of the true state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.baselines import baseline_report
from worldmodel.evaluation.observations import encode_at, sample_times, states_at
from worldmodel.evaluation.probes import MLPProbe, fit_linear_probe, fit_mlp_probe
from worldmodel.evaluation.scores import score_probe
from worldmodel.evaluation.targets import PENDULUM_STATE, Readout
from worldmodel.models import WorldModel

OBSERVATIONS = 60_000
"""Training observations that probes are fitted on, at most."""


@dataclass(frozen=True)
class Probes:
    """Both probes, fitted on the same `observations` latents of training episodes."""

    readout: Readout
    linear: Pipeline
    mlp: MLPProbe
    observations: int


def missing_states(buffer: ReplayBuffer) -> str | None:
    """Why nothing can be probed in a buffer; None if something can."""
    if buffer.state_dim:
        return None
    return (
        "the environment does not tell its true state; name a key of its info that does "
        "with --state-key"
    )


def missing_angles(buffer: ReplayBuffer, readout: Readout) -> str | None:
    """Why no angles can be told from what probes read; None if they can."""
    if not readout.is_pendulum:
        return "only the double pendulum's state is known to hold angles"
    if buffer.state_dim not in (0, PENDULUM_STATE):
        return f"the state has {buffer.state_dim} numbers and not the double pendulum's four"
    return missing_states(buffer)


def fit_probes(
    wm: WorldModel, train_buffer: ReplayBuffer, readout: Readout, *, seed: int = 0
) -> Probes:
    """Fit the probes on at most 60,000 observations of the training episodes.

    Args:
        wm: The world model.
        train_buffer: Training episodes, with states.
        readout: What to read, from `choose_readout`.
        seed: Of the choice of observations and of the MLP probe.
    """
    episodes, times = sample_times(train_buffer, wm.frame_stack, OBSERVATIONS, seed)
    latents = encode_at(wm, train_buffer, episodes, times)
    values = readout.of(states_at(train_buffer, episodes, times))
    mlp = fit_mlp_probe(latents, values, seed=seed)
    return Probes(readout, fit_linear_probe(latents, values), mlp, len(latents))


def probe_report(
    wm: WorldModel,
    probes: Probes,
    train_buffer: ReplayBuffer,
    heldout: ReplayBuffer,
    latents: np.ndarray,
    episodes: np.ndarray,
    times: np.ndarray,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the probes on held-out latents, beside what is read without training.

    Args:
        wm: The world model.
        probes: From `fit_probes`.
        train_buffer: Training episodes, for the baselines.
        heldout: Held-out episodes.
        latents: float32 (N, D), of every held-out observation.
        episodes: int (N,), where they are from.
        times: int (N,), likewise.
        seed: Of the baselines.
    """
    states = states_at(heldout, episodes, times)
    return {
        "train_observations": probes.observations,
        "heldout_observations": len(latents),
        "linear": score_probe(probes.readout, probes.linear.predict(latents), states, episodes),
        "mlp": score_probe(probes.readout, probes.mlp.predict(latents), states, episodes),
        **baseline_report(wm, train_buffer, heldout, probes.readout, seed=seed),
    }
