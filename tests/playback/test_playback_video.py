"""The forecast video: every panel shows the frame it says, and the file is whole or absent."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tiny_model import DT, TinyModel, draw, simulate

from worldmodel.playback import forecast_video, video
from worldmodel.playback.canvas import compose, enlarge, panel_origin, panel_size
from worldmodel.playback.scenes import scene
from worldmodel.playback.video import forecast_frames
from worldmodel.playback.writers import write_gif, write_mp4


class Clock:
    """A model of frames that show only their own index, as a grey level of 4 a step.

    Its latent is the newest index; its predictor counts on, in steps of the action.
    """

    frame_stack = 2
    device = "cpu"
    decoder = True

    def encode(self, obs):
        return torch.as_tensor(np.asarray(obs)[:, 0, 0, -1:] / 4.0, dtype=torch.float32)

    def rollout(self, z, actions):
        return z + actions[..., :1].cumsum(0)

    def decode(self, z):
        grey = (z[:, :1, None, None] * 4).round().byte()
        stack = grey.expand(-1, 16, 20, 2).clone()
        stack[..., 0] = 255
        return stack


def clock_episodes(episodes, length):
    frames = np.empty((episodes, length, 16, 20, 1), np.uint8)
    frames[:] = 4 * np.arange(length)[:, None, None, None]
    return frames, np.ones((episodes, length - 1, 2), np.float32)


def panel_levels(images):
    """Grey level at the centre of each of the three panels, (N, 3)."""
    height, width = panel_size(16, 20)
    centres = [panel_origin(i, 16, 20) for i in range(3)]
    return np.stack(
        [images[:, top + height // 2, left + width // 2].mean(-1) for top, left in centres], 1
    )


def test_all_panels_show_the_same_step_and_the_first_is_the_end_of_the_first_observation():
    images = np.stack(list(forecast_frames(Clock(), *clock_episodes(1, 9), dt=DT)))
    expected = 4 * np.arange(1, 9)
    assert_array_equal(panel_levels(images), np.stack([expected] * 3, 1))


def test_forecast_is_open_loop_and_reconstruction_is_not():
    frames, actions = clock_episodes(1, 9)
    images = np.stack(list(forecast_frames(Clock(), frames, 2 * actions, dt=DT)))
    truth, forecast, reconstruction = panel_levels(images).T
    assert_array_equal(truth, reconstruction)
    assert_array_equal(forecast, 4 + 8 * np.arange(8))


def test_forecast_is_fed_the_actions_from_the_first_observation_on():
    frames, actions = clock_episodes(1, 5)
    actions[0, :, 0] = [10, 1, 2, 3]
    forecast = panel_levels(np.stack(list(forecast_frames(Clock(), frames, actions, dt=DT))))[:, 1]
    assert_array_equal(forecast, 4 * np.array([1, 2, 4, 7]))


@pytest.mark.parametrize(("suffix", "tolerance"), [("mp4", 3.0), ("gif", 6.0)])
def test_the_file_holds_every_step_of_every_episode_at_the_true_rate(tmp_path, suffix, tolerance):
    path = tmp_path / f"forecast.{suffix}"
    forecast_video(Clock(), *clock_episodes(3, 9), path, dt=DT)
    plugin = {"plugin": "FFMPEG"} if suffix == "mp4" else {}
    images = iio.imread(path, **plugin)
    assert len(images) == 3 * 8
    assert images.shape[1] % 2 == images.shape[2] % 2 == 0
    expected = np.tile(4 * np.arange(1, 9), 3)
    assert_allclose(panel_levels(images.astype(float))[:, 0], expected, atol=tolerance)
    meta = iio.immeta(path, **plugin)
    if suffix == "mp4":
        assert meta["codec"] == "h264"
        assert meta["pix_fmt"].startswith("yuv420p")
        assert meta["fps"] == 20.0
    else:
        assert meta["duration"] == 50
        assert meta["loop"] == 0


def test_frames_a_second_can_be_chosen(tmp_path):
    path = tmp_path / "slow.mp4"
    forecast_video(Clock(), *clock_episodes(1, 9), path, dt=DT, fps=5)
    assert iio.immeta(path, plugin="FFMPEG")["fps"] == 5.0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiny_model_makes_a_scene_in_step_with_its_states(channels):
    states, actions = simulate(1, 12, 0, push=0.3)
    frames = draw(states[0, :, :2], channels)
    made = scene(TinyModel(channels=channels), frames, actions[0])
    assert_array_equal(made.truth, frames[1:])
    assert made.forecast.shape == made.reconstruction.shape == frames[1:].shape
    high = np.s_[:, :4, 0, 0]
    for panel in (made.forecast, made.reconstruction):
        assert np.abs(panel[high].astype(int) - frames[1:][high].astype(int)).max() <= 2
    assert made.latents.shape == (11, 8)


def test_captions_tell_time_step_and_the_angle_error_of_that_step(monkeypatch):
    class Exact:
        def angles(self, latents):
            return latents * np.array([0.1, 0.2])  # the latent of a clock is its frame's index

    captions = []
    original = video.compose
    monkeypatch.setattr(
        video, "compose", lambda *args: captions.append(args[2:]) or original(*args)
    )
    states = np.zeros((2, 9, 4))
    states[..., 0] = 0.1 * np.arange(9) + 0.05
    states[..., 1] = 0.2 * np.arange(9)
    frames, actions = clock_episodes(2, 9)
    list(forecast_frames(Clock(), frames, actions, dt=DT, states=states, probe=Exact()))
    assert len(captions) == 16
    assert captions[0][0].split() == [
        "episode",
        "1",
        "of",
        "2",
        "t",
        "=",
        "0.00",
        "s",
        "k",
        "=",
        "0",
    ]
    assert captions[15][0].split() == [
        "episode",
        "2",
        "of",
        "2",
        "t",
        "=",
        "0.35",
        "s",
        "k",
        "=",
        "7",
    ]
    assert {note for _, note in captions} == {"angle error of forecast   θ₁ 0.05   θ₂ 0.00 rad"}


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(64, 64, (256, 256)), (16, 20, (205, 256)), (96, 48, (256, 128))],
)
def test_panels_keep_the_shape_of_the_frames(height, width, expected):
    assert panel_size(height, width) == expected
    assert enlarge(np.zeros((height, width, 1), np.uint8)).shape == (*expected, 3)


def test_labels_and_caption_are_drawn_clear_of_the_panels():
    frames = [np.zeros((64, 64, 3), np.uint8)] * 3
    image = compose(frames, ("one", "two", "three"), "caption", "note")
    bare = compose(frames, ("", "", ""), "", "")
    assert image.shape == bare.shape
    drawn = (image != bare).any(-1)
    top, _ = panel_origin(0, 64, 64)
    assert drawn[: top - 1].any()
    assert drawn[top + 257 :].any()
    assert not drawn[top - 1 : top + 257].any()
    for i in range(3):
        left = panel_origin(i, 64, 64)[1]
        assert drawn[:top, left : left + 256].any()


class Broken(Clock):
    """Fails in the second episode."""

    def __init__(self):
        self.calls = 0

    def rollout(self, z, actions):
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("no more")
        return super().rollout(z, actions)


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"forecast.{suffix}"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="no more"):
        forecast_video(Broken(), *clock_episodes(2, 9), path, dt=DT)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


def test_what_cannot_be_shown_is_refused_before_anything_is_written(tmp_path):
    frames, actions = clock_episodes(1, 9)
    blind = TinyModel(decodes=False)
    states, pushes = simulate(1, 9, 0)
    with pytest.raises(ValueError, match=r"ends in \.mp4 or \.gif"):
        forecast_video(Clock(), frames, actions, tmp_path / "forecast.avi", dt=DT)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        forecast_video(Clock(), frames, actions, tmp_path / "no" / "forecast.mp4", dt=DT)
    with pytest.raises(ValueError, match="states and probe together"):
        forecast_video(Clock(), frames, actions, tmp_path / "a.mp4", dt=DT, states=states)
    with pytest.raises(ValueError, match="no decoder"):
        forecast_video(blind, draw(states[..., :2]), pushes, tmp_path / "a.mp4", dt=DT)
    with pytest.raises(ValueError, match="needs at least 3"):
        forecast_video(Clock(), frames[:, :2], actions[:, :1], tmp_path / "a.mp4", dt=DT)
    assert not list(tmp_path.iterdir())


def test_a_video_that_lost_frames_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("imageio_ffmpeg.count_frames_and_secs", lambda path: (2, 0.1))
    with pytest.raises(OSError, match="holds 2 of 3 frames"):
        write_mp4(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3, 20.0)


def test_colours_of_a_gif_are_close_to_the_frames(tmp_path):
    colours = np.array([[17, 20, 31], [240, 96, 66], [96, 214, 255], [236, 238, 243]], np.uint8)
    frames = [np.broadcast_to(c, (20, 20, 3)).copy() for c in colours]
    write_gif(tmp_path / "a.gif", frames, 20.0)
    written = iio.imread(tmp_path / "a.gif")[:, 10, 10].astype(int)
    assert np.abs(written - colours).max() <= 3
