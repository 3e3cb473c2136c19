"""Where the episodes of a page start: real observations that the model was not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from worldmodel.callbacks import CallbackList
from worldmodel.data import ReplayBuffer, evaluation_set
from worldmodel.errors import RunError
from worldmodel.evaluation.probes import states_at
from worldmodel.latents import encode_at
from worldmodel.run import Run
from worldmodel.viz.video import decode_newest

COUNT = 12


@dataclass(frozen=True)
class Starts:
    """Observations at which imagined episodes can start.

    Attributes:
        latents: float32 (M, D).
        frames: uint8 (M, H, W, C), the newest frame of each; None for vectors.
        states: float64 (M, d), true states; None if they are unknown.
        source: what they are, in words.
    """

    latents: np.ndarray
    frames: np.ndarray | None
    states: np.ndarray | None
    source: str


def find_starts(run: Run, callbacks: CallbackList) -> Starts:
    """Take a random observation of each of some held-out episodes.

    Of own data, these are episodes of the run's split; others are collected. Where neither can be
    had on this machine, the page starts at latents of training observations, which it decodes.

    Args:
        run: a run with start latents.
        callbacks: callbacks that show progress and messages.
    """
    try:
        with _episodes(run, callbacks) as buffer:
            return _observed(run, buffer)
    except (ValueError, OSError, ImportError, RunError, gym.error.Error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        callbacks.on_message(
            f"There are no held-out episodes ({reason}); the page starts at decoded training "
            "observations",
            warning=True,
        )
    chosen = np.linspace(0, len(run.starts) - 1, min(COUNT, len(run.starts))).astype(int)
    latents = run.starts[chosen]
    frames = None if run.model.decoder is None else decode_newest(run.model, latents)
    return Starts(latents.cpu().numpy(), frames, None, "training observations, decoded")


@contextmanager
def _episodes(run: Run, callbacks: CallbackList) -> Iterator[ReplayBuffer]:
    """Open held-out episodes."""
    config = run.config
    if config.data.sources:
        with run.datasets([callbacks]) as data:
            assert data.heldout is not None  # own data always holds some
            yield data.heldout
        return
    with evaluation_set(
        "heldout",
        config,
        np.zeros(0, np.int64),  # collected training episodes have other seeds
        config.data.policy,
        episodes=COUNT,
        steps=config.data.steps,
        callbacks=[callbacks],
    ) as buffer:
        yield buffer


def _observed(run: Run, buffer: ReplayBuffer) -> Starts:
    """Choose one observation of each episode that has one which did not end it."""
    wm, rng = run.model, np.random.default_rng(0)
    ends = np.asarray(buffer.lengths) - np.asarray(buffer.terminated)
    usable = np.flatnonzero(ends > wm.frames.first)
    if not len(usable):
        raise ValueError("all of them are too short for an observation")
    episodes = usable[np.linspace(0, len(usable) - 1, min(COUNT, len(usable))).astype(int)]
    times = rng.integers(wm.frames.first, ends[episodes])
    frames = None
    if wm.spec.pixels:
        frames = wm.frames.newest(wm.frames.read(buffer, episodes, times))
    states = states_at(buffer, episodes, times) if buffer.state_dim else None
    return Starts(encode_at(wm, buffer, episodes, times), frames, states, "held-out episodes")
