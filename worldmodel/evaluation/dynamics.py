"""Checks of the learned dynamics: effect of actions, energy, rewards, terminations, returns."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from scipy.stats import ConstantInputWarning, spearmanr

from worldmodel.data import ReplayBuffer
from worldmodel.evaluation.forecast import (
    ForecastEpisodes,
    angle_errors_by_step,
    latent_forecast,
    reported_steps,
)
from worldmodel.evaluation.forecast_metrics import (
    ActionErrors,
    ActionMetrics,
    ByStepOrNone,
    EnergyMetrics,
    IntervalOrNone,
)
from worldmodel.evaluation.intervals import Bootstrap, at_reported_steps, finite, median_by_step
from worldmodel.evaluation.metrics import (
    HeadMetrics,
    ReturnMetrics,
    RewardMetrics,
    TerminationMetrics,
)
from worldmodel.evaluation.probes import MLPProbe
from worldmodel.latents import LatentEpisodes, encode_episodes
from worldmodel.models import WorldModel, imagined_return, unroll
from worldmodel.plugins import Energy, InvertibleReadout, Readout

_BATCH = 1024
_CHECKED_EPISODES = 64
_RETURN_EPISODES = 64
"""Held-out episodes whose returns are compared, at most."""
_RETURN_STARTS = 1000
"""Observations of them that returns are compared from, at most."""


def action_metrics(
    wm: WorldModel,
    driven: ReplayBuffer,
    readout: Readout,
    probe: MLPProbe | None,
    *,
    varied_in_training: bool,
    seed: int = 0,
) -> ActionMetrics:
    """Forecast random-action episodes under their own actions, constant ones, and shuffled ones.

    A model that uses its actions has larger errors under the wrong ones.

    Args:
        wm: the world model.
        driven: held-out episodes under random actions.
        readout: readout of the probe.
        probe: probe that reads angles; None leaves them out.
        varied_in_training: whether the training data holds more than one action.
        seed: random seed of the permutation of the episodes.
    """
    episodes = ForecastEpisodes.of(wm, driven)
    angle: dict[str, ByStepOrNone | None] = {}
    latent: dict[str, ByStepOrNone | None] = {}
    for name, actions in _variants(episodes, seed).items():
        latents = episodes.forecast(actions)
        latent[name] = latent_forecast(episodes, latents).error
        if probe is not None:
            errors = angle_errors_by_step(episodes, latents, probe, readout).forecast
            angle[name] = {**at_reported_steps(median_by_step(errors))}
    return ActionMetrics(
        episodes=driven.num_episodes,
        varied_in_training=varied_in_training,
        angle=_action_errors(angle) if angle else None,
        latent=_action_errors(latent),
    )


def _action_errors(errors: dict[str, ByStepOrNone | None]) -> ActionErrors:
    true, shuffled = errors["true"], errors["shuffled"]
    assert true is not None
    assert shuffled is not None
    return ActionErrors(true=true, midpoint=errors.get("midpoint"), shuffled=shuffled)


def _variants(episodes: ForecastEpisodes, seed: int) -> dict[str, np.ndarray]:
    true = episodes.actions()
    variants = {"true": true}
    space = episodes.buffer.action_space
    if isinstance(space, gym.spaces.Box):
        middle = ((space.low + space.high) / 2.0).reshape(-1)
        variants["midpoint"] = np.broadcast_to(middle, true.shape).astype(true.dtype)
    order = np.random.default_rng(seed).permutation(len(true))
    variants["shuffled"] = true.copy()
    variants["shuffled"][order] = true[np.roll(order, 1)]
    return variants


def has_several_actions(buffer: ReplayBuffer) -> bool:
    """Check whether the first episodes of a buffer hold more than one action."""
    episodes = np.arange(min(buffer.num_episodes, _CHECKED_EPISODES))
    length = int(np.min(buffer.lengths[episodes]))
    actions = buffer.actions(episodes, np.zeros_like(episodes), length)
    return bool((actions != actions[:1, :1]).any())


def has_several_outcomes(buffer: ReplayBuffer) -> bool:
    """Check whether the episodes of a buffer hold different rewards, or a termination."""
    if buffer.terminated.any():
        return True
    found: set[float] = set()
    for length in np.unique(buffer.lengths):
        episodes = np.flatnonzero(buffer.lengths == length)
        rewards = buffer.rewards(episodes, np.zeros_like(episodes), int(length))
        found.update(np.unique(rewards).tolist())
        if len(found) > 1:
            return True
    return False


def energy_metrics(
    wm: WorldModel,
    passive: ReplayBuffer,
    readout: InvertibleReadout,
    probe: MLPProbe,
    energy: Energy,
    bootstrap: Bootstrap | None = None,
) -> EnergyMetrics:
    """Compare the energy along imagined passive trajectories with the true one.

    Args:
        wm: the world model.
        passive: held-out episodes under passive actions.
        readout: readout of the probe.
        probe: probe that reads targets from latents.
        energy: function from states (N, d) to energies (N,) in J.
        bootstrap: bootstrap that computes the intervals.
    """
    bootstrap = bootstrap or Bootstrap()
    episodes = ForecastEpisodes.of(wm, passive)
    imagined = readout.states(probe.predict(episodes.forecast().cpu().numpy()))
    true = _energies(energy, episodes.states().swapaxes(0, 1))  # (K+1, E)
    difference = _energies(energy, imagined) - true
    drift = median_by_step(difference)
    ends = bootstrap.interval(bootstrap.medians(difference))
    steps = reported_steps(episodes.last)
    return EnergyMetrics(
        unit="J",
        true_std=float(true[0].std()),
        readout_rmse=float(np.sqrt(np.mean(difference[0] ** 2))),
        drift={str(k): finite(drift[k]) for k in steps},
        drift_interval={str(k): (finite(ends[0, k]), finite(ends[1, k])) for k in steps},
        drift_by_step=[finite(value) for value in drift],
        abs_drift_by_step=[finite(value) for value in median_by_step(np.abs(difference))],
    )


def _energies(energy: Energy, states: np.ndarray) -> np.ndarray:
    return energy(states.reshape(-1, states.shape[-1])).reshape(states.shape[:-1])


def head_metrics(wm: WorldModel, heldout: ReplayBuffer, latents: np.ndarray) -> HeadMetrics:
    """Score both heads on every held-out transition, on the predicted next latent.

    Args:
        wm: the world model.
        heldout: held-out episodes.
        latents: float32 (N, D), latents of all its observations, in storage order.
    """
    episodes, times = wm.frames.times(heldout)
    rows = np.flatnonzero(episodes[:-1] == episodes[1:])
    chunks = [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]
    parts = [_outcomes(wm, heldout, latents[c], episodes[c], times[c]) for c in chunks]
    reward, end, true, terminated = (np.concatenate(column) for column in zip(*parts, strict=True))
    squared = float(np.mean((reward - true) ** 2))
    variance = float(np.var(true))
    predicted = end >= 0.5
    return HeadMetrics(
        transitions=len(rows),
        reward=RewardMetrics(
            rmse=finite(squared**0.5),
            std=variance**0.5,
            r2=finite(1.0 - squared / variance) if variance > 0.0 else None,
        ),
        termination=TerminationMetrics(
            terminations=int(terminated.sum()),
            recall=_fraction(predicted[terminated]),
            false_positive_rate=_fraction(predicted[~terminated]),
        ),
    )


def _outcomes(
    wm: WorldModel, heldout: ReplayBuffer, z: np.ndarray, episodes: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return predicted rewards and probabilities, true rewards and terminations, each (B,)."""
    windows = heldout.windows(episodes, times, 2)
    start, actions = torch.as_tensor(z, device=wm.device), windows.actions[:, 0]
    reward, end = wm.outcome(start, actions, wm.predict(start, actions))
    true = windows.rewards[:, 0].astype(np.float64), windows.terminated[:, 0]
    return reward.cpu().double().numpy(), end.cpu().numpy(), *true  # MPS has no float64


def return_metrics(
    wm: WorldModel, heldout: ReplayBuffer, steps: Sequence[int], bootstrap: Bootstrap | None = None
) -> ReturnMetrics | str:
    """Correlate imagined with real returns of the recorded actions, or say why there are none.

    Args:
        wm: the world model.
        heldout: held-out episodes under varied actions.
        steps: numbers of actions k.
        bootstrap: bootstrap over episodes that computes the intervals.
    """
    bootstrap = bootstrap or Bootstrap()
    order = np.random.default_rng(0).permutation(heldout.num_episodes)
    chosen = np.sort(order[:_RETURN_EPISODES])
    episodes = encode_episodes(wm, heldout, chosen)
    correlation: dict[str, float | None] = {}
    interval: dict[str, IntervalOrNone] = {}
    for k in steps:
        rows, imagined, real = _returns(wm, episodes, k)
        correlation[str(k)], interval[str(k)] = None, (None, None)
        if len(rows) and np.isfinite(imagined).all() and np.ptp(real) > 0 and np.ptp(imagined) > 0:
            correlation[str(k)] = float(spearmanr(imagined, real).statistic)
            drawn = _resampled_correlations(imagined, real, episodes.episodes()[rows], bootstrap)
            low, high = bootstrap.interval(drawn)
            interval[str(k)] = (finite(low), finite(high))
    if all(value is None for value in correlation.values()):
        return "all held-out returns are equal, or the model diverged"
    return ReturnMetrics(len(chosen), correlation, interval)


def _resampled_correlations(
    imagined: np.ndarray, real: np.ndarray, episodes: np.ndarray, bootstrap: Bootstrap
) -> np.ndarray:
    """Return the Spearman correlation (R,) of every resample of the episodes; 0 if undefined."""
    parts = [np.flatnonzero(episodes == episode) for episode in np.unique(episodes)]
    drawn = (np.concatenate([parts[i] for i in sample]) for sample in bootstrap.draw(len(parts)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        values = [float(spearmanr(imagined[rows], real[rows]).statistic) for rows in drawn]
    return np.asarray(np.nan_to_num(values))


@torch.no_grad()
def _returns(
    wm: WorldModel, episodes: LatentEpisodes, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return starts (M,), and the imagined and the real return (M,) of the next k actions.

    Starts are observations that are followed by k steps or by a termination, at most
    `_RETURN_STARTS` of them. The last action is repeated after a termination, where the real reward
    is 0.
    """
    left, index = episodes.remaining, torch.arange(len(episodes.remaining))
    terminates = (left > 0) & (episodes.terminated[index + left - 1] > 0)
    rows = torch.nonzero((left >= k) | terminates)[:, 0]
    rows = rows[:: max(1, math.ceil(len(rows) / _RETURN_STARTS))]
    ahead = torch.arange(k)[:, None]
    steps = rows + torch.minimum(ahead, left[rows] - 1)  # (k, M)
    real = (episodes.rewards[steps] * (ahead < left[rows])).double().sum(0)
    z, actions = episodes.z[rows].to(wm.device), episodes.actions[steps].to(wm.device)
    latents = torch.cat([z[None], unroll(wm.predictor, z, actions)])
    imagined = imagined_return(wm, latents, actions).cpu().double()
    return rows.numpy(), imagined.numpy(), real.numpy()


def _fraction(predicted: np.ndarray) -> float | None:
    return float(predicted.mean()) if len(predicted) else None
