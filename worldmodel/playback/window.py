"""A window that shows images and hears keys."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled


def _import_pygame() -> Any:
    try:
        import pygame
    except ImportError as error:
        raise DependencyNotInstalled("a window needs pygame: run `pip install pygame`") from error
    return pygame


class Window:
    """A pygame window as large as what it shows, opened by the first `show`.

    The user's closing it ends the display, not the run: later images are dropped.

    Args:
        title: Of the window.

    Attributes:
        closed: Whether it has been closed.
        held: Names of the keys that are down, as pygame names them.
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
            image: uint8 (H, W, 3).

        Returns:
            Names of the keys pressed since the last call, in order.
        """
        pygame = _import_pygame()
        if self._screen is None and not self.closed:
            self._open(pygame, (image.shape[1], image.shape[0]))
        pressed = [] if self.closed else self._hear(pygame)
        if not self.closed:
            self._screen.blit(pygame.surfarray.make_surface(image.swapaxes(0, 1)), (0, 0))
            pygame.display.flip()
        return pressed

    def wait(self, fps: float) -> None:
        """Wait until a frame's time has passed since the last call."""
        if self._clock is not None:
            self._clock.tick(fps)

    def close(self) -> None:
        """Close the window for good; harmless when it is closed already."""
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

    def _hear(self, pygame: Any) -> list[str]:
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


def require_display(instead: str = "") -> None:
    """Find out, before anything is computed, whether a window can be seen.

    Args:
        instead: What else the user may do, in front of "start a virtual display".

    Raises:
        OSError: If there is no display.
    """
    seen = {"DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"} & os.environ.keys()
    if sys.platform == "linux" and not seen:
        raise OSError(
            "there is no display for a window (neither DISPLAY nor WAYLAND_DISPLAY is set); "
            f"{instead}start a virtual display with xvfb-run"
        )
