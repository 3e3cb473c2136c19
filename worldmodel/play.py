"""`worldmodel play`: drive reality and dream at once with the keyboard."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from worldmodel.playback.canvas import compose
from worldmodel.playback.keys import Keyboard
from worldmodel.playback.scenes import decode_newest
from worldmodel.playback.strips import curve_strip, text_strip
from worldmodel.playback.window import Window, require_display
from worldmodel.reality import make_env
from worldmodel.stage import Stage, open_stage

LABELS = ("reality", "dream")
SPEEDS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
SHOWN_STEPS = 200
LEAST_FPS = 20.0
QUIT_KEYS = {"q", "escape"}
HELP = "space pause   n one step   r reset   t resync dream   - + speed   q quit"


class Session:
    """Both worlds under the same actions.

    Args:
        stage: The run.
        env: Its real environment, from `make_env`.
        seed: Of the first reset.
        state_key: Of the environment's info, where the true state is.

    Attributes:
        errors: Of the dream since it last met reality, one a step.
        quit: Whether the user wants to leave.
    """

    def __init__(
        self, stage: Stage, env: gym.Env[np.ndarray, Any], seed: int, state_key: str = "state"
    ) -> None:
        self._stage, self._env, self._state_key = stage, env, state_key
        self._keyboard = Keyboard(env.action_space)
        self._speed = SPEEDS.index(1.0)
        self._due = 0.0
        self.paused, self.quit = False, False
        self._reset(seed)

    @property
    def fps(self) -> float:
        """Frames a second to show: one a step at full speed, and never fewer than 20."""
        return max(LEAST_FPS, 1.0 / self._stage.dt)

    def press(self, key: str) -> None:
        """React to a key that was pressed."""
        if key in QUIT_KEYS:
            self.quit = True
        elif key == "space":
            self.paused = not self.paused
        elif key == "n":
            self.paused, self._due = True, 1.0
        elif key == "r":
            self._reset()
        elif key == "t":
            self._meet()
        elif key in {"-", "+", "=", "[-]", "[+]"}:
            faster = -1 if "-" in key else 1
            self._speed = int(np.clip(self._speed + faster, 0, len(SPEEDS) - 1))

    def advance(self, held: Collection[str]) -> None:
        """Let the time of one shown frame pass, with some keys held down."""
        if not self.paused:
            self._due += SPEEDS[self._speed] / (self.fps * self._stage.dt)
        while self._due >= 1.0 - 1e-9:
            self._due -= 1.0
            self._step(self._keyboard.action(held))

    def image(self) -> np.ndarray:
        """What to show: uint8 (H, W, 3)."""
        channels = self._stage.wm.spec.frame_shape[-1]
        dreamt = decode_newest(self._stage.wm, self._z, channels)[0]
        status = "paused" if self.paused else f"speed {SPEEDS[self._speed]:g}x"
        if self._lost:
            status = f"dream out of domain   {status}"
        pushed = " ".join(f"{push:+.1f}" for push in np.ravel(self._action))
        seconds = self._steps * self._stage.dt
        caption = f"t = {seconds:.2f} s   action {pushed}   reward {self._reward:+.2f}"
        top = compose((self._observation[..., -channels:], dreamt), LABELS, caption, status)
        width = top.shape[1]
        meter = self._stage.meter
        below = curve_strip(self.errors, SHOWN_STEPS, meter.title, width, high=meter.full)
        return np.concatenate([top, below, text_strip([self._keyboard.help, HELP], width)])

    def _reset(self, seed: int | None = None) -> None:
        self._observation, self._info = self._env.reset(seed=seed)
        self._steps, self._reward, self._action = 0, 0.0, self._keyboard.action(())
        self._meet()

    def _meet(self) -> None:
        """The dream takes up reality's observation."""
        self._z = self._stage.wm.encode(self._observation[None])
        self.errors: list[float] = []
        self._lost = False
        self._measure()

    def _step(self, action: np.ndarray) -> None:
        self._action = action
        self._observation, reward, terminated, _, self._info = self._env.step(action)
        self._reward = float(reward)
        self._z = self._stage.wm.predict(self._z, torch.as_tensor(action)[None])
        self._steps += 1
        self._lost = bool(self._stage.domain.outside(self._z)[0])
        self._measure()
        if terminated:
            self._reset()

    def _measure(self) -> None:
        real = self._stage.wm.encode(self._observation[None]).cpu().numpy()
        state = self._info.get(self._state_key)
        states = None if state is None else np.asarray(state, float).reshape(1, -1)
        self.errors.append(float(self._stage.meter(self._z.cpu().numpy(), real, states)[0]))


def play(run: Path, *, seed: int, device: str) -> None:
    """Open a window and let the user drive, until it is closed.

    Args:
        run: A run directory.
        seed: Of the first reset.
        device: See `worldmodel.load`.

    Raises:
        RunError: There is no finished run.
        ValueError: It has nothing to show, or more actions than there are keys.
        OSError: There is no display.
    """
    stage = open_stage(run, device)
    require_display()
    env = make_env(run)
    session = Session(stage, env, seed, stage.config.data.state_key)
    window = Window(f"worldmodel play {run.name}")
    while not (session.quit or window.closed):
        for key in window.show(session.image()):
            session.press(key)
        session.advance(window.held)
        window.wait(session.fps)
    window.close()
    env.close()
