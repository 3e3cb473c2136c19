"""Pictures of a run: the frames they say, whole files, any shape of frame."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from tiny_model import DT, TinyModel, draw, simulate

from worldmodel.playback import forecast_plot, plots, reconstruction_figure

METRICS = {
    "dt_seconds": 0.05,
    "forecast": {
        "angle": {
            "median_by_step": [0.0, 0.1, 0.2, 0.4],
            "interval_by_step": [[0.0, 0.0], [0.05, 0.15], [0.1, 0.3], [0.3, 0.5]],
            "persistence_by_step": [0.0, 0.4, 0.8, 1.2],
            "constant_velocity_by_step": [0.0, 0.2, 0.6, 1.3],
            "horizon": {"steps": 2, "seconds": 0.1, "threshold_rad": 0.3, "lower_bound": False},
        }
    },
    "privileged": {"reason": "not asked for: no updates given"},
}


@pytest.fixture
def strips(monkeypatch):
    """What is drawn, kept for inspection."""
    kept = []
    original = plots.draw_strips
    monkeypatch.setattr(plots, "draw_strips", lambda s: kept.extend(s) or original(s))
    return kept


def episodes(count, frames, channels=1):
    states, actions = simulate(count, frames, 4, push=0.2)
    return draw(states[..., :2], channels), actions


@pytest.mark.parametrize("channels", [1, 3])
def test_reconstructions_are_of_different_episodes_and_match_their_frames(
    tmp_path, strips, channels
):
    frames, actions = episodes(20, 15, channels)
    reconstruction_figure(
        TinyModel(channels=channels), frames, actions, tmp_path / "a.png", dt=DT, seed=1
    )
    rows = strips[0].rows
    assert rows["truth"].shape == rows["reconstruction"].shape == (8, 4, 6, channels)
    found = [np.argwhere((frames == truth).all((2, 3, 4)))[0] for truth in rows["truth"]]
    assert len({episode for episode, _ in found}) == 8
    assert all(t >= 1 for _, t in found)
    difference = rows["truth"].astype(int) - rows["reconstruction"].astype(int)
    assert np.abs(difference[:, :4, 0, 0]).max() <= 2


def test_forecast_strip_shows_truth_and_forecast_of_the_same_steps(tmp_path, strips):
    frames, actions = episodes(3, 24)
    reconstruction_figure(TinyModel(), frames, actions, tmp_path / "a.png", dt=DT)
    strip = strips[1]
    episode = next(e for e in frames if (e[1] == strip.rows["truth"][0]).all())
    assert_array_equal(strip.rows["truth"], episode[[1, 6, 11, 21]])
    difference = strip.rows["truth"].astype(int) - strip.rows["forecast"].astype(int)
    assert np.abs(difference[:, :4, 0, 0]).max() <= 2
    assert list(strip.headings) == ["k = 0   0.00 s", "k = 5   0.25 s", "k = 10   0.50 s",
                                    "k = 20   1.00 s"]  # fmt: skip


def test_the_same_seed_draws_the_same_picture(tmp_path):
    frames, actions = episodes(12, 8)
    names = ("a.png", "b.png", "c.png")
    for name, seed in zip(names, (0, 0, 1)):
        reconstruction_figure(TinyModel(), frames, actions, tmp_path / name, dt=DT, seed=seed)
    a, b, c = (np.asarray(Image.open(tmp_path / name)) for name in names)
    assert_array_equal(a, b)
    assert a.shape != c.shape or (a != c).any()


def test_a_model_without_a_decoder_leaves_no_file(tmp_path):
    frames, actions = episodes(3, 8)
    with pytest.raises(ValueError, match="no decoder"):
        reconstruction_figure(TinyModel(decodes=False), frames, actions, tmp_path / "a.png", dt=DT)
    assert not list(tmp_path.iterdir())


def test_forecast_plot_is_a_picture_with_and_without_the_reference(tmp_path):
    forecast_plot(METRICS, tmp_path / "a.png")
    more = METRICS | {"privileged": {"updates": 500, "median_by_step": [0.0, 0.02, 0.05, 0.1]}}
    forecast_plot(more, tmp_path / "b.png")
    a, b = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert a.shape == b.shape
    assert (a != b).any()


def test_forecast_plot_without_angles_says_why(tmp_path):
    metrics = METRICS | {"forecast": {"angle": {"reason": "the environment keeps it secret"}}}
    with pytest.raises(ValueError, match="keeps it secret"):
        forecast_plot(metrics, tmp_path / "a.png")


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    def fail(self, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError("disk full")

    path = tmp_path / "forecast.png"
    path.write_text("old")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        forecast_plot(METRICS, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["forecast.png"]
    assert path.read_text() == "old"
