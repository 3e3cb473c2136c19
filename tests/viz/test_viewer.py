"""The window: curves, keys, and driving a real environment and its world model."""

import numpy as np
import pygame
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal

from worldmodel.callbacks import Callback
from worldmodel.viz import viewer
from worldmodel.viz.canvas import CURVE_HEIGHT, curve_strip, text_strip
from worldmodel.viz.viewer import (
    MAX_STEPS_OUTSIDE,
    SHOWN_STEPS,
    Keyboard,
    PlaySession,
    Window,
    play,
    require_display,
)


def curve_at(strip, share):
    """Height of the curve, 0 to 1, at a share of the scale's width."""
    column = 50 + round(share * (strip.shape[1] - 20 - 50))
    red = (strip[:, column].astype(int) @ [1, -1, -1] > 20).nonzero()[0]
    return (CURVE_HEIGHT - 14 - red.mean()) / (CURVE_HEIGHT - 14 - 30)


def test_a_curve_is_drawn_at_its_values():
    strip = curve_strip(np.linspace(0, 2, 11), 10, "x", 400, high=4.0)
    assert strip.shape == (CURVE_HEIGHT, 400, 3)
    for share in (0.2, 0.5, 0.8):
        assert curve_at(strip, share) == pytest.approx(share / 2, abs=0.03)
    assert curve_at(curve_strip([9.0, 9.0], 1, "x", 400, high=4.0), 0.5) == pytest.approx(
        1, abs=0.03
    )
    unknown = curve_strip([np.nan, np.nan], 1, "x", 400, low=-1.0, high=1.0)
    assert curve_at(unknown, 0.5) == pytest.approx(1, abs=0.03)
    assert curve_strip([], 5, "x", 400, high=1.0).shape == strip.shape


def test_only_the_newest_values_are_shown():
    old = curve_strip([5.0] * 50 + [1.0] * 11, 10, "x", 400, high=5.0)
    assert_array_equal(old, curve_strip([1.0] * 11, 10, "x", 400, high=5.0))
    assert text_strip(["one"], 300).shape[1] == 300
    assert text_strip(["one", "two"], 300).shape[0] > text_strip(["one"], 300).shape[0]


def test_keys_choose_the_bounds_of_a_box():
    keyboard = Keyboard(spaces.Box(np.float32([-1, -2]), np.float32([1, 4])))
    assert_array_equal(keyboard.action({}), [0, 1])
    assert_array_equal(keyboard.action({"d", "j"}), [1, -2])
    assert_array_equal(keyboard.action({"a", "d", "l"}), [0, 4])
    assert "j/l: action 2" in keyboard.help


def test_digits_choose_among_discrete_actions():
    keyboard = Keyboard(spaces.Discrete(3, start=5))
    assert keyboard.action({"3"}) == 7
    assert keyboard.action({}) == 7
    assert keyboard.action({"9"}) == 7
    for space in (spaces.Box(-1, 1, (5,)), spaces.Discrete(12), spaces.MultiBinary(2)):
        with pytest.raises(ValueError, match="not enough keys"):
            Keyboard(space)


@pytest.fixture
def dummy(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def press(key, kind=pygame.KEYDOWN):
    pygame.event.post(pygame.event.Event(kind, key=key))


def test_the_window_shows_images_reports_keys_and_closes(dummy):
    window, image = Window("Test"), np.zeros((20, 30, 3), np.uint8)
    image[3, 4] = 255
    window.show(image)
    shown = pygame.surfarray.array3d(pygame.display.get_surface())
    assert_array_equal(shown.swapaxes(0, 1), image)
    press(pygame.K_d)
    press(pygame.K_SPACE)
    press(pygame.K_SPACE, pygame.KEYUP)
    assert window.show(image) == ["d", "space"]
    assert window.held == {"d"}
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert window.show(image) == []
    assert window.closed
    assert window.show(image) == []
    window.close()


def test_a_window_without_a_display_is_an_error(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(OSError, match="no display"):
        require_display()


@pytest.fixture
def session(run):
    return PlaySession(run, run.make_env(), 20_000)


def test_environment_and_model_get_the_same_actions(session, run):
    env = run.make_env()
    observation, _ = env.reset(seed=20_000)
    z = run.model.encode(observation[None])
    for _ in range(3):
        session.advance({"d", "j"})
        action = np.array([1.0, -1.0], np.float32)
        observation, *_ = env.step(action)
        z = run.model.predict(z, action[None])
    assert_array_equal(session._observation, observation)
    assert_allclose(session._z, z, rtol=1e-5)
    assert len(session.errors) == 4


def test_pause_step_speed_resync_and_reset(session):
    session.press("space")
    session.advance({"d"})
    assert len(session.errors) == 1
    session.press("n")
    session.advance({"d"})
    session.advance({"d"})
    assert len(session.errors) == 2
    session.press("space")
    session.press("+")
    session.advance({"d"})
    assert len(session.errors) == 4
    for _ in range(3):
        session.press("-")
    for _ in range(4):
        session.advance({"d"})
    assert len(session.errors) == 5
    before = session._observation.copy()
    session.press("t")
    assert len(session.errors) == 1
    assert_array_equal(session._observation, before)
    assert_allclose(session._z, session._wm.encode(before[None]), rtol=1e-5)
    session.press("r")
    assert session._steps == 0
    assert not np.array_equal(session._observation, before)
    session.press("q")
    assert session.quit


def test_the_image_changes_with_time_and_keeps_its_size(session):
    first = session.image()
    assert first.shape[0] % 2 == first.shape[1] % 2 == 0
    for _ in range(SHOWN_STEPS + 20):
        session.advance({"a"})
    later = session.image()
    assert later.shape == first.shape
    assert not np.array_equal(later, first)


def test_the_label_says_that_the_imagined_state_is_out_of_distribution(session, monkeypatch):
    labels = []
    original = viewer.compose
    monkeypatch.setattr(
        viewer, "compose", lambda *args: labels.append(args[1][1]) or original(*args)
    )
    session.image()
    session._z = session._z + 1e3
    session.advance(())
    session.image()
    session.press("t")
    session.image()
    assert labels == ["imagined", "imagined, out of distribution", "imagined"]


@pytest.mark.parametrize(("predicted", "steps"), [(1e3, MAX_STEPS_OUTSIDE), (torch.inf, 1)])
def test_a_model_that_stays_out_of_distribution_is_resynchronized(
    session, monkeypatch, predicted, steps
):
    monkeypatch.setattr(session._wm, "predict", lambda z, action: torch.full_like(z, predicted))
    for i in range(steps):
        assert len(session.errors) == i + 1
        session.advance(())
    assert_allclose(session._z, session._wm.encode(session._observation[None]), rtol=1e-5)
    assert len(session.errors) == 1


def test_play_runs_until_the_window_is_closed(run, dummy, monkeypatch):
    shown = []

    class ClosingWindow(Window):
        """Presses a key, then closes."""

        def wait(self, fps):
            shown.append(fps)
            if len(shown) < 3:
                press(pygame.K_d)
            elif not self.closed:
                pygame.event.post(pygame.event.Event(pygame.QUIT))

    monkeypatch.setattr(viewer, "Window", ClosingWindow)
    play(run, seed=0)
    assert shown == [20.0] * len(shown)
    assert 3 <= len(shown) <= 5


def test_play_warns_about_a_model_of_one_action(run, dummy, monkeypatch):
    class Messages(Callback):
        def on_message(self, text, *, warning=False):
            messages.append((text, warning))

    class ClosedWindow(Window):
        def show(self, image):
            self.close()
            return []

    messages = []
    monkeypatch.setattr(viewer, "Window", ClosedWindow)
    play(run, callbacks=[Messages()])
    assert messages == []
    data = run.config.data.model_copy(update={"policy": "passive"})
    run.config = run.config.model_copy(update={"data": data})
    play(run, callbacks=[Messages()])
    assert [warning for _, warning in messages] == [True]
    assert "one action only" in messages[0][0]


def test_a_run_without_a_decoder_cannot_be_played(run, dummy):
    run.model.decoder = None
    with pytest.raises(ValueError, match="no pictures to show"):
        play(run)
