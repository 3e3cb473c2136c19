"""Recorded episodes in the window and on a contact sheet."""

import gymnasium as gym
import numpy as np
import pygame
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from typer.testing import CliRunner

from worldmodel.cli import app
from worldmodel.data import ReplayBuffer, convert
from worldmodel.data.convert import open_episodes
from worldmodel.viz import viewer
from worldmodel.viz.canvas import panel_origin, panel_size
from worldmodel.viz.episodes import EpisodePlayer, Recording, contact_sheet, view, write_sheet

STEPS = (3, 1, 5)
LEFT, TOP, CELL, GAP = 150, 12, 128, 8


def fill(path, shape=(8, 8, 3)):
    """A buffer whose frame t of episode e is of the gray level 40 e + 10 t."""
    dtype = "float32" if len(shape) == 1 else "uint8"
    with ReplayBuffer.create(
        path,
        frame_shape=shape,
        frame_dtype=dtype,
        action_space=gym.spaces.Discrete(9),
        metadata={"fps": 10},
    ) as buffer:
        for e, steps in enumerate(STEPS):
            levels = (40 * e + 10 * np.arange(steps + 1)).reshape(-1, *[1] * len(shape))
            frames = np.broadcast_to(levels, (steps + 1, *shape)).astype(dtype)
            buffer.add_episode(frames, np.arange(steps), np.ones(steps), e == 1, seed=7 + e)
    return path


@pytest.fixture(params=[3, 1])
def recording(tmp_path, request):
    return Recording(open_episodes(fill(tmp_path / "data", (8, 8, request.param))))


def level(image):
    """Gray level in the middle of the panel of the window."""
    top, left = panel_origin(0, 8, 8)
    height, width = panel_size(8, 8)
    return image[top + height // 2, left + width // 2, 0]


def test_the_player_shows_every_frame_and_goes_on_to_the_next_episode(recording):
    player = EpisodePlayer(recording)
    shown = []
    for _ in range(2 * sum(n + 1 for n in STEPS)):  # two images per frame, as 10 fps are few
        shown.append((player.number, player.time, level(player.image())))
        player.advance()
    expected = [(e, t, 40 * e + 10 * t) for e, n in enumerate(STEPS) for t in range(n + 1)]
    assert shown[::2] == expected
    assert (player.number, player.time) == (0, 0)


def test_keys_pause_step_and_change_the_episode(recording):
    player = EpisodePlayer(recording, 1)
    player.press("space")
    for _ in range(5):
        player.advance()
    assert (player.paused, player.number, player.time) == (True, 1, 0)
    player.press("n")
    player.advance()
    player.advance()
    assert player.time == 1
    for key, number in (("right", 2), ("right", 0), ("left", 2), ("left", 1)):
        player.press(key)
        assert (player.number, player.time) == (number, 0)
    player.press("space")
    for _ in range(9):
        player.press("+")
    player.advance()
    assert player.time == 0  # 4 x 10 / 20 steps: the one of this episode, then the next episode
    assert player.number == 2
    player.press("r")
    assert not player.quit
    player.press("q")
    assert player.quit


def test_text_says_frame_action_reward_and_end(recording, monkeypatch):
    lines = []
    monkeypatch.setattr(
        "worldmodel.viz.episodes.text_strip",
        lambda text, width: lines.append(text[:3]) or np.zeros((9, width, 3), np.uint8),
    )
    for number, time in ((0, 0), (0, 3), (1, 1)):
        player = EpisodePlayer(recording, number)
        for _ in range(time):
            player.press("n")
            player.advance()
        player.image()
    assert lines == [
        ["frame 0 of 3   t = 0.00 s   speed 1x", "first frame", ""],
        ["frame 3 of 3   t = 0.30 s   paused", "action 2   reward +1.000", "truncated"],
        ["frame 1 of 1   t = 0.10 s   paused", "action 0   reward +1.000", "terminated"],
    ]


def test_the_window_plays_until_it_is_closed(tmp_path, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    convert(fill(tmp_path / "data", (16, 16, 3)), tmp_path / "data.h5")
    shown = []

    def show(window, image):
        shown.append(image)
        return ["right"] if len(shown) == 2 else ["q"] if len(shown) == 4 else []

    monkeypatch.setattr(viewer.Window, "show", show)
    view(tmp_path / "data.h5", episode=1, fps=1000)
    assert len(shown) == 4
    assert level(shown[0]) == 40
    assert level(shown[2]) >= 80


def test_the_real_window_shows_the_frame(recording, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window, player = viewer.Window("Test"), EpisodePlayer(recording, 2)
    window.show(player.image())
    pixels = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    assert_array_equal(pixels, player.image())
    window.close()


def test_a_sheet_shows_episodes_in_rows_and_times_in_columns(recording):
    sheet = contact_sheet(recording, [0, 2], columns=3)
    pitch = (sheet.shape[0] - TOP) // 2
    for row, (episode, times) in enumerate([(0, (0, 2, 3)), (2, (0, 2, 5))]):
        for column, time in enumerate(times):
            middle = (
                TOP + row * pitch + CELL // 2,
                LEFT + column * (CELL + GAP) + CELL // 2,
            )
            assert sheet[middle].tolist() == [40 * episode + 10 * time] * 3
    captions = sheet[TOP : TOP + 95, 12:LEFT]
    assert (captions > 150).any(axis=(1, 2)).sum() > 40  # five lines of light text


def test_sheets_take_episodes_from_all_of_a_source_or_from_one_on(tmp_path):
    source = fill(tmp_path / "data")
    assert write_sheet(source, tmp_path / "a.png", rows=2) == [0, 2]
    assert write_sheet(source, tmp_path / "b.png", episode=1) == [1, 2]
    first, second = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in "ab")
    assert first.shape != second.shape or (first != second).any()
    with pytest.raises(ValueError, match="no episode 3; expected 0 to 2"):
        write_sheet(source, tmp_path / "c.png", episode=3)
    with pytest.raises(ValueError, match=r"ends in \.png"):
        write_sheet(source, tmp_path / "c.jpg")
    assert not (tmp_path / "c.png").exists()


def test_vectors_and_missing_displays_are_one_clear_line(tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    vectors, images = fill(tmp_path / "vectors", (5,)), fill(tmp_path / "images")
    run = CliRunner().invoke(app, ["view", str(vectors)])
    assert run.exit_code == 2
    assert "vectors of 5 numbers, not images" in run.output
    monkeypatch.setattr(viewer.sys, "platform", "linux")
    run = CliRunner().invoke(app, ["view", str(images)])
    assert run.exit_code == 1
    assert "--sheet FILE.png" in run.output
    run = CliRunner().invoke(app, ["view", str(images), "--sheet", str(tmp_path / "s.png")])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "s.png").is_file()
