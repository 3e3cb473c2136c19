"""`worldmodel rollout`: one episode of the real environment beside the dream of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data import Episode, play_episode, resolve
from worldmodel.datasets import environment, is_run
from worldmodel.evaluation import pendulum_task
from worldmodel.evaluation.forecast import reported_steps
from worldmodel.imagination.planned import planner_of
from worldmodel.playback.canvas import compose
from worldmodel.playback.meter import Meter
from worldmodel.playback.scenes import Scene, scene
from worldmodel.playback.strips import curve_strip
from worldmodel.playback.window import Window, require_display
from worldmodel.playback.writers import check_video_path, write_video
from worldmodel.stage import Stage, open_stage

LABELS = ("reality", "dream")
QUIT_KEYS = {"q", "escape"}


def rollout(
    run: Path,
    *,
    policy: str | None,
    seed: int,
    state: Sequence[float] | None,
    steps: int,
    output: Path | None,
    window: bool,
    device: str,
) -> dict[str, Any]:
    """Play an episode, dream it from its first observation, and show both.

    Args:
        run: A run directory.
        policy: Who acts, see `collect`; of a run directory, its model's planner at every step.
            None for the policy of the run's data.
        seed: Of the environment and the policy.
        state: To start in, [θ1, θ2, ω1, ω2]; None to draw one as for the run's data.
        steps: Of the dream at most; the environment may end the episode earlier. The dream begins
            when as many frames have been seen as the model takes.
        output: The video; None for ``rollout.mp4`` in the run directory.
        window: Show it in a window instead.
        device: See `worldmodel.load`.

    Returns:
        `steps`, `seed`, `policy`, `measure`, `error` (step as a string -> error), and `video`.

    Raises:
        RunError: There is no finished run.
        ValueError: An argument does not fit the run.
    """
    stage = open_stage(run, device)
    if window and output is not None:
        raise ValueError("--window shows what --output would write; give one of them")
    path = None if window else check_video_path(output or run / "rollout.mp4")
    if window:
        require_display("write a video with --output, or ")
    policy = policy or stage.config.data.policy
    episode = _play(stage, policy, seed, state, steps)
    played = scene(stage.wm, episode.frames, episode.actions)
    true = None if episode.states is None else episode.states[stage.wm.frame_stack - 1 :]
    errors = stage.meter(played.latents, played.encoded, true)
    images = rollout_frames(played, errors, stage.meter, stage.dt)
    if path is None:
        show(images, 1.0 / stage.dt)
    else:
        write_video(path, images, 1.0 / stage.dt)
    last = len(errors) - 1
    return {
        "steps": last,
        "seed": seed,
        "policy": policy,
        "measure": stage.meter.title,
        "error": {str(k): float(errors[k]) for k in sorted({*reported_steps(last), last})},
        "video": None if path is None else str(path),
    }


def parse_state(text: str) -> list[float]:
    """Numbers of a state, apart by commas or blanks.

    Raises:
        ValueError: If there is something else.
    """
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise ValueError(
            f'--state is {text!r}; expected numbers, as in --state "3.1 0 0 0"'
        ) from error


def rollout_frames(
    played: Scene, errors: np.ndarray, meter: Meter, dt: float
) -> Iterator[np.ndarray]:
    """Reality and dream side by side, the error under them: K+1 of uint8 (H, W, 3)."""
    last = len(errors) - 1
    for k, panels in enumerate(zip(played.truth, played.forecast, strict=True)):
        top = compose(panels, LABELS, f"t = {k * dt:.2f} s", f"step {k} of {last}, open loop")
        width = top.shape[1]
        below = curve_strip(errors[: k + 1], last, meter.title, width, high=meter.full)
        yield np.concatenate([top, below])


def show(images: Iterator[np.ndarray], fps: float) -> None:
    """Show images in a window, once; the last one stays until a key or the window's closing."""
    window = Window("Reality and dream")
    for image in images:
        if QUIT_KEYS.intersection(window.show(image)) or window.closed:
            break
        window.wait(fps)
    else:
        while not window.closed and not window.show(image):
            window.wait(fps)
    window.close()


def _play(
    stage: Stage, policy: str, seed: int, state: Sequence[float] | None, steps: int
) -> Episode:
    world = environment(stage.config)
    options = None
    if state is not None:
        if pendulum_task(world["env_id"], world["env_kwargs"]) is None:
            raise ValueError(f"{world['env_id']} cannot be set to a state; start it from a seed")
        options = {"state": list(state)}
    first = stage.wm.frame_stack - 1
    acting = planner_of(Path(policy)) if is_run(policy) else policy
    return play_episode(resolve(**world, policy=acting, steps=steps + first), seed, options)
