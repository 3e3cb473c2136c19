"""README and the pages of docs/, taken apart: blocks of code, commands, links and headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
SHELL = ("bash", "")
PLACEHOLDERS = {
    "N": "3",
    "X": "0.1",
    "COMMAND": "info",
    "[RUN": "RUN",
    "[PATH]": "PATH",
    "...]": "RUN",
}
"""Words of documented commands that stand for others."""


@dataclass(frozen=True)
class Block:
    """A block of code, with the HTML comment above it, if there is one."""

    page: str
    line: int
    language: str
    text: str
    note: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def tokens(path: Path) -> list[Token]:
    """Parse a page."""
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


def blocks(path: Path) -> list[Block]:
    """Return the blocks of code of a page, fenced and indented ones."""
    found, note = [], ""
    for token in tokens(path):
        if token.type in ("fence", "code_block"):
            line = (token.map or [0])[0] + 1
            found.append(Block(path.name, line, token.info.strip(), token.content, note))
        comment = re.fullmatch(r"<!-- (.*?) -->\s*", token.content, re.DOTALL)
        note = comment[1] if token.type == "html_block" and comment else ""
    return found


def saved_file(name: str) -> str:
    """Return the block of a page that its reader saves as a file; its first line is ``# name``."""
    found = [b.text for path in PAGES for b in blocks(path) if b.text.startswith(f"# {name}\n")]
    (text,) = found
    return text


def inline(path: Path, kind: str) -> Iterator[Token]:
    """Yield the parts of a page's text that have a type, such as ``code_inline``."""
    for token in tokens(path):
        yield from (child for child in token.children or () if child.type == kind)


def commands(path: Path) -> list[tuple[str, ...]]:
    """Return the arguments of each ``worldmodel`` command of a page, without repetitions."""
    lines = [token.content for token in inline(path, "code_inline")]
    for block in blocks(path):
        if block.language in SHELL:
            lines += block.text.replace("\\\n", " ").splitlines()
    found = [arguments(line) for line in lines if re.search(r"\bworldmodel\s", line)]
    return list(dict.fromkeys(words for words in found if words))


def arguments(line: str) -> tuple[str, ...]:
    """Return the arguments of the ``worldmodel`` command in a line; () if there is none."""
    words = split(line)
    for i, word in enumerate(words):
        starts = i == 0 or "=" in words[i - 1] or words[i - 1] in ("-m", "&&", "$")
        if word == "worldmodel" and starts and words[i + 1 :]:
            own = words[i + 1 :]
            own = own[: own.index("&&")] if "&&" in own else own
            return tuple(filter(None, (PLACEHOLDERS.get(each, each) for each in own)))
    return ()


def split(line: str) -> list[str]:
    """Split a line as a shell does, also a command that is one quoted word of it."""
    words: list[str] = []
    for word in shlex.split(re.sub(r"<(\w+)>", r"\1", line), comments=True):
        words += split(word) if " -m worldmodel " in word else [word]
    return words


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    found: list[str] = []
    parsed = tokens(path)
    for opening, content in pairwise(parsed):
        if opening.type == "heading_open":
            text = "".join(child.content for child in content.children or ())
            base = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            again = sum(each == base or each.startswith(f"{base}-") for each in found)
            found.append(f"{base}-{again}" if base in found else base)
    return set(found)


def links(path: Path) -> set[str]:
    """Return the targets of the links and images of a page."""
    targets = [str(token.attrs["href"]) for token in inline(path, "link_open")]
    return {*targets, *(str(token.attrs["src"]) for token in inline(path, "image"))}
