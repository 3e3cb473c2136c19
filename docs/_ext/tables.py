"""Keep tables of results readable: numbers do not wrap, wide tables are marked for the style."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NUMBER = re.compile(r"[-+]?\d[\d.,]*( ± [\d.,]+)?( (%|dB|s|ms|rad|MB|GB|of \d+))?")
"""Cells that hold one number, with its spread or its unit, and so must not wrap."""

WIDE = 6
"""Columns from which a table is wide: its first column stays in view while it is scrolled."""


def mark_tables(app: Sphinx, doctree: nodes.document) -> None:
    """Add the class ``number`` to cells of one number, and ``wide`` to tables of many columns."""
    for table in doctree.findall(nodes.table):
        if len(list(table.findall(nodes.colspec))) >= WIDE:
            table["classes"].append("wide")
        for entry in table.findall(nodes.entry):
            if NUMBER.fullmatch(entry.astext()):
                entry["classes"].append("number")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the step of the build."""
    app.connect("doctree-read", mark_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
