"""Links to files of the repository lead to pages of the site that show them.

Pages are written for GitHub, where ``../worldmodel/run.py`` is a link to the file. On the site the
same link leads to a page with the file, and links to ``CHANGELOG.md`` and the like to their pages.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROJECT_PAGES = {
    ROOT / "CONTRIBUTING.md": "project/contributing",
    ROOT / "CHANGELOG.md": "project/changelog",
    ROOT / "SECURITY.md": "project/security",
    ROOT / "README.md": "index",
}
SOURCES = "reference/source"
LINK = re.compile(r"\]\((?![a-z+]+:|#|/)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".md": "markdown"}


def links(text: str, folder: Path) -> Iterator[Path]:
    """Yield the files and directories of the repository that a page in `folder` links to."""
    for match in LINK.finditer(text):
        yield Path(os.path.normpath(folder / match["path"]))


def site_links(text: str, folder: Path) -> str:
    """Replace links to files of the repository with links to pages of the site.

    Args:
        text: Markdown of a page.
        folder: directory to which its links are relative.
    """

    def replace(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(folder / match["path"]))
        anchor = match["anchor"] or ""
        if path in PROJECT_PAGES:
            return f"](/{PROJECT_PAGES[path]}.md{anchor})"
        if path.is_relative_to(DOCS):
            return f"](/{path.relative_to(DOCS)}{anchor})"
        return f"](/{source_page(path)}.md)"

    return LINK.sub(replace, text)


def source_page(path: Path) -> str:
    """Name the page of a file or directory of the repository."""
    page = f"{SOURCES}/{path.relative_to(ROOT)}"
    return f"{page}/index" if path.is_dir() else page


def write(page: str, text: str) -> None:
    """Write a generated page, if it is not the same already."""
    path = DOCS / f"{page}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_file_page(path: Path) -> None:
    """Write the page that shows a file of the repository."""
    name = path.relative_to(ROOT)
    here = Path(os.path.relpath(path, (DOCS / source_page(path)).parent)).as_posix()
    language = LANGUAGES.get(path.suffix, "none")
    write(
        source_page(path),
        f"---\norphan: true\nnosearch: true\n---\n\n# `{name}`\n\n"
        f"```{{literalinclude}} {here}\n:language: {language}\n```\n",
    )


def write_directory_page(path: Path) -> set[Path]:
    """Write the page that lists the files of a directory, and return them."""
    files = {each for each in path.iterdir() if each.suffix in LANGUAGES}
    lines = [f"- [`{each.name}`]({each.name}.md){summary(each)}" for each in sorted(files)]
    title = f"# `{path.relative_to(ROOT)}/`"
    write(source_page(path), "\n".join(["---\norphan: true\n---\n", title, "", *lines, ""]))
    return files


def summary(path: Path) -> str:
    """Return the first line of a module's docstring, or of a file's comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    words = first.strip('"# ')
    return f": {words}" if first.startswith(('"""', "#")) else ""


def write_pages(app: Sphinx) -> None:
    """Write the pages of the project, and of all files and directories that pages link to."""
    shutil.rmtree(DOCS / SOURCES, ignore_errors=True)
    found: set[Path] = set()
    for page, name in PROJECT_PAGES.items():
        text = page.read_text(encoding="utf-8")
        if name != "index":
            write(name, site_links(text, ROOT))
            found |= set(links(text, ROOT))
    for page in DOCS.glob("*.md"):
        found |= set(links(page.read_text(encoding="utf-8"), DOCS))
    wanted = {
        path
        for path in found
        if path.is_relative_to(ROOT)
        and not path.is_relative_to(DOCS)
        and path not in PROJECT_PAGES
        and path.exists()
    }
    for directory in [path for path in wanted if path.is_dir()]:
        wanted |= write_directory_page(directory)
    for path in wanted:
        if path.is_file():
            write_file_page(path)


def rewrite(app: Sphinx, page: str, source: list[str]) -> None:
    """Rewrite the links of a page in ``docs/`` as it is read."""
    if "/" not in page:
        source[0] = site_links(source[0], DOCS)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps of the build."""
    app.connect("builder-inited", write_pages, priority=100)
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
