"""Videos: every panel shows the frame that its label names, and files are complete or absent."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tiny_model import DT, TinyModel, draw, simulate

from worldmodel.data import FrameStack
from worldmodel.evaluation import Probes
from worldmodel.viz import video
from worldmodel.viz.canvas import compose, enlarge, panel_origin, panel_size
from worldmodel.viz.video import (
    forecast_clip,
    forecast_frames,
    forecast_video,
    write_gif,
    write_mp4,
)


class Clock:
    """A model of frames that show only their own index, as a gray level of 4 per step.

    Its latent is the newest index, and its predictor adds the first number of the action.
    """

    frames = FrameStack(2)
    device = "cpu"
    decoder = True

    def encode(self, obs):
        return torch.as_tensor(np.asarray(obs)[:, 0, 0, -1:] / 4.0, dtype=torch.float32)

    def rollout(self, z, actions):
        return z + actions[..., :1].cumsum(0)

    def decode(self, z):
        gray = (z[:, :1, None, None] * 4).round().byte()
        stack = gray.expand(-1, 16, 20, 2).clone()
        stack[..., 0] = 255
        return stack


def clock_episodes(episodes, length):
    frames = np.empty((episodes, length, 16, 20, 1), np.uint8)
    frames[:] = 4 * np.arange(length)[:, None, None, None]
    return frames, np.ones((episodes, length - 1, 2), np.float32)


def panel_levels(images):
    """Gray level at the centre of each of the three panels, (N, 3)."""
    height, width = panel_size(16, 20)
    centres = [panel_origin(i, 16, 20) for i in range(3)]
    return np.stack(
        [images[:, top + height // 2, left + width // 2].mean(-1) for top, left in centres], 1
    )


def test_all_panels_show_the_same_step_from_the_end_of_the_first_observation():
    images = np.stack(list(forecast_frames(Clock(), *clock_episodes(1, 9), dt=DT)))
    expected = 4 * np.arange(1, 9)
    assert_array_equal(panel_levels(images), np.stack([expected] * 3, 1))


def test_forecast_is_open_loop_and_reconstruction_is_not():
    frames, actions = clock_episodes(1, 9)
    images = np.stack(list(forecast_frames(Clock(), frames, 2 * actions, dt=DT)))
    truth, forecast, reconstruction = panel_levels(images).T
    assert_array_equal(truth, reconstruction)
    assert_array_equal(forecast, 4 + 8 * np.arange(8))


def test_forecast_uses_the_actions_after_the_first_observation():
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


def test_frames_per_second_can_be_chosen(tmp_path):
    path = tmp_path / "slow.mp4"
    forecast_video(Clock(), *clock_episodes(1, 9), path, dt=DT, fps=5)
    assert iio.immeta(path, plugin="FFMPEG")["fps"] == 5.0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_scene_shows_truth_forecast_and_reconstruction_of_the_same_steps(channels):
    states, actions = simulate(1, 12, 0, push=0.3)
    frames = draw(states[0, :, :2], channels)
    shown = forecast_clip(TinyModel(channels=channels), frames, actions[0])
    assert_array_equal(shown.truth, frames[1:])
    assert shown.forecast.shape == shown.reconstruction.shape == frames[1:].shape
    high = np.s_[:, :4, 0, 0]
    for panel in (shown.forecast, shown.reconstruction):
        assert np.abs(panel[high].astype(int) - frames[1:][high].astype(int)).max() <= 2
    assert shown.latents.shape == (11, 8)


class ClockReadout:
    """Reads as many angles from the index of a clock's frame as there are names."""

    def __init__(self, *angle_names):
        self.angle_names = angle_names

    def angles(self, targets):
        return targets * 0.1 * np.arange(1, len(self.angle_names) + 1)

    def true_angles(self, states):
        return states


class Exact:
    """A probe that reads the index."""

    def predict(self, latents):
        return latents


@pytest.fixture
def captions(monkeypatch):
    """Caption and note of every frame."""
    kept = []
    original = video.compose
    monkeypatch.setattr(video, "compose", lambda *args: kept.append(args[2:]) or original(*args))
    return kept


def clock_states(episodes, angles):
    """True angles (E, 9, P), of which the first is off by 0.05 rad."""
    states = np.arange(9)[:, None] * 0.1 * np.arange(1, angles + 1) + 0.05 * (np.arange(angles) < 1)
    return np.stack([states] * episodes)


def test_captions_name_time_step_and_angle_errors(captions):
    frames, actions = clock_episodes(2, 9)
    probes = Probes(ClockReadout("θ1", "θ2"), None, Exact(), 0)
    states = clock_states(2, 2)
    list(forecast_frames(Clock(), frames, actions, dt=DT, states=states, probes=probes))
    assert len(captions) == 16
    assert " ".join(captions[0][0].split()) == "episode 1 of 2 t = 0.00 s k = 0"
    assert " ".join(captions[15][0].split()) == "episode 2 of 2 t = 0.35 s k = 7"
    assert {note for _, note in captions} == {"angle error of forecast   θ1 0.05   θ2 0.00 rad"}


def test_many_angles_are_summarized_to_fit_the_caption(captions):
    probes = Probes(ClockReadout("a", "b", "c", "d", "e"), None, Exact(), 0)
    states = clock_states(1, 5)
    list(forecast_frames(Clock(), *clock_episodes(1, 9), dt=DT, states=states, probes=probes))
    assert {note for _, note in captions} == {"mean angle error of forecast 0.01 rad"}


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


def test_mistakes_are_reported_before_anything_is_written(tmp_path):
    frames, actions = clock_episodes(1, 9)
    no_decoder = TinyModel(decodes=False)
    states, pushes = simulate(1, 9, 0)
    with pytest.raises(ValueError, match=r"ends in \.mp4 or \.gif"):
        forecast_video(Clock(), frames, actions, tmp_path / "forecast.avi", dt=DT)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        forecast_video(Clock(), frames, actions, tmp_path / "no" / "forecast.mp4", dt=DT)
    with pytest.raises(ValueError, match="states and probes together"):
        forecast_video(Clock(), frames, actions, tmp_path / "a.mp4", dt=DT, states=states)
    with pytest.raises(ValueError, match="no decoder"):
        forecast_video(no_decoder, draw(states[..., :2]), pushes, tmp_path / "a.mp4", dt=DT)
    with pytest.raises(ValueError, match="needs at least 3"):
        forecast_video(Clock(), frames[:, :2], actions[:, :1], tmp_path / "a.mp4", dt=DT)
    assert not list(tmp_path.iterdir())


def test_a_video_that_lost_frames_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("imageio_ffmpeg.count_frames_and_secs", lambda path: (2, 0.1))
    with pytest.raises(OSError, match="holds 2 of 3 frames"):
        write_mp4(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3, 20.0)


def test_colors_of_a_gif_are_close_to_the_frames(tmp_path):
    colors = np.array([[17, 20, 31], [240, 96, 66], [96, 214, 255], [236, 238, 243]], np.uint8)
    frames = [np.broadcast_to(c, (20, 20, 3)).copy() for c in colors]
    write_gif(tmp_path / "a.gif", frames, 20.0)
    written = iio.imread(tmp_path / "a.gif")[:, 10, 10].astype(int)
    assert np.abs(written - colors).max() <= 3
