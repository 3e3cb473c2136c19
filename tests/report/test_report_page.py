"""The report's page: every number is that of metrics.json, and the file needs nothing else."""

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import browser_page
from PIL import Image
from reported import facts, reported

from worldmodel.report import ReportRun, write_report
from worldmodel.report.sprites import sprite_sheet

FIGURE = re.compile(r'<span data-metric="([^"]+)" data-form="([^"]+)">([^<]*)</span>')


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return reported(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, [run])
    return path


def value_at(metrics, path):
    for key in path.split("."):
        metrics = metrics[int(key)] if isinstance(metrics, list) else metrics[key]
    return metrics


def test_every_number_is_the_one_of_the_metrics(run, page):
    figures = FIGURE.findall(page.read_text())
    assert len(figures) > 150
    for path, form, told in figures:
        value = value_at(run.metrics, path)
        expected = "–" if value is None else str(value) if form == "s" else format(value, form)
        assert html.unescape(told) == expected, path
    shown = {path for path, _, _ in figures}
    angle = [f"forecast.angle.error.{k}" for k in run.metrics["forecast"]["angle"]["error"]]
    assert shown >= {*angle, "probes.untrained.linear.r2.omega2", "collapse.rankme", "run.seed"}


def test_the_curves_are_drawn_from_the_metrics_themselves(run, page):
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert json.loads(data.group(1))[0]["metrics"] == run.metrics


def test_the_same_run_gives_the_same_bytes(run, page, tmp_path):
    write_report(tmp_path / "again.html", [run])
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_nothing_is_loaded_from_elsewhere(page):
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_parts_that_are_missing_say_why(run, tmp_path):
    without = {"reason": "nobody <measured> it"}
    metrics = run.metrics | dict.fromkeys(
        ("probes", "privileged", "lyapunov", "actions", "energy"), without
    )
    metrics["forecast"] = run.metrics["forecast"] | {"angle": without, "frames": without}
    write_report(tmp_path / "report.html", [ReportRun("bare", metrics)])
    text = (tmp_path / "report.html").read_text()
    assert text.count("Not shown: nobody &lt;measured&gt; it.") == 5
    assert "data-player" not in text.split("<script")[0]


def test_a_name_cannot_become_markup(run, tmp_path):
    name = "</script><script>alert(1)</script>"
    write_report(tmp_path / "report.html", [ReportRun(name, run.metrics, run.media)])
    assert "<script>alert(1)" not in (tmp_path / "report.html").read_text()


def test_there_is_no_report_on_nothing(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        write_report(tmp_path / "report.html", [])
    assert not list(tmp_path.iterdir())


def test_a_sheet_holds_every_frame_at_its_place():
    frames = np.zeros((7, 8, 8, 3), np.uint8)
    frames[:, ...] = (np.arange(7) * 30)[:, None, None, None]
    sheet = sprite_sheet(frames, 8)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["uri"].split(",")[1]))))
    for i in range(7):
        row, column = divmod(i, sheet["columns"])
        tile = picture[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
        assert abs(float(tile.mean()) - i * 30) < 4


def test_the_page_works_in_a_browser_by_mouse_and_keyboard(run, page):
    with browser_page(page) as (tab, complaints):
        steps = run.media.player["steps"]
        time = tab.locator('[data-out="time"]')
        assert time.inner_text().startswith("k = 0,")
        tab.locator('[data-act="forward"]').click()
        assert time.inner_text().startswith("k = 1,")
        tab.locator('[data-chart="player"] > svg').focus()
        tab.keyboard.press("End")
        assert time.inner_text().startswith(f"k = {steps - 1},")
        told = tab.locator('[data-chart="player"] .readout').inner_text()
        assert f"{run.media.player['episodes'][0]['errors'][-1]:.3f}" in told
        tab.locator('[data-screen="truth"]').click()
        tab.locator('[data-act="scrub"]').focus()
        tab.keyboard.press("Home")
        assert time.inner_text().startswith("k = 0,")
        tab.locator('[data-act="play"]').click()
        tab.locator('[data-act="play"][aria-label="Pause"]').wait_for()
        while time.inner_text().startswith("k = 0,"):
            tab.wait_for_timeout(20)
        tab.locator('[data-act="episode"]').select_option("1")
        told = tab.locator('[data-chart="player"] .readout').inner_text()
        assert "error of the dream" in told
        space = tab.locator("[data-map]")
        space.hover(position={"x": 30, "y": 60})
        first = space.get_attribute("data-chosen")
        space.focus()
        tab.keyboard.press("ArrowRight")
        assert space.get_attribute("data-chosen") != first
        colours = tab.locator('[data-act="colour"] option').all_inner_texts()
        assert {"θ1", "ω2", "energy"} <= set(colours)
        tab.locator('[data-act="colour"]').select_option(label="energy")
        assert tab.locator('[data-out="legend"]').inner_text().endswith("J")
        before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.locator("#theme").click()
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != before
        assert not complaints


@pytest.mark.parametrize("width", [360, 1200])
def test_several_runs_are_compared_in_tabs_that_fit_the_screen(run, tmp_path, width):
    other = ReportRun("other", run.metrics | {"run": facts("other", seed=5)}, run.media)
    write_report(tmp_path / "report.html", [run, other])
    with browser_page(tmp_path / "report.html", width=width) as (tab, complaints):
        assert tab.locator("#comparison tbody tr").count() == 2
        assert tab.locator("#run-1").is_hidden()
        tab.locator("#tab-0").focus()
        tab.keyboard.press("ArrowRight")
        assert tab.locator("#run-1").is_visible()
        assert tab.locator("#run-0").is_hidden()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert not complaints
        assert Path(tmp_path / "report.html").stat().st_size < 3_000_000
