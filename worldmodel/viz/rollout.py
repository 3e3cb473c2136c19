"""Rollout: one real episode beside the same episode imagined open loop, as a video or a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.callbacks import Advance, Callback, CallbackList
from worldmodel.data import Episode, Policy, collect_kwargs, play_episode, resolve
from worldmodel.evaluation.forecast import reported_steps
from worldmodel.hub import local_path
from worldmodel.planning import planner_of
from worldmodel.run import Run
from worldmodel.viz.canvas import compose, curve_strip
from worldmodel.viz.forecast_error import ForecastError, forecast_error
from worldmodel.viz.video import ForecastClip, check_video_path, forecast_clip, write_video
from worldmodel.viz.viewer import QUIT_KEYS, Window, require_display

PANELS = ("real environment", "imagined")


def rollout(
    run: Run,
    *,
    policy: str | Path | Policy | None = None,
    seed: int = 20_000,
    state: Sequence[float] | None = None,
    steps: int = 100,
    output: str | Path | None = None,
    window: bool = False,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Play a real episode, imagine it open loop from its first observation, and show both.

    Args:
        run: a finished run.
        policy: policy that chooses the actions, see `collect`; for a run directory, its model
            plans every step. By default the policy that collected the run's data.
        seed: random seed of the environment and the policy.
        state: true state to start in; by default it is drawn as in the run's data.
        steps: maximum number of imagined steps; the environment may end the episode earlier. They
            start when there are enough real frames for one observation.
        output: path of the video; by default ``rollout.mp4`` in the run directory.
        window: whether to show a window instead of writing a video.
        callbacks: callbacks that show progress and messages.

    Returns:
        `steps`, `seed`, `policy`, `measure` (of the error), `error` (step as a string -> error),
        and `video` (a path, or None).

    Raises:
        RunError: If the run is not finished.
        ValueError: If the model has no decoder, or an argument does not fit the run.
        OSError: If there is no display for the window, or the video cannot be written.
    """
    callback = CallbackList(callbacks)
    run.require_decoder()
    if window and output is not None:
        raise ValueError("a rollout is shown in a window or written to an output; give one of them")
    path = None if window else check_video_path(output or run.path / "rollout.mp4")
    if window:
        require_display("write a video with --output, or ")
    recorded = run.config.data.policy
    policy = policy or ("random" if recorded == "recorded" else recorded)
    if policy != recorded:
        run.warn_if_one_action(callback)
    episode = _play_episode(run, policy, seed, state, steps)
    played = forecast_clip(run.model, episode.frames, episode.actions)
    states = None if episode.states is None else episode.states[run.model.frames.first :]
    error = forecast_error(run, states)
    errors = error(played.latents, played.encoded, states)
    with callback.task("rollout", len(errors)) as advance:
        images = _counted(rollout_frames(played, errors, error, run.dt), advance)
        if path is None:
            _show(images, 1.0 / run.dt)
        else:
            write_video(path, images, 1.0 / run.dt)
    last = len(errors) - 1
    return {
        "steps": last,
        "seed": seed,
        "policy": type(policy).__name__ if isinstance(policy, Policy) else str(policy),
        "measure": error.title,
        "error": {str(k): float(errors[k]) for k in sorted({*reported_steps(last), last})},
        "video": None if path is None else str(path),
    }


def parse_state(text: str) -> list[float]:
    """Read the numbers of a state, separated by commas or spaces.

    Raises:
        ValueError: If the text holds anything else.
    """
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise ValueError(
            f'--state is {text!r}; expected numbers, e.g. --state "3.1 0 0 0"'
        ) from error


def rollout_frames(
    played: ForecastClip, errors: np.ndarray, error: ForecastError, dt: float
) -> Iterator[np.ndarray]:
    """Draw real and imagined frames side by side above the error curve.

    Args:
        played: the episode.
        errors: (K+1,), errors of the forecast at steps 0 to K.
        error: the error measure that `errors` were computed with.
        dt: seconds per step.

    Yields:
        K+1 images uint8 (H, W, 3).
    """
    last = len(errors) - 1
    for k, panels in enumerate(zip(played.truth, played.forecast, strict=True)):
        top = compose(panels, PANELS, f"t = {k * dt:.2f} s", f"step {k} of {last}, open loop")
        width = top.shape[1]
        curve = curve_strip(errors[: k + 1], last, error.title, width, high=error.high)
        yield np.concatenate([top, curve])


def _show(images: Iterator[np.ndarray], fps: float) -> None:
    """Show images in a window, once; the last one stays until a key is pressed."""
    window = Window("Real and imagined episode")
    for image in images:
        if QUIT_KEYS.intersection(window.show(image)) or window.closed:
            break
        window.wait(fps)
    else:
        while not window.closed and not window.show(image):
            window.wait(fps)
    window.close()


def _counted(images: Iterator[np.ndarray], advance: Advance) -> Iterator[np.ndarray]:
    for done, image in enumerate(images, 1):
        yield image
        advance(done)


def _play_episode(
    run: Run, policy: str | Path | Policy, seed: int, state: Sequence[float] | None, steps: int
) -> Episode:
    options = None
    if state is not None:
        options = run.plugin.set_state_options(state)
        if options is None:
            raise ValueError(
                f"the state of {run.config.env.id} cannot be set; leave it out and choose a seed"
            )
    recipe = resolve(
        **collect_kwargs(run.config),
        policy=_planner_if_run(policy),
        steps=steps + run.model.frames.first,
    )
    return play_episode(recipe, seed, options)


def _planner_if_run(policy: str | Path | Policy) -> str | Path | Policy:
    """Replace a run directory by the policy that plans every step with its model."""
    if isinstance(policy, Policy):
        return policy
    path = local_path(policy)
    return planner_of(Run(path)) if (path / "config.yaml").is_file() else policy
