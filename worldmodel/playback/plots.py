"""Pictures for a run directory: reconstructions, and the forecast's error against time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from worldmodel.evaluation.forecast import STEPS
from worldmodel.files import replacing
from worldmodel.models import WorldModel
from worldmodel.playback.grid import FAINT, INK, Strip, draw_strips
from worldmodel.playback.scenes import reconstruct, scene

_COLUMNS = 8
_DPI = 160

_FORECAST, _PRIVILEGED, _PERSISTENCE = "#d9482b", "#2b7bb9", "#9aa0ad"
_CONSTANT = "#b08a3e"


def reconstruction_figure(
    wm: WorldModel,
    frames: np.ndarray,
    actions: np.ndarray,
    path: str | Path,
    *,
    dt: float,
    seed: int = 0,
) -> None:
    """Write a PNG of held-out frames with their reconstructions, and of one forecast.

    Above, up to 8 frames, each of another episode and at a random time, over what the decoder
    makes of their latents. Below, one episode: true frames over the open-loop forecast of the
    same step. The file appears whole or not at all.

    Args:
        wm: A world model with a decoder.
        frames: uint8 (E, L, H, W, C) of held-out episodes, C 1 or 3, L > S.
        actions: (E, L-1, A), or (E, L-1) if discrete, as recorded.
        path: Of the PNG.
        dt: Seconds a step.
        seed: Of the choice of episodes and times.

    Raises:
        ValueError: If the model has no decoder, or no step fits.
        OSError: If the file cannot be written.
    """
    rng = np.random.default_rng(seed)
    episodes = rng.permutation(len(frames))[:_COLUMNS]
    strips = [
        _reconstructions(wm, frames[episodes], rng),
        _forecast(wm, frames[episodes[0]], actions[episodes[0]], dt),
    ]
    _save(draw_strips(strips), path)


def _reconstructions(wm: WorldModel, frames: np.ndarray, rng: np.random.Generator) -> Strip:
    first = wm.frame_stack - 1
    times = rng.integers(first, frames.shape[1], len(frames))
    truth = [frames[i, t] for i, t in enumerate(times)]
    made = [reconstruct(wm, frames[i, t - first : t + 1])[0] for i, t in enumerate(times)]
    rows = {"truth": np.stack(truth), "reconstruction": np.stack(made)}
    return Strip("Held-out frames, encoded and decoded", rows)


def _forecast(wm: WorldModel, frames: np.ndarray, actions: np.ndarray, dt: float) -> Strip:
    episode = scene(wm, frames, actions)
    steps = [k for k in STEPS if k < len(episode.truth)]
    return Strip(
        "Open-loop forecast from one observation",
        {"truth": episode.truth[steps], "forecast": episode.forecast[steps]},
        [f"k = {k}   {k * dt:.2f} s" for k in steps],
    )


def forecast_plot(metrics: dict[str, Any], path: str | Path) -> None:
    """Write a PNG of the forecast's angle error against time.

    With its interval, beside persistence, extrapolation at constant velocity, and the privileged
    reference if it was evaluated. The file appears whole or not at all.

    Args:
        metrics: From `evaluate`.
        path: Of the PNG.

    Raises:
        ValueError: If the metrics hold no angle errors.
        OSError: If the file cannot be written.
    """
    angle, dt = metrics["forecast"]["angle"], metrics["dt_seconds"]
    if "median_by_step" not in angle:
        raise ValueError(f"the metrics hold no angle errors to plot: {angle['reason']}")
    curves = [
        ("persistence", angle["persistence_by_step"], _PERSISTENCE),
        ("forecast", angle["median_by_step"], _FORECAST),
    ]
    if "constant_velocity_by_step" in angle:
        curves.append(("constant velocity", angle["constant_velocity_by_step"], _CONSTANT))
    if "median_by_step" in metrics["privileged"]:
        name = f"model of the true state, {metrics['privileged']['updates']} updates"
        curves.append((name, metrics["privileged"]["median_by_step"], _PRIVILEGED))
    _save(_error_figure(curves, angle, dt), path)


def _error_figure(
    curves: list[tuple[str, list[float], str]], angle: dict[str, Any], dt: float
) -> Figure:
    horizon = angle["horizon"]
    figure = Figure(figsize=(6.4, 4.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for name, errors, colour in curves:
        axes.plot(np.arange(len(errors)) * dt, errors, color=colour, lw=2, label=name)
    low, high = np.transpose(angle["interval_by_step"])
    axes.fill_between(np.arange(len(low)) * dt, low, high, color=_FORECAST, alpha=0.2, lw=0)
    threshold = horizon["threshold_rad"]
    axes.axhline(threshold, color=FAINT, lw=0.9, ls=(0, (4, 3)), zorder=0)
    bound = "at least " if horizon["lower_bound"] else ""
    title = f"Open-loop forecast: below {threshold} rad for {bound}{horizon['seconds']:.2f} s"
    axes.set_title(title, size=11, weight="bold", color=INK, loc="left", pad=10)
    axes.set_xlabel("time ahead, s", color=INK)
    axes.set_ylabel("median angle error, rad", color=INK)
    axes.set_xlim(0.0, (len(curves[0][1]) - 1) * dt)
    axes.set_ylim(bottom=0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=FAINT, labelcolor=INK)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=INK)
    return figure


def _save(figure: Figure, path: str | Path) -> None:
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=_DPI)
