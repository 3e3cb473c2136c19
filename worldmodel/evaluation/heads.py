"""How well the reward and termination heads tell what a dreamed step brings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from worldmodel.data import ReplayBuffer
from worldmodel.models import WorldModel

_BATCH = 1024


def head_report(
    wm: WorldModel,
    heldout: ReplayBuffer,
    latents: np.ndarray,
    episodes: np.ndarray,
    times: np.ndarray,
) -> dict[str, Any]:
    """Score both heads on every held-out transition, as in a dream: on the predicted next latent.

    Args:
        wm: The world model.
        heldout: Episodes.
        latents: float32 (N, D), of all its observations.
        episodes: int (N,), the episode of each, in storage order.
        times: int (N,), the time of each, see `all_times`.

    Returns:
        `transitions`; `reward`: `rmse`, `std` of the true rewards and `r2` (None if they are all
        alike); `termination`: the number of `endings`, the share `found` of them (told with a
        probability of at least one half), and the share of `false_alarms` among the other steps
        (None where there are no such steps). None, too, where the model has diverged.
    """
    rows = np.flatnonzero(episodes[:-1] == episodes[1:])
    chunks = [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]
    columns = zip(*(_chunk(wm, heldout, latents[c], episodes[c], times[c]) for c in chunks))
    reward, end, true, over = (np.concatenate(column) for column in columns)
    squared = float(np.mean((reward - true) ** 2))
    variance = float(np.var(true))
    told = end >= 0.5
    return {
        "transitions": len(rows),
        "reward": {
            "rmse": _finite(squared**0.5),
            "std": variance**0.5,
            "r2": _finite(1.0 - squared / variance) if variance > 0.0 else None,
        },
        "termination": {
            "endings": int(over.sum()),
            "found": _share(told[over]),
            "false_alarms": _share(told[~over]),
        },
    }


@torch.no_grad()
def _chunk(
    wm: WorldModel, heldout: ReplayBuffer, z: np.ndarray, episodes: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Told and true rewards, told probabilities and true flags of termination, each (B,)."""
    windows = heldout.windows(episodes, times, 2)
    start, actions = torch.as_tensor(z, device=wm.device), windows.actions[:, 0]
    reward, end = wm.outcome(start, actions, wm.predict(start, actions))
    told = reward.double().cpu().numpy(), end.cpu().numpy()
    return *told, windows.rewards[:, 0].astype(np.float64), windows.terminated[:, 0]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _share(told: np.ndarray) -> float | None:
    return float(told.mean()) if len(told) else None
