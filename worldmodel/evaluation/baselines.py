"""What a probe reads without training: from an untrained encoder, and from the pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.observations import (
    all_times,
    encode_at,
    observe_in_batches,
    sample_times,
    states_at,
)
from worldmodel.evaluation.probes import fit_linear_probe, fit_mlp_probe
from worldmodel.evaluation.scores import score_probe
from worldmodel.evaluation.targets import Readout
from worldmodel.models import WorldModel

OBSERVATIONS = 30_000
"""Training observations that the baselines' probes are fitted on, at most."""

COMPONENTS = 64

_FITTED = 2000

Features = Callable[[ReplayBuffer, np.ndarray, np.ndarray], np.ndarray]


def baseline_report(
    wm: WorldModel,
    train_buffer: ReplayBuffer,
    heldout: ReplayBuffer,
    readout: Readout,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Probe an untrained encoder of the same shape, and principal components of the observations.

    Args:
        wm: The world model, for its shapes.
        train_buffer: Training episodes, with states.
        heldout: Held-out episodes, with states.
        readout: What probes read.
        seed: Of the untrained weights, the observations and the probes.

    Returns:
        `untrained` and `pixels` (64 components at most, fitted on 2,000 observations), each with
        `train_observations`, `linear` and `mlp`, as `score_probe`.
    """
    fresh = wm.untrained(seed)
    components = _components(train_buffer, wm.frame_stack, seed)
    features: dict[str, Features] = {
        "untrained": lambda buffer, episodes, times: encode_at(fresh, buffer, episodes, times),
        "pixels": lambda buffer, episodes, times: np.concatenate(
            [
                components.transform(_flat(batch))
                for batch in observe_in_batches(buffer, wm.frame_stack, episodes, times)
            ]
        ),
    }
    fitted = sample_times(train_buffer, wm.frame_stack, OBSERVATIONS, seed)
    scored = all_times(heldout, wm.frame_stack)
    values = readout.of(states_at(train_buffer, *fitted))
    states = states_at(heldout, *scored)
    report = {}
    for name, extract in features.items():
        inputs, held = extract(train_buffer, *fitted), extract(heldout, *scored)
        linear = fit_linear_probe(inputs, values).predict(held)
        mlp = fit_mlp_probe(inputs, values, seed=seed).predict(held)
        report[name] = {
            "train_observations": len(inputs),
            "linear": score_probe(readout, linear, states, scored[0]),
            "mlp": score_probe(readout, mlp, states, scored[0]),
        }
    return report


def _components(buffer: ReplayBuffer, stack: int, seed: int) -> PCA:
    chosen = sample_times(buffer, stack, _FITTED, seed)
    batches = observe_in_batches(buffer, stack, *chosen)
    flat = np.concatenate([_flat(batch) for batch in batches])
    count = min(COMPONENTS, *flat.shape)
    return PCA(count, svd_solver="randomized", random_state=seed).fit(flat)


def _flat(observations: np.ndarray) -> np.ndarray:
    """Observations (B, ...) to float32 (B, n)."""
    return observations.reshape(len(observations), -1).astype(np.float32)
