"""Does the dream keep the energy that a passive pendulum keeps?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.forecast import forecast_latents, reported_steps, true_states
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.evaluation.statistics import interval
from worldmodel.evaluation.summaries import finite, median_by_step, resampled_medians
from worldmodel.evaluation.targets import states_from_targets
from worldmodel.models import WorldModel

Energy = Callable[[np.ndarray], np.ndarray]


def energy_report(
    wm: WorldModel, passive: ReplayBuffer, probe: MLPProbe, energy: Energy
) -> dict[str, Any]:
    """Read the energy of dreamed passive trajectories and hold it to the true one.

    Args:
        wm: The world model.
        passive: Held-out episodes without torque.
        probe: Reads angles and velocities from latents.
        energy: States (N, 4) to energies (N,) in J.

    Returns:
        In J: `true_std` (over episodes, at k = 0), `read_rmse` (of the reading at k = 0),
        `drift` (k as a string -> median over episodes of the energy read at k less the true one),
        `drift_interval`, `drift_by_step`, and `abs_drift_by_step` (median of the absolute value);
        None where a dream has diverged.
    """
    true = _energies(energy, true_states(wm, passive).swapaxes(0, 1))  # (K+1, E)
    latents = forecast_latents(wm, passive).cpu().numpy()
    off = _energies(energy, states_from_targets(probe.predict(latents))) - true
    drift = median_by_step(off)
    ends = interval(resampled_medians(off))
    steps = reported_steps(len(drift) - 1)
    return {
        "unit": "J",
        "true_std": float(true[0].std()),
        "read_rmse": float(np.sqrt(np.mean(off[0] ** 2))),
        "drift": {str(k): finite(drift[k]) for k in steps},
        "drift_interval": {str(k): [finite(end) for end in ends[:, k]] for k in steps},
        "drift_by_step": [finite(value) for value in drift],
        "abs_drift_by_step": [finite(value) for value in median_by_step(np.abs(off))],
    }


def _energies(energy: Energy, states: np.ndarray) -> np.ndarray:
    return energy(states.reshape(-1, states.shape[-1])).reshape(states.shape[:-1])
