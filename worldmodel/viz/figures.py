"""Figures of a run: reconstructed and forecast frames, and the forecast error against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from worldmodel.evaluation.forecast import reported_steps
from worldmodel.evaluation.forecast_metrics import AngleForecast
from worldmodel.evaluation.metrics import Metrics
from worldmodel.files import replacing
from worldmodel.models import WorldModel
from worldmodel.viz.canvas import to_rgb
from worldmodel.viz.video import decode_newest, forecast_clip

_COLUMNS = 8
_DPI = 160

_INK, _FAINT, _FRAME = "#23262f", "#6f7583", "#c6cad4"
_FORECAST, _REFERENCE, _PERSISTENCE, _VELOCITY = "#d9482b", "#2b7bb9", "#9aa0ad", "#b08a3e"

_CELL, _GAP = 1.3, 0.07
_LEFT, _EDGE = 1.3, 0.22
_TITLE, _HEADINGS = 0.44, 0.26
"""Sizes in inches: longest side of a picture, gap between pictures, margin on their left, margin
around the page, height of a title and of a line of headings."""


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

    The upper strip shows up to 8 frames, each from a different episode and at a random time, above
    their reconstructions. The lower strip shows the true frames of one episode above the open-loop
    forecast of the same steps. The file is written completely or not at all.

    Args:
        wm: a world model with a decoder.
        frames: uint8 (E, L, H, W, C) of held-out episodes, C 1 or 3, L > S.
        actions: (E, L-1, A), or (E, L-1) if discrete, as recorded.
        path: path of the PNG.
        dt: seconds per step.
        seed: random seed of the choice of episodes and times.

    Raises:
        ValueError: If the model has no decoder, or the episodes are too short for one step.
        OSError: If the file cannot be written.
    """
    rng = np.random.default_rng(seed)
    episodes = rng.permutation(len(frames))[:_COLUMNS]
    strips = [
        _reconstructions(wm, frames[episodes], rng),
        _forecast(wm, frames[episodes[0]], actions[episodes[0]], dt),
    ]
    save_figure(draw_strips(strips), path)


def forecast_plot(metrics: Metrics, path: str | Path) -> None:
    """Write a PNG of the forecast's median angle error against time, with its interval.

    Beside it are persistence, extrapolation at constant velocity, and the reference model if there
    is one. The file is written completely or not at all.

    Args:
        metrics: metrics of an evaluation with angles.
        path: path of the PNG.

    Raises:
        ValueError: If there are no angle errors.
        OSError: If the file cannot be written.
    """
    angle, reference = metrics.forecast.angle, metrics.reference
    if angle is None:
        reason = metrics.reasons.get("forecast.angle", "they were not evaluated")
        raise ValueError(f"there are no angle errors to plot: {reason}")
    curves = [
        ("persistence", angle.persistence_by_step, _PERSISTENCE),
        ("forecast", angle.median_by_step, _FORECAST),
    ]
    if angle.constant_velocity_by_step is not None:
        curves.append(("constant velocity", angle.constant_velocity_by_step, _VELOCITY))
    if reference is not None:
        name = f"reference model on the true state, {reference.updates} updates"
        curves.append((name, reference.median_by_step, _REFERENCE))
    save_figure(_error_figure(curves, angle, metrics.dt_seconds), path)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG, completely or not at all."""
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=_DPI)


@dataclass(frozen=True)
class Strip:
    """Rows of frames under one title.

    Attributes:
        title: title above the rows.
        rows: label -> frames uint8 (N, H, W, C), C 1 or 3, with the same N in each row.
        headings: N texts above the columns, or none.
    """

    title: str
    rows: Mapping[str, np.ndarray]
    headings: Sequence[str] = ()

    @property
    def columns(self) -> int:
        """Number N of frames per row."""
        return len(next(iter(self.rows.values())))


def draw_strips(strips: Sequence[Strip]) -> Figure:
    """Draw strips below each other on one page; all frames have the same size."""
    height, width = next(iter(strips[0].rows.values())).shape[1:3]
    cell = _CELL * height / max(height, width), _CELL * width / max(height, width)
    columns = max(strip.columns for strip in strips)
    page = _Page(
        width=_LEFT + columns * (cell[1] + _GAP) - _GAP + _EDGE,
        height=_EDGE + sum(_strip_height(strip, cell[0]) for strip in strips),
    )
    top = 0.0
    for strip in strips:
        _draw_strip(page, strip, top, cell)
        top += _strip_height(strip, cell[0])
    return page.figure


class _Page:
    """A figure addressed in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")

    def text(self, x: float, y: float, text: str, **style: str | float) -> None:
        self.figure.text(x / self.width, 1.0 - y / self.height, text, **style)  # type: ignore[arg-type]

    def picture(self, x: float, y: float, cell: tuple[float, float], frame: np.ndarray) -> None:
        height, width = cell
        box = (
            x / self.width,
            1.0 - (y + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes = self.figure.add_axes(box)
        axes.imshow(to_rgb(frame), interpolation="lanczos")
        axes.set_aspect("auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=_FRAME, linewidth=0.7)


def _strip_height(strip: Strip, cell: float) -> float:
    headings = _HEADINGS if strip.headings else 0.0
    return _TITLE + headings + len(strip.rows) * (cell + _GAP)


def _draw_strip(page: _Page, strip: Strip, top: float, cell: tuple[float, float]) -> None:
    page.text(_EDGE, top + 0.72 * _TITLE, strip.title, size=11, weight="bold", color=_INK)
    y = top + _TITLE
    for i, heading in enumerate(strip.headings):
        center = _LEFT + i * (cell[1] + _GAP) + cell[1] / 2
        page.text(center, y + 0.65 * _HEADINGS, heading, size=8.5, color=_FAINT, ha="center")
    y += _HEADINGS if strip.headings else 0.0
    for label, frames in strip.rows.items():
        page.text(_EDGE, y + cell[0] / 2, label, size=9.5, color=_INK, va="center")
        for i, frame in enumerate(frames):
            page.picture(_LEFT + i * (cell[1] + _GAP), y, cell, frame)
        y += cell[0] + _GAP


def _reconstructions(wm: WorldModel, frames: np.ndarray, rng: np.random.Generator) -> Strip:
    times = rng.integers(wm.frames.first, frames.shape[1], len(frames))
    observations = [wm.frames.observe(frames[i : i + 1], t) for i, t in enumerate(times)]
    rows = {
        "ground truth": frames[np.arange(len(frames)), times],
        "reconstruction": decode_newest(wm, wm.encode(np.concatenate(observations))),
    }
    return Strip("Held-out frames, encoded and decoded", rows)


def _forecast(wm: WorldModel, frames: np.ndarray, actions: np.ndarray, dt: float) -> Strip:
    episode = forecast_clip(wm, frames, actions)
    steps = reported_steps(len(episode.truth) - 1)
    return Strip(
        "Open-loop forecast from one observation",
        {"ground truth": episode.truth[steps], "forecast": episode.forecast[steps]},
        [f"k = {k}   {k * dt:.2f} s" for k in steps],
    )


def _error_figure(
    curves: Sequence[tuple[str, list[float], str]], angle: AngleForecast, dt: float
) -> Figure:
    """Plot curves of (label, errors by step, color), and the interval and horizon of `angle`."""
    figure = Figure(figsize=(6.4, 4.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for name, errors, color in curves:
        axes.plot(np.arange(len(errors)) * dt, errors, color=color, lw=2, label=name)
    low, high = np.transpose(angle.interval_by_step)
    axes.fill_between(np.arange(len(low)) * dt, low, high, color=_FORECAST, alpha=0.2, lw=0)
    horizon = angle.horizon
    axes.axhline(horizon.threshold_rad, color=_FAINT, lw=0.9, ls=(0, (4, 3)), zorder=0)
    bound = "at least " if horizon.lower_bound else ""
    title = (
        f"Open-loop forecast: below {horizon.threshold_rad} rad for {bound}{horizon.seconds:.2f} s"
    )
    axes.set_title(title, size=11, weight="bold", color=_INK, loc="left", pad=10)
    axes.set_xlabel("time ahead, s", color=_INK)
    axes.set_ylabel("median angle error, rad", color=_INK)
    axes.set_xlim(0.0, (len(curves[0][1]) - 1) * dt)
    axes.set_ylim(bottom=0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_FAINT, labelcolor=_INK)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=_INK)
    return figure
