"""Playback: videos and pictures of what a model forecasts and reconstructs."""

from worldmodel.playback.plots import forecast_plot, reconstruction_figure
from worldmodel.playback.video import forecast_video

__all__ = ["forecast_plot", "forecast_video", "reconstruction_figure"]
