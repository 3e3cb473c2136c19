"""One animation of several worlds: held-out episodes above their open-loop forecasts.

    python -m benchmarks.gallery RUN [RUN ...] --output docs/worlds.gif

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
from worldmodel.viz.canvas import text_strip, to_rgb
from worldmodel.viz.video import check_video_path, forecast_clip, write_video

EPISODES = 8
SIDE, GAP = 184, 6


def clip(run: Run, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Play and forecast one held-out episode.

    Returns:
        True frames and decoded forecast, each uint8 (K+1, H, W, C).
    """
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


def images(runs: Sequence[Run], steps: int, columns: int) -> Iterator[np.ndarray]:
    """Draw the frames of the animation, uint8 (H, W, 3)."""
    clips = [clip(run, steps) for run in runs]
    names = [re.sub(r"^.*/|-v\d+$", "", run.config.env.id or run.path.name) for run in runs]
    for k in range(steps + 1):
        cells = [
            cell(name, *(frames[min(k, len(frames) - 1)] for frames in shown))
            for name, shown in zip(names, clips, strict=True)
        ]
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
        rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
        yield np.vstack(rows)


def cell(name: str, truth: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Draw one world: its name, the truth, and the forecast below."""
    parts = [text_strip([name], SIDE), tile(truth), np.full((2, SIDE, 3), 255, np.uint8)]
    column = np.vstack([*parts, tile(forecast)])
    return np.pad(column, ((0, GAP), (GAP // 2, GAP // 2), (0, 0)), constant_values=255)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the animation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("worlds.gif"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--fps", type=float, default=10.0)
    options = parser.parse_args(arguments)
    path = check_video_path(options.output)
    runs = [Run(each) for each in options.runs]
    write_video(path, images(runs, options.steps, options.columns), options.fps)


if __name__ == "__main__":
    main()
