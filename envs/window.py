"""The window of `render_mode="human"`, with the scene above a panel of torques, time and reward."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled

from .physics import Floats
from .raster import BACKGROUND, BOB1, PIVOT, Frames

TEXT = (214, 219, 230)
GROOVE = (44, 50, 68)
PANEL = (25, 29, 43)
MIN_WIDTH = 400


def _import_pygame() -> Any:
    try:
        import pygame
    except ImportError as error:
        raise DependencyNotInstalled(
            'render_mode="human" needs pygame: run `pip install pygame`'
        ) from error
    return pygame


class Window:
    """A pygame window, opened by the first `show`.

    When the user closes the window, later frames are dropped and the program continues.

    Args:
        size: Height and width of the scene in pixels. The window is at least `MIN_WIDTH` wide.
        fps: Maximum frames per second; `show` waits if it is called faster.
    """

    def __init__(self, size: int, fps: int) -> None:
        self._size = size
        self._width = max(size, MIN_WIDTH)
        self._panel = self._width // 6
        self._fps = fps
        self._screen: Any = None
        self.closed = False

    def show(self, frame: Frames, effort: Floats, seconds: float, reward: float) -> None:
        """Display one frame.

        Args:
            frame: Scene, (size, size, 3) uint8.
            effort: Torques on shoulder and elbow divided by the maximum torque, (2,) in [-1, 1].
            seconds: Simulated time since the start of the episode, in s.
            reward: Reward of the last step.

        Raises:
            DependencyNotInstalled: If pygame is not installed.
        """
        pygame = _import_pygame()
        if self._screen is None and not self.closed:
            self._open(pygame)
        if self.closed or any(event.type == pygame.QUIT for event in pygame.event.get()):
            self.close()
            return
        surface = pygame.surfarray.make_surface(np.swapaxes(frame, 0, 1))
        self._screen.fill(BACKGROUND)
        self._screen.blit(surface, ((self._width - self._size) // 2, 0))
        self._draw_panel(pygame, effort, seconds, reward)
        pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close the window permanently; does nothing if it is closed."""
        if self._screen is not None:
            pygame = _import_pygame()
            pygame.display.quit()
            pygame.font.quit()
            self._screen = None
        self.closed = True

    def _open(self, pygame: Any) -> None:
        pygame.display.init()
        pygame.font.init()
        self._screen = pygame.display.set_mode((self._width, self._size + self._panel))
        pygame.display.set_caption("Double pendulum")
        self._clock = pygame.time.Clock()
        self._font = pygame.font.Font(None, self._panel // 3)

    def _draw_panel(self, pygame: Any, effort: Floats, seconds: float, reward: float) -> None:
        panel = pygame.Rect(0, self._size, self._width, self._panel)
        self._screen.fill(PANEL, panel)
        row = self._panel // 2
        labels = (("shoulder", PIVOT), ("elbow", BOB1))
        for i, (label, color) in enumerate(labels):
            middle = panel.top + row * i + row // 2
            self._text(label, 0.04, middle)
            self._draw_bar(pygame, middle, float(effort[i]), color)
        self._text(f"time {seconds:6.2f} s", 0.7, panel.top + row // 2)
        self._text(f"reward {reward:+.3f}", 0.7, panel.top + row + row // 2)

    def _draw_bar(
        self, pygame: Any, middle: int, effort: float, color: tuple[int, int, int]
    ) -> None:
        half, height = int(0.2 * self._width), self._panel // 6
        center = int(0.45 * self._width)
        groove = pygame.Rect(center - half, middle - height // 2, 2 * half, height)
        pygame.draw.rect(self._screen, GROOVE, groove, border_radius=height // 2)
        length = round(abs(effort) * half)
        left = center - length if effort < 0 else center
        bar = pygame.Rect(left, groove.top, length, height)
        pygame.draw.rect(self._screen, color, bar)
        mark = pygame.Rect(center - 1, groove.top - 3, 2, height + 6)
        pygame.draw.rect(self._screen, TEXT, mark)

    def _text(self, text: str, left: float, middle: int) -> None:
        image = self._font.render(text, True, TEXT, PANEL)
        self._screen.blit(image, (int(left * self._width), middle - image.get_height() // 2))
