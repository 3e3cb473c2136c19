"""Rendering the report's page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from worldmodel.files import replacing
from worldmodel.report.media import Media
from worldmodel.report.templates import template


@dataclass(frozen=True)
class ReportRun:
    """One model in a report.

    Attributes:
        name: Of the run directory.
        metrics: From `evaluate`.
        media: From `gather_media`; None leaves out the player and the view of the latent.
    """

    name: str
    metrics: dict[str, Any]
    media: Media | None = None


def write_report(path: str | Path, runs: Sequence[ReportRun]) -> None:
    """Write one HTML file that needs nothing else: no network, no other file.

    The same runs give the same bytes. The file appears whole or not at all.

    Args:
        path: Of the HTML file.
        runs: At least one; several are compared first.

    Raises:
        ValueError: If there are no runs.
        OSError: If the file cannot be written.
    """
    if not runs:
        raise ValueError("there is no run to report on; give at least one")
    with replacing(Path(path)) as temporary:
        temporary.write_text(_render(runs), encoding="utf-8")


def _render(runs: Sequence[ReportRun]) -> str:
    script, style = _asset("report.js"), _asset("report.css")
    data = [
        {"name": r.name, "metrics": r.metrics, **(asdict(r.media) if r.media else {})} for r in runs
    ]
    return template("report.html").render(
        runs=[{"name": run.name, "m": run.metrics, "media": run.media} for run in runs],
        data=_json(data),
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        style_hash=_hash(style),
        show=partial(_show, runs),
    )


def _asset(name: str) -> str:
    return (files("worldmodel.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression of a content security policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _json(value: Any) -> Markup:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _show(runs: Sequence[ReportRun], index: int, path: str, form: str, unit: str = "") -> Markup:
    """One figure of `metrics.json`, marked with where it stands there."""
    value: Any = runs[index].metrics
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)]
        elif not isinstance(value, dict) or key not in value:
            return Markup("–")
        else:
            value = value[key]
    return _figure(value, path, form, unit)


def _figure(value: Any, path: str, form: str, unit: str = "") -> Markup:
    told = "–" if value is None else str(value) if form == "s" else format(value, form)
    return Markup('<span data-metric="{}" data-form="{}">{}</span>{}').format(
        path, form, told, unit and "\u202f" + unit
    )
