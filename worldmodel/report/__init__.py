"""The report: one self-contained HTML file of what a model, or several, learned."""

from worldmodel.report.agents import insert_agents
from worldmodel.report.media import Media, gather_media
from worldmodel.report.page import ReportRun, write_report

__all__ = ["Media", "ReportRun", "gather_media", "insert_agents", "write_report"]
