"""What is shown while it happens: strips, keys, the window, and driving both worlds."""

import gymnasium as gym
import numpy as np
import pygame
import pytest
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal

from worldmodel import play as play_module
from worldmodel.evaluation.probes import MLPProbe, fit_mlp_probe
from worldmodel.play import SHOWN_STEPS, Session, play
from worldmodel.playback.keys import Keyboard
from worldmodel.playback.meter import AngleMeter, LatentMeter, choose_meter
from worldmodel.playback.strips import HEIGHT, curve_strip, text_strip
from worldmodel.playback.window import Window, require_display
from worldmodel.reality import make_env
from worldmodel.stage import open_stage


def curve_at(strip, share):
    """Height of the curve, 0 to 1, at a share of the scale's width."""
    column = 50 + round(share * (strip.shape[1] - 20 - 50))
    red = (strip[:, column].astype(int) @ [1, -1, -1] > 20).nonzero()[0]
    return (HEIGHT - 14 - red.mean()) / (HEIGHT - 14 - 30)


def test_a_curve_lies_where_its_values_are():
    strip = curve_strip(np.linspace(0, 2, 11), 10, "x", 400, high=4.0)
    assert strip.shape == (HEIGHT, 400, 3)
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


def test_keys_push_to_the_ends_of_a_box():
    keyboard = Keyboard(spaces.Box(np.float32([-1, -2]), np.float32([1, 4])))
    assert_array_equal(keyboard.action({}), [0, 1])
    assert_array_equal(keyboard.action({"d", "j"}), [1, -2])
    assert_array_equal(keyboard.action({"a", "d", "l"}), [0, 4])
    assert "j l" in keyboard.help


def test_digits_choose_among_discrete_actions():
    keyboard = Keyboard(spaces.Discrete(3, start=5))
    assert keyboard.action({"3"}) == 7
    assert keyboard.action({}) == 7
    assert keyboard.action({"9"}) == 7
    for space in (spaces.Box(-1, 1, (5,)), spaces.Discrete(12), spaces.MultiBinary(2)):
        with pytest.raises(ValueError, match="not enough keys"):
            Keyboard(space)


def test_meters_measure_angles_and_latents():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(2000, 6))
    probe = fit_mlp_probe(latents, latents)
    again = MLPProbe.from_state(probe.state())
    assert_allclose(again.predict(latents[:9]), probe.predict(latents[:9]), rtol=1e-6)
    states = np.array([[0.3, -0.5, 0, 0], [0.3, -0.5, 0, 0]])
    here = np.array([np.sin(0.3), np.sin(-0.5), np.cos(0.3), np.cos(-0.5), 0, 0])
    off = np.array([np.sin(0.5), np.sin(-0.5), np.cos(0.5), np.cos(-0.5), 0, 0])
    errors = AngleMeter(probe)(np.stack([here, off]), latents[:2], states)
    assert_allclose(errors, [0.0, 0.1], atol=0.06)
    assert_allclose(LatentMeter(2.0)(np.ones((1, 4)), np.zeros((1, 4)), None), [1.0])
    assert isinstance(choose_meter(probe, latents), AngleMeter)
    meter = choose_meter(None, latents)
    unrelated = meter(latents[:500], latents[500:1000], None)
    assert unrelated.mean() == pytest.approx(1.0, abs=0.05)


@pytest.fixture
def dummy(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def press(key, kind=pygame.KEYDOWN):
    pygame.event.post(pygame.event.Event(kind, key=key))


def test_the_window_shows_hears_and_closes(dummy):
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


def test_without_a_display_a_window_is_refused_at_once(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(OSError, match="no display"):
        require_display()


@pytest.fixture
def session(driven_run):
    return Session(open_stage(driven_run), make_env(driven_run), 20_000)


def test_both_worlds_move_under_the_same_push(session, driven_run):
    stage, env = open_stage(driven_run), make_env(driven_run)
    observation, _ = env.reset(seed=20_000)
    z = stage.wm.encode(observation[None])
    for _ in range(3):
        session.advance({"d", "j"})
        action = np.array([1.0, -1.0], np.float32)
        observation, *_ = env.step(action)
        z = stage.wm.predict(z, action[None])
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
    assert_allclose(session._z, session._stage.wm.encode(before[None]), rtol=1e-5)
    session.press("r")
    assert session._steps == 0
    assert not np.array_equal(session._observation, before)
    session.press("q")
    assert session.quit


def test_the_picture_tells_more_as_time_goes_on(session):
    first = session.image()
    assert first.shape[0] % 2 == first.shape[1] % 2 == 0
    for _ in range(SHOWN_STEPS + 20):
        session.advance({"a"})
    later = session.image()
    assert later.shape == first.shape
    assert not np.array_equal(later, first)


def test_play_drives_until_the_window_is_closed(driven_run, dummy, monkeypatch):
    shown = []

    class Hand(Window):
        """Presses a key, then closes the window."""

        def wait(self, fps):
            shown.append(fps)
            if len(shown) < 3:
                press(pygame.K_d)
            elif not self.closed:
                pygame.event.post(pygame.event.Event(pygame.QUIT))

    monkeypatch.setattr(play_module, "Window", Hand)
    play(driven_run, seed=0, device="cpu")
    assert shown == [20.0] * len(shown)
    assert 3 <= len(shown) <= 5


def test_real_observations_are_those_the_model_learned_from(driven_run):
    env = make_env(driven_run, start="uniform")
    own = gym.make("DoublePendulumPixels-v0", image_size=16, start="uniform")
    ours, theirs = env.reset(seed=3), own.reset(seed=3)
    for _ in range(3):
        assert_array_equal(ours[0], theirs[0])
        assert env.observation_space.contains(ours[0])
        action = own.action_space.sample()
        ours, theirs = env.step(action), own.step(action)
