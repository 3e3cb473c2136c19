"""Figures of a run: the frames that their labels name, complete files, any shape of frame."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from tiny_model import DT, TinyModel, draw, simulate

from worldmodel.viz import figures
from worldmodel.viz.figures import forecast_plot, reconstruction_figure


@pytest.fixture
def metrics(tiny_report):
    return tiny_report.metrics


@pytest.fixture
def strips(monkeypatch):
    """The strips that are drawn."""
    kept = []
    original = figures.draw_strips
    monkeypatch.setattr(figures, "draw_strips", lambda s: kept.extend(s) or original(s))
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
    assert rows["ground truth"].shape == rows["reconstruction"].shape == (8, 4, 6, channels)
    found = [np.argwhere((frames == truth).all((2, 3, 4)))[0] for truth in rows["ground truth"]]
    assert len({episode for episode, _ in found}) == 8
    assert all(t >= 1 for _, t in found)
    difference = rows["ground truth"].astype(int) - rows["reconstruction"].astype(int)
    assert np.abs(difference[:, :4, 0, 0]).max() <= 2


def test_forecast_strip_shows_truth_and_forecast_of_the_same_steps(tmp_path, strips):
    frames, actions = episodes(3, 24)
    reconstruction_figure(TinyModel(), frames, actions, tmp_path / "a.png", dt=DT)
    strip = strips[1]
    episode = next(e for e in frames if (e[1] == strip.rows["ground truth"][0]).all())
    assert_array_equal(strip.rows["ground truth"], episode[[1, 6, 11, 21]])
    difference = strip.rows["ground truth"].astype(int) - strip.rows["forecast"].astype(int)
    assert np.abs(difference[:, :4, 0, 0]).max() <= 2
    assert list(strip.headings) == ["k = 0   0.00 s", "k = 5   0.25 s", "k = 10   0.50 s",
                                    "k = 20   1.00 s"]  # fmt: skip


def test_the_same_seed_draws_the_same_figure(tmp_path):
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


@pytest.fixture
def plotted(monkeypatch):
    """The curves of every plot, label -> errors."""
    kept = []
    original = figures._error_figure
    monkeypatch.setattr(
        figures,
        "_error_figure",
        lambda curves, *rest: (
            kept.append({name: errors for name, errors, _ in curves}) or original(curves, *rest)
        ),
    )
    return kept


def test_forecast_plot_shows_the_baselines_that_there_are(tmp_path, metrics, plotted):
    forecast_plot(metrics, tmp_path / "all.png")
    angle = replace(metrics.forecast.angle, constant_velocity=None, constant_velocity_by_step=None)
    bare = replace(metrics, reference=None, forecast=replace(metrics.forecast, angle=angle))
    forecast_plot(bare, tmp_path / "bare.png")
    name = "reference model on the true state, 20 updates"
    assert list(plotted[0]) == ["persistence", "forecast", "constant velocity", name]
    assert plotted[0]["forecast"] == angle.median_by_step
    assert plotted[0][name] == metrics.reference.median_by_step
    assert list(plotted[1]) == ["persistence", "forecast"]
    pictures = [np.asarray(Image.open(tmp_path / name)) for name in ("all.png", "bare.png")]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


def test_forecast_plot_without_angles_says_why(tmp_path, metrics):
    reason = {"forecast.angle": "the environment keeps it secret"}
    bare = replace(metrics, forecast=replace(metrics.forecast, angle=None), reasons=reason)
    with pytest.raises(ValueError, match="keeps it secret"):
        forecast_plot(bare, tmp_path / "a.png")


def test_a_failed_figure_leaves_the_old_file(tmp_path, metrics, monkeypatch):
    def fail(self, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError("disk full")

    path = tmp_path / "forecast.png"
    path.write_text("old")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        forecast_plot(metrics, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["forecast.png"]
    assert path.read_text() == "old"
