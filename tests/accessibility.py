"""What axe-core finds on a page that is open in a browser."""

from __future__ import annotations

from typing import Any

import pytest

SERIOUS = ("serious", "critical")


def findings(page: Any) -> list[str]:
    """Return the serious and critical findings on a page, each with the elements concerned."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:120] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in SERIOUS
    ]
