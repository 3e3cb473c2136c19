"""Human rendering and keyboard control, on SDL's dummy video driver."""

import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pygame
import pytest
from numpy.testing import assert_array_equal

import worldmodel  # noqa: F401
from worldmodel.envs import window

PIXELS = "DoublePendulumPixels-v0"


@pytest.fixture
def env(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.make(PIXELS, render_mode="human", render_size=256, dt=0.005)
    yield env
    env.close()


def screen_pixels():
    return np.swapaxes(pygame.surfarray.array3d(pygame.display.get_surface()), 0, 1)


def test_window_shows_the_scene_above_the_panel(env):
    env.reset(seed=0)
    env.step(np.array([0.8, -0.4], np.float32))
    pixels = screen_pixels()
    still = gym.make(PIXELS, render_mode="rgb_array", render_size=256)
    still.reset(options={"state": env.unwrapped.state})
    assert_array_equal(pixels[:256, 72:-72], still.render())
    assert pixels.shape == (256 + 66, 400, 3)


def test_bars_show_size_and_sign_of_the_torques(env):
    env.reset(seed=0)
    env.step(np.array([0.8, -0.4], np.float32))
    panel = screen_pixels()[256:]
    shoulder = np.nonzero((panel[:33] == window.PIVOT).all(axis=2))[1]
    elbow = np.nonzero((panel[33:] == window.BOB1).all(axis=2))[1]
    centre, half = int(0.45 * 400), int(0.2 * 400)
    assert shoulder.min() >= centre
    assert shoulder.max() == pytest.approx(centre + 0.8 * half, abs=2)
    assert elbow.max() <= centre
    assert elbow.min() == pytest.approx(centre - 0.4 * half, abs=2)


def test_environment_continues_after_the_window_is_closed(env):
    env.reset(seed=0)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    for _ in range(3):
        env.step(np.zeros(2, np.float32))
    assert not pygame.display.get_init()
    env.reset(seed=1)
    assert not pygame.display.get_init()


def test_close_can_be_called_twice(env):
    env.reset(seed=0)
    env.close()
    env.close()


PLAY = """
import gymnasium as gym, pygame, worldmodel
from gymnasium.utils.play import play
actions = []
def callback(before, after, action, reward, terminated, truncated, info):
    actions.append(action.tolist())
    presses = {1: (pygame.KEYDOWN, "d"), 2: (pygame.KEYDOWN, "j"), 3: (pygame.KEYUP, "d")}
    if len(actions) in presses:
        kind, key = presses[len(actions)]
        pygame.event.post(pygame.event.Event(kind, key=ord(key)))
    if len(actions) == 4:
        pygame.event.post(pygame.event.Event(pygame.QUIT))
play(gym.make("DoublePendulumPixels-v0", render_mode="rgb_array"), callback=callback, fps=200)
assert actions == [[0, 0], [1, 0], [1, -1], [0, -1]], actions
"""


def test_gymnasium_play_maps_keys_to_torques():
    quiet = {**os.environ, "SDL_VIDEODRIVER": "dummy"}
    result = subprocess.run(
        [sys.executable, "-c", PLAY], env=quiet, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("torque", "keys"), [("both", 9), ("shoulder", 3), ("elbow", 3)])
def test_every_key_combination_maps_to_a_valid_action(torque, keys):
    env = gym.make(PIXELS, torque=torque)
    mapping = env.unwrapped.get_keys_to_action()
    assert len(mapping) == keys
    assert all(action in env.action_space for action in mapping.values())
