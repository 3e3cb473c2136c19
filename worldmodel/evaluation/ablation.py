"""Do the actions steer the forecast? The same episodes under other actions must be told worse."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.forecast import (
    angle_errors_by_step,
    forecast_latents,
    latent_errors,
    recorded_actions,
)
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.evaluation.summaries import at_reported_steps, median_by_step
from worldmodel.models import WorldModel

_LOOKED_AT = 64


def action_report(
    wm: WorldModel,
    driven: ReplayBuffer,
    probe: MLPProbe | None,
    *,
    reason: str | None,
    trained_on: bool,
    seed: int = 0,
) -> dict[str, Any]:
    """Forecast driven episodes with their own actions, with none, and with those of another.

    Args:
        wm: The world model.
        driven: Held-out episodes under random actions.
        probe: Reads angles; None leaves them out, and `reason` says why.
        reason: See `probe`.
        trained_on: Whether the model has learned from more than one action.
        seed: Of who gets whose actions.

    Returns:
        `episodes`, `trained_on`, and `angle` (median error in rad) and `latent` (see
        `latent_errors`), each with `true`, `zeroed` (the middle of the bounds; not for discrete
        actions) and `shuffled`, k as a string -> error. `angle` may be `{"reason": why}`.
    """
    angle: dict[str, Any] = {} if probe is not None else {"reason": reason}
    latent = {}
    for name, actions in _variants(wm, driven, seed).items():
        latents = forecast_latents(wm, driven, actions)
        latent[name] = latent_errors(wm, driven, latents)["error"]
        if probe is not None:
            errors = angle_errors_by_step(wm, driven, latents, probe).forecast
            angle[name] = at_reported_steps(median_by_step(errors))
    return {
        "episodes": driven.num_episodes,
        "trained_on": trained_on,
        "angle": angle,
        "latent": latent,
    }


def holds_several_actions(buffer: ReplayBuffer) -> bool:
    """Whether the first episodes of a buffer were driven by more than one action."""
    episodes = np.arange(min(buffer.num_episodes, _LOOKED_AT))
    length = int(np.min(buffer.lengths[episodes]))
    actions = buffer.actions(episodes, np.zeros_like(episodes), length)
    return bool((actions != actions[:1, :1]).any())


def _variants(wm: WorldModel, driven: ReplayBuffer, seed: int) -> dict[str, np.ndarray]:
    true = recorded_actions(wm, driven)
    variants = {"true": true}
    space = driven.action_space
    if isinstance(space, gym.spaces.Box):
        middle = ((space.low + space.high) / 2.0).reshape(-1)
        variants["zeroed"] = np.broadcast_to(middle, true.shape).astype(true.dtype)
    order = np.random.default_rng(seed).permutation(len(true))
    variants["shuffled"] = true.copy()
    variants["shuffled"][order] = true[np.roll(order, 1)]
    return variants
