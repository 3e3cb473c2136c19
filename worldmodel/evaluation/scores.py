"""Scores of probes on held-out observations, beside those of untrained encoders and of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from sklearn.decomposition import PCA

from worldmodel.data import FrameStack, ReplayBuffer
from worldmodel.evaluation.forecast import wrap_angle
from worldmodel.evaluation.intervals import Bootstrap, as_interval
from worldmodel.evaluation.metrics import BaselineScores, ProbeMetrics, ProbeScore
from worldmodel.evaluation.probes import Probes, fit_linear_probe, fit_mlp_probe, states_at
from worldmodel.evaluation_config import Evaluation
from worldmodel.latents import encode_at
from worldmodel.models import WorldModel
from worldmodel.plugins import Readout

_COMPONENTS = 64
_PCA_OBSERVATIONS = 2000
_BATCH = 128

Features = Callable[[ReplayBuffer, np.ndarray, np.ndarray], np.ndarray]
"""Inputs of a probe float (N, n) from a buffer, episodes (N,) and times (N,)."""


def score_probes(
    wm: WorldModel,
    probes: Probes,
    train_buffer: ReplayBuffer,
    heldout: ReplayBuffer,
    latents: np.ndarray,
    settings: Evaluation,
    *,
    seed: int = 0,
) -> ProbeMetrics:
    """Score probes, and the same probes on an untrained encoder and on principal components.

    Args:
        wm: the world model.
        probes: probes from `fit_probes`.
        train_buffer: training episodes, for the baselines.
        heldout: held-out episodes, with states.
        latents: float32 (N, D), latents of all held-out observations, in storage order.
        settings: hyperparameters of baselines and intervals.
        seed: random seed of the baselines.
    """
    readout, bootstrap = probes.readout, Bootstrap.of(settings)
    episodes, times = wm.frames.times(heldout)
    states = states_at(heldout, episodes, times)
    fitted = wm.frames.sample_times(train_buffer, settings.probe.baseline_observations, seed)
    targets = readout.targets(states_at(train_buffer, *fitted))

    def score(predicted: np.ndarray) -> ProbeScore:
        columns = predicted.reshape(len(states), -1)  # scikit-learn drops the axis of one target
        return score_probe(readout, columns, states, episodes, bootstrap)

    def baseline(features: Features) -> BaselineScores:
        inputs = features(train_buffer, *fitted)
        held = features(heldout, episodes, times)
        linear = fit_linear_probe(inputs, targets)
        mlp = fit_mlp_probe(inputs, targets, settings.probe, seed=seed)
        return BaselineScores(len(inputs), score(linear.predict(held)), score(mlp.predict(held)))

    untrained = wm.untrained(seed)
    return ProbeMetrics(
        train_observations=probes.observations,
        heldout_observations=len(latents),
        units=dict(zip(readout.names, readout.units, strict=True)),
        linear=score(probes.linear.predict(latents)),
        mlp=score(probes.mlp.predict(latents)),
        untrained=baseline(lambda buffer, *where: encode_at(untrained, buffer, *where)),
        pixels=baseline(_principal_components(wm.frames, train_buffer, seed)),
    )


def score_probe(
    readout: Readout,
    predicted: np.ndarray,
    states: np.ndarray,
    episodes: np.ndarray,
    bootstrap: Bootstrap | None = None,
) -> ProbeScore:
    """Score the predictions of a probe.

    Args:
        readout: readout of the probe.
        predicted: float (N, T), predicted targets.
        states: float (N, d), true states.
        episodes: int (N,), episode of each prediction.
        bootstrap: bootstrap that computes the intervals.
    """
    bootstrap = bootstrap or Bootstrap()
    true = readout.targets(states)
    sums = _sums_by_episode(predicted, true, episodes)  # (E, 4, T)
    r2, scored = _r2(sums.sum(axis=0)), readout.num_scored
    resampled = sums[bootstrap.draw(len(sums))].sum(axis=1)  # (R, 4, T)
    worst = _r2(resampled)[:, :scored].min(axis=-1)
    angle_rmse = None
    if readout.angle_names:
        error = wrap_angle(readout.angles(predicted) - readout.true_angles(states))
        angle_rmse = float(np.sqrt(np.mean(error**2)))
    return ProbeScore(
        r2=_named(readout, r2),
        worst_r2=float(r2[:scored].min()),
        worst_r2_interval=as_interval(bootstrap.interval(worst)),
        rmse=_named(readout, np.sqrt(np.mean((predicted - true) ** 2, axis=0))),
        angle_rmse_rad=angle_rmse,
    )


def _sums_by_episode(predicted: np.ndarray, true: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    """Count, sum, sum of squares and sum of squared errors of each episode: float64 (E, 4, T)."""
    centred = true - true.mean(axis=0)
    terms = np.stack([np.ones_like(true), centred, centred**2, (predicted - true) ** 2], axis=1)
    _, index = np.unique(episodes, return_inverse=True)
    sums = np.zeros((index.max() + 1, *terms.shape[1:]))
    np.add.at(sums, index, terms)
    return sums


def _r2(sums: np.ndarray) -> np.ndarray:
    """Compute R² (..., T) from sums (..., 4, T)."""
    count, total, squares, errors = np.moveaxis(sums, -2, 0)
    variation = squares - total**2 / count
    changes = variation > 1e-12 * count
    return np.where(changes, 1.0 - errors / np.where(changes, variation, 1.0), 0.0)


def _named(readout: Readout, values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(readout.names, values, strict=True)}


def _principal_components(frames: FrameStack, buffer: ReplayBuffer, seed: int) -> Features:
    """Fit principal components of observations on some observations of a buffer."""

    def read(buffer: ReplayBuffer, episodes: np.ndarray, times: np.ndarray) -> Iterator[np.ndarray]:
        for i in range(0, len(episodes), _BATCH):
            chunk = slice(i, i + _BATCH)
            observations = frames.read(buffer, episodes[chunk], times[chunk])
            yield observations.reshape(len(observations), -1).astype(np.float32)

    some = frames.sample_times(buffer, _PCA_OBSERVATIONS, seed)
    flat = np.concatenate(list(read(buffer, *some)))
    count = min(_COMPONENTS, *flat.shape)
    pca = PCA(count, svd_solver="randomized", random_state=seed).fit(flat)
    return lambda buffer, episodes, times: np.concatenate(
        [pca.transform(batch) for batch in read(buffer, episodes, times)]
    )
