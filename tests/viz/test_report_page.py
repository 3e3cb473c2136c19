"""The report: every number is the one of metrics.json, and the page needs no other file."""

import base64
import html
import io
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import browser_page
from PIL import Image
from reported import run_summary

from worldmodel.evaluation.metrics import ReturnMetrics
from worldmodel.viz.media import project, sprite_sheet
from worldmodel.viz.report import ReportRun, insert_agents, write_report

FIGURE = re.compile(r'<span data-metric="([^"]+)" data-form="([^"]+)">([^<]*)</span>')


@pytest.fixture(scope="module")
def run(tiny_report):
    return tiny_report


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
    figures, metrics = FIGURE.findall(page.read_text()), run.metrics.to_dict()
    assert len(figures) > 150
    for path, form, text in figures:
        value = value_at(metrics, path)
        if value is None:
            assert text == ("exact" if ".psnr" in path else "–")
        else:
            expected = str(value) if form == "s" else format(value, form)
            assert html.unescape(text) == expected, path
    shown = {path for path, _, _ in figures}
    angle = [f"forecast.angle.error.{k}" for k in metrics["forecast"]["angle"]["error"]]
    assert shown >= {*angle, "probes.untrained.linear.r2.omega2", "collapse.rankme", "run.seed"}
    assert shown >= {"reference.error.10", "heads.reward.rmse", "energy.readout_rmse"}


def test_rank_correlations_of_returns_are_shown(run, tmp_path):
    returns = ReturnMetrics(7, {"5": 0.71, "10": None}, {"5": (0.6, 0.8), "10": None})
    shown = replace(run, metrics=replace(run.metrics, returns=returns))
    write_report(tmp_path / "report.html", [shown])
    text = (tmp_path / "report.html").read_text()
    (row,) = re.findall(r"imagined and real returns of (\d+) actions.*?<td>(.*?)</td>", text)
    assert row[0] == "5"
    assert FIGURE.findall(row[1]) == [("returns.rank_correlation.5", ".2f", "0.71")]
    assert ">7</span> held-out episodes under random actions, imagined open loop" in text


def test_rows_hold_what_their_labels_say(page):
    rows = re.findall(
        r'<th scope="row">([^<]*)</th>(?:<td>\w+</td>)?<td><span data-metric="([^"]+)"',
        page.read_text(),
    )
    assert rows[:9] == [
        ("median angle error, rad", "forecast.angle.error.0"),
        ("persistence", "forecast.angle.persistence.0"),
        ("constant velocity", "forecast.angle.constant_velocity.0"),
        ("reference model on the true state, 20 updates", "reference.error.0"),
        ("PSNR, dB", "forecast.frames.psnr.0"),
        ("persistence", "forecast.frames.psnr_persistence.0"),
        ("SSIM", "forecast.frames.ssim.0"),
        ("persistence", "forecast.frames.ssim_persistence.0"),
        ("latent error, fraction of variance", "forecast.latent.error.0"),
    ]
    assert ("actions of another episode", "actions.angle.shuffled.0") in rows
    assert ("terminations, recall", "heads.termination.recall") in rows
    assert ("PCA of observations", "probes.pixels.mlp.r2.sin_theta1") in rows


def test_the_curves_are_drawn_from_the_metrics(run, page):
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert json.loads(data.group(1))[0]["metrics"] == run.metrics.to_dict()


def test_the_same_run_gives_the_same_bytes(run, page, tmp_path):
    write_report(tmp_path / "again.html", [run])
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_nothing_is_loaded_from_elsewhere(page):
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "url(" not in text
    assert "default-src 'none'" in text


PARTS = ("probes", "reference", "lyapunov", "actions", "energy")


def without_parts(metrics):
    """Metrics of an environment that gives no true state, of a model without a decoder."""
    absent = ("forecast.angle", "forecast.frames", *PARTS)
    return replace(
        metrics,
        forecast=replace(metrics.forecast, angle=None, frames=None),
        reasons=dict.fromkeys(absent, "nobody <measured> it"),
        **dict.fromkeys(PARTS),
    )


def test_absent_parts_are_explained(run, tmp_path):
    write_report(tmp_path / "report.html", [ReportRun("bare", without_parts(run.metrics))])
    text = (tmp_path / "report.html").read_text()
    assert text.count(": nobody &lt;measured&gt; it.") == 5
    assert "No angle errors: nobody" in text
    assert "data-player" not in text.split("<script")[0]


def test_a_report_outside_a_run_directory_names_no_run(run, tmp_path):
    write_report(tmp_path / "report.html", [ReportRun("bare", replace(run.metrics, run=None))])
    assert "run.seed" not in (tmp_path / "report.html").read_text()


def test_a_model_of_one_action_is_called_one(run, tmp_path):
    sentence = "Training data held one action only"
    write_report(tmp_path / "one.html", [run])
    assert sentence in (tmp_path / "one.html").read_text()
    actions = replace(run.metrics.actions, varied_in_training=True)
    varied = replace(run, metrics=replace(run.metrics, actions=actions))
    write_report(tmp_path / "several.html", [varied])
    assert sentence not in (tmp_path / "several.html").read_text()


def test_absent_errors_of_wrong_actions_have_no_row(run, tmp_path):
    actions = replace(run.metrics.actions, angle=None)
    actions = replace(actions, latent=replace(actions.latent, midpoint=None))
    write_report(tmp_path / "a.html", [ReportRun("a", replace(run.metrics, actions=actions))])
    text = (tmp_path / "a.html").read_text()
    assert "actions.latent.shuffled.10" in text
    assert "middle of the action range" not in text


def test_a_name_cannot_become_markup(run, tmp_path):
    name = "</script><script>alert(1)</script>"
    write_report(tmp_path / "report.html", [ReportRun(name, run.metrics, run.media)])
    assert "<script>alert(1)" not in (tmp_path / "report.html").read_text()


def test_a_report_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        write_report(tmp_path / "report.html", [])
    assert not list(tmp_path.iterdir())


def test_a_sprite_sheet_holds_every_frame_in_its_tile():
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
        readout = tab.locator('[data-chart="player"] .readout').inner_text()
        assert f"{run.media.player['episodes'][0]['errors'][-1]:.3f}" in readout
        tab.locator('[data-screen="truth"]').click()
        tab.locator('[data-act="scrub"]').focus()
        tab.keyboard.press("Home")
        assert time.inner_text().startswith("k = 0,")
        tab.locator('[data-act="play"]').click()
        tab.locator('[data-act="play"][aria-label="Pause"]').wait_for()
        while time.inner_text().startswith("k = 0,"):
            tab.wait_for_timeout(20)
        tab.locator('[data-act="episode"]').select_option("1")
        readout = tab.locator('[data-chart="player"] .readout').inner_text()
        assert "error of the forecast" in readout
        space = tab.locator("[data-map]")
        space.hover(position={"x": 30, "y": 60})
        first = space.get_attribute("data-chosen")
        space.focus()
        tab.keyboard.press("ArrowRight")
        assert space.get_attribute("data-chosen") != first
        colors = tab.locator('[data-act="color"] option').all_inner_texts()
        assert {"θ1", "ω2", "energy"} <= set(colors)
        tab.locator('[data-act="color"]').select_option(label="energy")
        assert tab.locator('[data-out="legend"]').inner_text().endswith("J")
        before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.locator("#theme").click()
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != before
        assert not complaints


@pytest.mark.parametrize("width", [360, 1200])
def test_several_runs_are_compared_in_tabs_that_fit_the_screen(run, tmp_path, width):
    other = ReportRun("other", replace(run.metrics, run=run_summary("other", seed=5)), run.media)
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


def test_a_bare_page_works_in_a_browser(run, tmp_path):
    bare = ReportRun("bare", without_parts(run.metrics))
    write_report(tmp_path / "report.html", [bare, bare])
    with browser_page(tmp_path / "report.html") as (tab, complaints):
        assert tab.locator('#run-0 [data-chart="std"] > svg').is_visible()
        assert not complaints


def point(steps, seconds, mean):
    return {"steps": steps, "seconds": seconds, "mean": mean, "reward_per_step": mean / 200}


def test_agents_are_inserted_once_and_replaced_later(run, tmp_path):
    row = {"std": 1.0, "fraction_of_state": None, "reward_per_step": 0.5, "model_data_steps": 900}
    row |= {"seconds": 60.0, "seconds_to_threshold": None, "real_steps": 2000, "mean": -3.0}
    row |= {"steps_to_threshold": None}
    row["curve"] = [point(1000, 30.0, -9.0), point(2000, 60.0, -3.0)]
    views = {"state": row, "dream": row | {"real_steps": 0, "fraction_of_state": 0.9}}
    content = {"algo": "ppo", "steps": 2000, "seeds": [0], "threshold": -2.0, "views": views}
    write_report(tmp_path / "report.html", [run])
    insert_agents(tmp_path)
    before = (tmp_path / "report.html").read_text()
    assert 'id="agents"' not in before
    (tmp_path / "rl").mkdir()
    for algo in ("ppo", "sac"):
        (tmp_path / "rl" / "compare.json").write_text(json.dumps(content | {"algo": algo}))
        insert_agents(tmp_path)
    after = (tmp_path / "report.html").read_text()
    assert after.count('<section id="agents">') == 1
    assert "SAC of Stable-Baselines3" in after
    assert "PPO of Stable-Baselines3" not in after
    assert "not reached" in after
    start, end = after.index("<!-- agents -->"), after.index("<!-- /agents -->")
    assert after[:start] + "<!-- agents -->" + after[end:] == before
    with browser_page(tmp_path / "report.html") as (tab, complaints):
        assert tab.locator("#agents polyline").count() == 3
        assert not complaints


def test_options_in_reasons_are_kept_on_one_line(run, tmp_path):
    reasons = {"probes": "name <its> key with --state-key"}
    shown = replace(run, metrics=replace(run.metrics, probes=None, reasons=reasons))
    write_report(tmp_path / "report.html", [shown])
    text = (tmp_path / "report.html").read_text()
    assert "name &lt;its&gt; key with <code>--state-key</code>" in text


def test_clusters_of_equal_latents_are_mapped_without_warnings():
    clusters = np.repeat(np.random.default_rng(0).normal(size=(5, 8)), 30, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xy = project(clusters)
    assert np.isfinite(xy).all()
    assert len(np.unique(xy.round(6), axis=0)) == 5
