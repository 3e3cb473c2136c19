"""Animations of several worlds: held-out episodes beside their open-loop forecasts.

    python -m benchmarks.gallery RUN [RUN ...] --output docs/worlds.gif
    python -m benchmarks.gallery RUN [RUN ...] --output docs/worlds.gif --page docs/gallery.md

The first writes one overview of all worlds. ``--page`` also writes an animation per run into the
directory beside the page that is named like it (``docs/gallery/``), and shows them on the page,
between its lines ``<!-- worlds -->`` and ``<!-- /worlds -->``.

Each run is shown with the longest of its first held-out episodes. The forecast sees the first
observation and the actions only. A world whose episode is over keeps its last frame.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from worldmodel import Run
from worldmodel.data import evaluation_set
from worldmodel.errors import RunError
from worldmodel.viz.canvas import compose, text_strip, to_rgb
from worldmodel.viz.video import check_video_path, forecast_clip, write_video

EPISODES = 8
SIDE, GAP = 184, 6
START, END = "<!-- worlds -->", "<!-- /worlds -->"

Clip = tuple[np.ndarray, np.ndarray]
"""True frames and decoded forecast, each uint8 (K+1, H, W, C)."""


def clip(run: Run, steps: int) -> Clip:
    """Play and forecast one held-out episode."""
    with run.datasets() as datasets:
        seeds = datasets.train.seeds
    policy = run.config.data.policy
    with evaluation_set(
        "heldout",
        run.config,
        seeds,
        policy,
        episodes=EPISODES,
        steps=steps + run.model.frames.first,
    ) as episodes:
        longest = int(np.argmax(episodes.lengths))
        found = episodes.windows([longest], [0], int(episodes.lengths[longest]))
        forecast = forecast_clip(run.model, found.frames[0], found.actions[0])
    return forecast.truth, forecast.forecast


def tile(frame: np.ndarray) -> np.ndarray:
    """Enlarge a frame to a tile, uint8 (SIDE, SIDE, 3)."""
    image = Image.fromarray(to_rgb(frame))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def world_name(run: Run) -> str:
    """Name the world of a run: its environment without namespace and version."""
    return re.sub(r"^.*[/:]|-v\d+$", "", run.config.env.id or run.path.name)


def overview(names: Sequence[str], clips: Sequence[Clip], columns: int) -> Iterator[np.ndarray]:
    """Draw the frames of the overview, uint8 (H, W, 3)."""
    for k in range(max(len(truth) for truth, _ in clips)):
        cells = [
            cell(name, *(frames[min(k, len(frames) - 1)] for frames in shown))
            for name, shown in zip(names, clips, strict=True)
        ]
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
        rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
        yield np.vstack(rows)


def side_by_side(name: str, shown: Clip, dt: float) -> Iterator[np.ndarray]:
    """Draw the frames of the animation of one world, uint8 (H, W, 3)."""
    for k, frames in enumerate(zip(*shown, strict=True)):
        yield compose(frames, ["environment", "forecast"], name, f"k = {k}     {k * dt:.1f} s")


def write_page(page: Path, runs: Sequence[Run], clips: Sequence[Clip], fps: float) -> None:
    """Write an animation per run, and show them on the page.

    Args:
        page: a Markdown file with the lines ``<!-- worlds -->`` and ``<!-- /worlds -->``.
        runs: the runs.
        clips: a clip of each.
        fps: frames per second.

    Raises:
        ValueError: If the page lacks one of the lines.
    """
    text = page.read_text(encoding="utf-8")
    if not -1 < text.find(START) < text.find(END):
        raise ValueError(f"{page} has no lines {START} and {END}; add them where worlds are shown")
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    parts = [START]
    for run, shown in zip(runs, clips, strict=True):
        name = world_name(run)
        write_video(folder / f"{name}.gif", side_by_side(name, shown, run.dt), fps)
        parts.append(f"### {name}\n\n![{name} beside its forecast]({folder.name}/{name}.gif)")
        parts.append(f"{len(shown[0]) - 1} steps of a held-out episode of `{run.config.env.id}`.")
    before, after = text[: text.index(START)], text[text.index(END) :]
    page.write_text(before + "\n\n".join([*parts, after]), encoding="utf-8")


def cell(name: str, truth: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Draw one world: its name, the truth, and the forecast below."""
    parts = [text_strip([name], SIDE), tile(truth), np.full((2, SIDE, 3), 255, np.uint8)]
    column = np.vstack([*parts, tile(forecast)])
    return np.pad(column, ((0, GAP), (GAP // 2, GAP // 2), (0, 0)), constant_values=255)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the animations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("worlds.gif"), help="the overview")
    parser.add_argument("--page", type=Path, help="a page that shows an animation per run")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--fps", type=float, default=10.0)
    options = parser.parse_args(arguments)
    path = check_video_path(options.output)
    runs = [Run(each) for each in options.runs]
    try:
        for run in runs:
            run.require_decoder()
    except (RunError, ValueError) as error:
        parser.error(str(error))
    clips = [clip(run, options.steps) for run in runs]
    names = [world_name(run) for run in runs]
    write_video(path, overview(names, clips, options.columns), options.fps)
    if options.page is not None:
        write_page(options.page, runs, clips, options.fps)


if __name__ == "__main__":
    main()
