"""Visualization: videos, figures, a window with keyboard input, and the report."""

from worldmodel.viz.canvas import compose, curve_strip, enlarge, text_strip
from worldmodel.viz.episodes import EpisodePlayer, Recording, contact_sheet, view, write_sheet
from worldmodel.viz.figures import forecast_plot, reconstruction_figure, save_figure
from worldmodel.viz.forecast_error import AngleError, ForecastError, LatentError, forecast_error
from worldmodel.viz.media import Media, gather_media
from worldmodel.viz.report import ReportRun, insert_agents, link_dream, write_report
from worldmodel.viz.rollout import rollout
from worldmodel.viz.video import (
    ForecastClip,
    check_video_path,
    decode_newest,
    forecast_clip,
    forecast_video,
    write_video,
)
from worldmodel.viz.viewer import Keyboard, PlaySession, Window, play, require_display

__all__ = [
    "AngleError",
    "EpisodePlayer",
    "ForecastClip",
    "ForecastError",
    "Keyboard",
    "LatentError",
    "Media",
    "PlaySession",
    "Recording",
    "ReportRun",
    "Window",
    "check_video_path",
    "compose",
    "contact_sheet",
    "curve_strip",
    "decode_newest",
    "enlarge",
    "forecast_clip",
    "forecast_error",
    "forecast_plot",
    "forecast_video",
    "gather_media",
    "insert_agents",
    "link_dream",
    "play",
    "reconstruction_figure",
    "require_display",
    "rollout",
    "save_figure",
    "text_strip",
    "view",
    "write_report",
    "write_sheet",
    "write_video",
]
