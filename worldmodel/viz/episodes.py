"""Recorded episodes of any data source: played in a window, or drawn as a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from textwrap import shorten

import numpy as np
from PIL import Image, ImageDraw

from worldmodel.data.convert import frame_rate, open_episodes
from worldmodel.data.reader import Reader
from worldmodel.data.rollout import Episode
from worldmodel.data.store import stored_frames
from worldmodel.files import replacing
from worldmodel.viz.canvas import BACKGROUND, BORDER, CAPTION, LABEL, compose, font, text_strip
from worldmodel.viz.viewer import QUIT_KEYS, Pace, Window, require_display

_WIDTH = 460
"""Least width of the window."""
_MAX_ACTION = 34
"""Most characters of an action."""
_UNUSED = 34
"""Pixels at the bottom of a panel, without a caption."""
_MIN_FPS = 20.0
_HELP = (
    "space: pause   n: one step   left, right: episode",
    "- +: speed   r: from the start   q: quit",
)
_CELL, _GAP, _LEFT, _TOP, _TIME = 128, 8, 150, 12, 20
"""Side of an image of a sheet, and pixels between, left of, above and below them."""


class Recording:
    """Image episodes of a source, read one at a time.

    Args:
        reader: the source.
        fps: frames per second; None for those of the source or its environment.

    Attributes:
        count: number of episodes.
        fps: frames per second.

    Raises:
        ValueError: If its observations are not images.
    """

    def __init__(self, reader: Reader, fps: float | None = None) -> None:
        self._reader = reader
        self.count = reader.count if reader.count is not None else sum(1 for _ in reader)
        self.fps = frame_rate(reader) if fps is None else fps
        self[0]

    def __getitem__(self, number: int) -> Episode:
        """Read an episode, with frames uint8 (T+1, H, W, C), C 1 or 3."""
        if not 0 <= number < self.count:
            raise ValueError(f"there is no episode {number}; expected 0 to {self.count - 1}")
        episode = self._reader.episode(number)
        frames = stored_frames(episode.frames, None)
        if frames.ndim != 4:
            raise ValueError(
                f"the observations are vectors of {frames.shape[-1]} numbers, not images, so there "
                "is nothing to show"
            )
        channels = frames.shape[-1]
        return episode._replace(frames=frames[..., : 3 if channels >= 3 else 1])


def end_of(episode: Episode) -> str:
    """Return how an episode ended: ``terminated``, or ``truncated`` for any other end."""
    return "terminated" if episode.terminated else "truncated"


class EpisodePlayer:
    """Plays the episodes of a recording, one after another.

    Args:
        recording: the episodes.
        number: episode to start with.

    Attributes:
        number: episode that is shown.
        time: step that is shown, 0 to T.
        quit: whether the user wants to quit.
    """

    def __init__(self, recording: Recording, number: int = 0) -> None:
        self._recording = recording
        self._pace, self.quit = Pace(), False
        self._show(number)

    @property
    def paused(self) -> bool:
        """Whether time stands still."""
        return self._pace.paused

    @property
    def fps(self) -> float:
        """Images per second, one per frame at normal speed, and at least 20."""
        return max(_MIN_FPS, self._recording.fps)

    def press(self, key: str) -> None:
        """React to a key that was pressed."""
        if key in QUIT_KEYS:
            self.quit = True
        elif key == "r":
            self._show(self.number)
        elif key in {"left", "right"}:
            step = 1 if key == "right" else -1
            self._show((self.number + step) % self._recording.count)
        else:
            self._pace.press(key)

    def advance(self) -> None:
        """Take the steps that are due in the time of one image.

        After its last frame an episode is followed by the next one, the last by the first.
        """
        for _ in self._pace.due(self._recording.fps / self.fps):
            if self.time < len(self._episode.actions):
                self.time += 1
            else:
                self._show((self.number + 1) % self._recording.count)

    def image(self) -> np.ndarray:
        """Draw the frame above its step, action, reward and end, uint8 (H, W, 3)."""
        episode, time = self._episode, self.time
        steps = len(episode.actions)
        seed = f", seed {episode.seed}" if episode.seed >= 0 else ""
        label = f"episode {self.number} (0 to {self._recording.count - 1}){seed}"
        panel = compose((episode.frames[time],), (label,), "")[:-_UNUSED]
        lines = [
            f"frame {time} of {steps}   t = {time / self._recording.fps:.2f} s   {self._pace}",
            self._step_text(time),
            end_of(episode) if time == steps else "",
            *_HELP,
        ]
        width = max(panel.shape[1], _WIDTH)
        return np.concatenate([_widen(panel, width), text_strip(lines, width)])

    def _show(self, number: int) -> None:
        self._episode, self.number = self._recording[number], number
        self.time = 0
        self._pace.drop()

    def _step_text(self, time: int) -> str:
        """Describe the action and the reward that led to the frame."""
        if time == 0:
            return "first frame"
        action = np.ravel(self._episode.actions[time - 1])
        whole = action.dtype.kind in "iub"
        numbers = " ".join(f"{number}" if whole else f"{number:+.2f}" for number in action)
        reward = float(np.ravel(self._episode.rewards)[time - 1])
        action_text = shorten(numbers, _MAX_ACTION, placeholder=" ...")
        return f"action {action_text}   reward {reward:+.3f}"


def view(
    path: str | Path,
    *,
    episode: int = 0,
    fps: float | None = None,
    observation_key: str | None = None,
) -> None:
    """Play recorded episodes in a window, until it is closed.

    Args:
        path: a source of episodes; see `worldmodel.data.convert`.
        episode: episode to start with.
        fps: frames per second; None for those of the source or its environment.
        observation_key: entry with the images; None for the usual names.

    Raises:
        ValueError: If it cannot be read, has no images, or no such episode.
        OSError: If there is no display.
    """
    recording = Recording(open_episodes(path, None, observation_key), fps)
    player = EpisodePlayer(recording, episode)
    require_display("write images with --sheet FILE.png, or ")
    with closing(Window(f"worldmodel view {path}")) as window:
        while not (player.quit or window.closed):
            for key in window.show(player.image()):
                player.press(key)
            player.advance()
            window.wait(player.fps)


def write_sheet(
    path: str | Path,
    sheet: str | Path,
    *,
    episode: int | None = None,
    fps: float | None = None,
    observation_key: str | None = None,
    rows: int = 6,
    columns: int = 8,
) -> list[int]:
    """Write a contact sheet: a row per episode, a column per time, first and last frame included.

    Args:
        path: a source of episodes; see `worldmodel.data.convert`.
        sheet: the image, which ends in ``.png``.
        episode: first episode; None for episodes spread evenly over the source.
        fps: frames per second; None for those of the source or its environment.
        observation_key: entry with the images; None for the usual names.
        rows: most episodes.
        columns: most times.

    Returns:
        Numbers of the episodes shown.

    Raises:
        ValueError: If it cannot be read, has no images, or no such episode, or the sheet's name
            does not end in ``.png``.
        FileNotFoundError: If the directory of the sheet does not exist.
    """
    sheet = Path(sheet)
    if sheet.suffix != ".png":
        raise ValueError(f"cannot write the sheet to {sheet}; give a path that ends in .png")
    if not sheet.absolute().parent.is_dir():
        raise FileNotFoundError(f"the directory {sheet.parent} does not exist; create it first")
    recording = Recording(open_episodes(path, None, observation_key), fps)
    if episode is None:
        last = recording.count - 1
        numbers = np.unique(np.linspace(0, last, min(rows, recording.count)).round()).astype(int)
        chosen = [int(number) for number in numbers]
    else:
        chosen = list(range(episode, min(episode + rows, recording.count))) or [episode]
    image = contact_sheet(recording, chosen, columns)
    with replacing(sheet) as temporary:
        Image.fromarray(image).save(temporary)
    return chosen


def contact_sheet(recording: Recording, episodes: Sequence[int], columns: int = 8) -> np.ndarray:
    """Draw episodes as rows of frames with captions, uint8 (H, W, 3)."""
    drawn = [_sheet_row(recording, number, columns) for number in episodes]
    width = max(row.shape[1] for row in drawn)
    top = np.full((_TOP, width, 3), BACKGROUND, np.uint8)
    return np.concatenate([top, *(_widen(row, width) for row in drawn)])


def _sheet_row(recording: Recording, number: int, columns: int) -> np.ndarray:
    episode = recording[number]
    steps = len(episode.actions)
    times = np.unique(np.linspace(0, steps, min(columns, steps + 1)).round().astype(int)).tolist()
    height, width = episode.frames.shape[1:3]
    scale = _CELL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    text_height = 5 * 19
    row_height = max(size[1] + _TIME, text_height) + _GAP
    image = Image.new("RGB", (_LEFT + len(times) * (size[0] + _GAP), row_height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, (line, color) in enumerate(_row_captions(episode, number)):
        draw.text((_TOP, 19 * i), line, color, font(14 if i == 0 else 13))
    resample = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    for i, time in enumerate(times):
        left = _LEFT + i * (size[0] + _GAP)
        frame = episode.frames[time]
        pixels = Image.fromarray(np.ascontiguousarray(np.broadcast_to(frame, (height, width, 3))))
        image.paste(pixels.resize(size, resample), (left, 1))
        draw.rectangle((left - 1, 0, left + size[0], size[1] + 1), outline=BORDER)
        caption = f"{time}: {time / recording.fps:.2f} s"
        draw.text((left + size[0] / 2, size[1] + 3), caption, CAPTION, font(12), anchor="ma")
    return np.asarray(image)


def _widen(image: np.ndarray, width: int) -> np.ndarray:
    """Add background on the right of an image (H, W, 3)."""
    wide = np.full((image.shape[0], width, 3), BACKGROUND, np.uint8)
    wide[:, : image.shape[1]] = image
    return wide


def _row_captions(episode: Episode, number: int) -> list[tuple[str, tuple[int, int, int]]]:
    seed = f"seed {episode.seed}" if episode.seed >= 0 else "seed unknown"
    total = float(np.sum(episode.rewards))
    lines = [seed, f"{len(episode.actions)} steps", f"return {total:.4g}", end_of(episode)]
    return [(f"episode {number}", LABEL), *((line, CAPTION) for line in lines)]
