"""A pygame window with keyboard input, to drive a real environment and its world model."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import DependencyNotInstalled

from worldmodel.callbacks import Callback, CallbackList
from worldmodel.run import Run
from worldmodel.viz.canvas import compose, curve_strip, text_strip
from worldmodel.viz.forecast_error import forecast_error
from worldmodel.viz.video import decode_newest

KEY_PAIRS = (("a", "d"), ("j", "l"), ("s", "w"), ("k", "i"))
"""Keys that set one dimension of a Box action to its lowest and to its highest value."""

QUIT_KEYS = frozenset({"q", "escape"})
SPEEDS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
SHOWN_STEPS = 200
"""Steps of the error curve."""

MAX_STEPS_OUTSIDE = 200
"""Consecutive imagined steps out of distribution, after which the model is resynchronized."""

_MAX_DISCRETE = 9
_MIN_FPS = 20.0
_HELP = "space: pause   n: one step   r: reset   t: resync the model   - +: speed   q: quit"


class Window:
    """A pygame window of the size of the images, opened by the first `show`.

    If the user closes it, later images are dropped and nothing else happens.

    Args:
        title: title of the window.

    Attributes:
        closed: whether the window has been closed.
        held: pygame's names of the keys that are held down.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._screen: Any = None
        self._clock: Any = None
        self.closed = False
        self.held: set[str] = set()

    def show(self, image: np.ndarray) -> list[str]:
        """Show an image.

        Args:
            image: image uint8 (H, W, 3).

        Returns:
            Names of the keys pressed since the last call, in order.
        """
        pygame = _import_pygame()
        if self._screen is None and not self.closed:
            self._open(pygame, (image.shape[1], image.shape[0]))
        pressed = [] if self.closed else self._process_events(pygame)
        if not self.closed:
            self._screen.blit(pygame.surfarray.make_surface(image.swapaxes(0, 1)), (0, 0))
            pygame.display.flip()
        return pressed

    def wait(self, fps: float) -> None:
        """Wait until 1 / `fps` seconds have passed since the last call."""
        if self._clock is not None:
            self._clock.tick(fps)

    def close(self) -> None:
        """Close the window permanently; does nothing if it is closed already."""
        if self._screen is not None:
            _import_pygame().display.quit()
            self._screen = None
        self.closed = True
        self.held.clear()

    def _open(self, pygame: Any, size: tuple[int, int]) -> None:
        pygame.display.init()
        self._screen = pygame.display.set_mode(size)
        pygame.display.set_caption(self._title)
        self._clock = pygame.time.Clock()

    def _process_events(self, pygame: Any) -> list[str]:
        pressed: list[str] = []
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self.close()
                return pressed
            if event.type == pygame.KEYDOWN:
                name = pygame.key.name(event.key)
                pressed.append(name)
                self.held.add(name)
            elif event.type == pygame.KEYUP:
                self.held.discard(pygame.key.name(event.key))
        return pressed


def require_display(alternative: str = "") -> None:
    """Check, before anything is computed, that there is a display for a window.

    Args:
        alternative: another way to proceed, named before "start a virtual display".

    Raises:
        OSError: If there is no display.
    """
    known = {"DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"} & os.environ.keys()
    if sys.platform == "linux" and not known:
        raise OSError(
            "there is no display for a window (neither DISPLAY nor WAYLAND_DISPLAY is set); "
            f"{alternative}start a virtual display with xvfb-run"
        )


class Keyboard:
    """Converts the keys that are held down to actions of a space.

    Each dimension of a Box action has a pair of keys, and is in the middle of its bounds if neither
    is held. Discrete actions have the digits from 1; the last digit pressed stays selected.

    Args:
        space: action space, a flat Box of at most 4 dimensions or a Discrete of at most 9 actions.

    Raises:
        ValueError: If there are more dimensions or actions than keys.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self._space = space
        if isinstance(space, gym.spaces.Discrete):
            fits = bool(space.n <= _MAX_DISCRETE)
        else:
            fits = isinstance(space, gym.spaces.Box) and space.shape[0] <= len(KEY_PAIRS)
        if not fits:
            raise ValueError(
                f"there are not enough keys to play with {space}; expected a Box of at most "
                f"{len(KEY_PAIRS)} numbers or a Discrete of at most {_MAX_DISCRETE}"
            )
        self._chosen = 0

    @property
    def help(self) -> str:
        """Short description of the keys."""
        if isinstance(self._space, gym.spaces.Discrete):
            return f"1 to {self._space.n}: choose the action"
        assert self._space.shape is not None
        pairs = KEY_PAIRS[: self._space.shape[0]]
        return "   ".join(f"{low}/{high}: action {i}" for i, (low, high) in enumerate(pairs, 1))

    def action(self, held: Collection[str]) -> np.ndarray:
        """Return the action for the keys that are held down."""
        if isinstance(self._space, gym.spaces.Discrete):
            digits = [int(key) - 1 for key in held if key.isdigit() and key != "0"]
            self._chosen = next((d for d in digits if d < self._space.n), self._chosen)
            return np.asarray(self._space.start + self._chosen)
        assert isinstance(self._space, gym.spaces.Box)
        low, high = self._space.low, self._space.high
        action = (low + high) / 2
        for i, (down, up) in enumerate(KEY_PAIRS[: len(action)]):
            if down in held and up not in held:
                action[i] = low[i]
            elif up in held and down not in held:
                action[i] = high[i]
        return np.asarray(action, self._space.dtype)


class Pace:
    """How fast time passes in a window: paused, in single steps, or at one of `SPEEDS`.

    Attributes:
        paused: whether time stands still.
    """

    def __init__(self) -> None:
        self.paused = False
        self._speed = SPEEDS.index(1.0)
        self._pending_steps = 0.0

    def __str__(self) -> str:
        return "paused" if self.paused else f"speed {SPEEDS[self._speed]:g}x"

    def press(self, key: str) -> bool:
        """React to a key that was pressed; return whether it is one of the pace."""
        if key == "space":
            self.paused = not self.paused
        elif key == "n":
            self.paused, self._pending_steps = True, 1.0
        elif key in {"-", "+", "=", "[-]", "[+]"}:
            change = -1 if "-" in key else 1
            self._speed = int(np.clip(self._speed + change, 0, len(SPEEDS) - 1))
        else:
            return False
        return True

    def due(self, steps: float) -> Iterator[None]:
        """Yield once per step that is due, when `steps` steps pass per image at normal speed."""
        if not self.paused:
            self._pending_steps += SPEEDS[self._speed] * steps
        while self._pending_steps >= 1.0 - 1e-9:
            self._pending_steps -= 1.0
            yield

    def drop(self) -> None:
        """Drop the steps that are due."""
        self._pending_steps = 0.0


class PlaySession:
    """A real environment and its world model under the same actions.

    The model encodes the first observation and then only predicts, until the user resynchronizes
    it with the environment, or it has been out of distribution for `MAX_STEPS_OUTSIDE` steps.

    Args:
        run: a finished run, with a decoder.
        env: the run's real environment, from `Run.make_env`.
        seed: random seed of the first reset.

    Attributes:
        errors: errors of the prediction since the model last encoded an observation, of at most the
            last `SHOWN_STEPS` steps.
        quit: whether the user wants to quit.
    """

    def __init__(self, run: Run, env: gym.Env[np.ndarray, Any], seed: int) -> None:
        self._run, self._wm, self._env = run, run.model, env
        self._keyboard = Keyboard(env.action_space)
        self._pace, self.quit = Pace(), False
        self._reset(seed)
        self._error = forecast_error(run, self._states())
        self._resync()

    @property
    def fps(self) -> float:
        """Images per second, one per step at normal speed, and at least 20."""
        return max(_MIN_FPS, 1.0 / self._run.dt)

    def press(self, key: str) -> None:
        """React to a key that was pressed."""
        if key in QUIT_KEYS:
            self.quit = True
        elif key == "r":
            self._reset()
            self._resync()
        elif key == "t":
            self._resync()
        else:
            self._pace.press(key)

    def advance(self, held: Collection[str]) -> None:
        """Take the steps that are due in the time of one image, with these keys held down."""
        for _ in self._pace.due(1.0 / (self.fps * self._run.dt)):
            self._step(self._keyboard.action(held))

    def image(self) -> np.ndarray:
        """Draw both environments above the error of the prediction, uint8 (H, W, 3)."""
        real = self._wm.frames.newest(self._observation)
        imagined = decode_newest(self._wm, self._z)[0]
        labels = (
            "real environment",
            "imagined" + ", out of distribution" * bool(self._steps_outside),
        )
        action = " ".join(f"{number:+.1f}" for number in np.ravel(self._action))
        seconds = self._steps * self._run.dt
        caption = f"t = {seconds:.2f} s   action {action}   reward {self._reward:+.2f}"
        top = compose((real, imagined), labels, caption, str(self._pace))
        width, error = top.shape[1], self._error
        curve = curve_strip(list(self.errors), SHOWN_STEPS, error.title, width, high=error.high)
        return np.concatenate([top, curve, text_strip([self._keyboard.help, _HELP], width)])

    def _reset(self, seed: int | None = None) -> None:
        self._observation, self._info = self._env.reset(seed=seed)
        self._steps, self._reward, self._action = 0, 0.0, self._keyboard.action(())

    def _resync(self) -> None:
        """Encode the real observation and predict from there."""
        self._z = self._wm.encode(self._observation[None])
        self._steps_outside = 0
        self.errors: deque[float] = deque(maxlen=SHOWN_STEPS + 1)
        self._measure_error()

    def _step(self, action: np.ndarray) -> None:
        self._action = action
        self._observation, reward, terminated, _, self._info = self._env.step(action)
        self._reward = float(reward)
        self._z = self._wm.predict(self._z, torch.as_tensor(action)[None])
        self._steps += 1
        finite = bool(self._z.isfinite().all())
        outside = not finite or bool(self._run.domain.outside(self._z)[0])
        self._steps_outside = self._steps_outside + 1 if outside else 0
        if terminated:
            self._reset()
        if terminated or not finite or self._steps_outside >= MAX_STEPS_OUTSIDE:
            self._resync()
        else:
            self._measure_error()

    def _measure_error(self) -> None:
        real = self._wm.encode(self._observation[None]).cpu().numpy()
        error = self._error(self._z.cpu().numpy(), real, self._states())
        self.errors.append(float(error[0]))

    def _states(self) -> np.ndarray | None:
        """Return the true state, float64 (1, d); None if the environment does not give it."""
        state = self._info.get(self._run.config.data.state_key)
        return None if state is None else np.asarray(state, float).reshape(1, -1)


def play(run: Run, *, seed: int = 20_000, callbacks: Sequence[Callback] = ()) -> None:
    """Open a window and let the user drive, until it is closed.

    Args:
        run: a finished run.
        seed: random seed of the first reset.
        callbacks: callbacks that receive messages.

    Raises:
        RunError: If the run is not finished.
        ValueError: If the model has no decoder, or there are more actions than keys.
        OSError: If there is no display.
    """
    run.require_decoder()
    _ = run.domain  # fails before the window opens
    require_display()
    run.warn_if_one_action(CallbackList(callbacks))
    with closing(run.make_env()) as env:
        session = PlaySession(run, env, seed)
        window = Window(f"worldmodel play {run.path.name}")
        with closing(window):
            while not (session.quit or window.closed):
                for key in window.show(session.image()):
                    session.press(key)
                session.advance(window.held)
                window.wait(session.fps)


def _import_pygame() -> Any:
    try:
        import pygame
    except ImportError as error:
        raise DependencyNotInstalled("a window needs pygame: run `pip install pygame`") from error
    return pygame
