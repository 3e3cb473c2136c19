"""The report and the documentation site are accessible: axe-core finds nothing serious."""

import subprocess
import sys
from pathlib import Path

import pytest
from accessibility import findings
from browser import CHROMIUM, browser_page
from documents import ROOT

SCHEMES = ("light", "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1000, 390])
def test_the_report_is_accessible(driven_run, scheme, width):
    with browser_page(driven_run / "report.html", width, color_scheme=scheme) as (page, _):
        assert findings(page) == []


def test_a_page_without_alternative_texts_is_found(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<html lang=en><title>t</title><img src='data:image/png;base64,'></html>")
    with browser_page(path) as (page, _):
        assert [each.partition(":")[0] for each in findings(page)] == ["image-alt"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation site, built."""
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "docs", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_of_the_site_is_accessible(site, scheme):
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    wrong = {}
    pages = sorted(site.rglob("*.html"))
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(color_scheme=scheme)
        for path in pages:
            page.goto(path.as_uri())
            if found := findings(page):
                wrong[str(path.relative_to(site))] = found
        browser.close()
    assert len(pages) > 40
    assert wrong == {}


@pytest.mark.slow
def test_the_search_of_the_site_finds_a_page(site):
    with browser_page(Path(f"{site}/search.html")) as (page, _):
        page.goto(f"{(site / 'search.html').as_uri()}?q=collapse")
        page.wait_for_selector("#search-results li a", timeout=20_000)
        links = page.locator("#search-results li a").all_inner_texts()
    assert any("Phenomena" in text for text in links)
