"""Links of README and docs to files, pages and headings of this repository are valid."""

import pytest
from documents import LINKED, ROOT, anchors, links


def broken(path):
    """Return the links of a page that lead nowhere; those to other sites are not looked at."""
    wrong = []
    for target in sorted(links(path)):
        file, _, anchor = target.partition("#")
        if "://" in file or file.startswith("mailto:"):
            continue
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_exist(path):
    assert broken(path) == []


def test_links_to_missing_files_and_headings_are_found(tmp_path):
    page = tmp_path / "page.md"
    text = "# A `b`: c\n[1](#a-b-c) [2](#d) [3](page.md#a-b-c) ![4](no.png) [5](https://a.b/no)"
    page.write_text(text)
    assert broken(page) == ["#d", "no.png"]


def test_every_page_of_docs_is_in_the_navigation():
    index = (ROOT / "docs" / "index.md").read_text()
    entries = set(index.splitlines())
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages - entries == set()
