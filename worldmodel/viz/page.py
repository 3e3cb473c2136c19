"""Offline pages: templates and assets of a package, put into one HTML file without injection."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup


def load_template(package: str, name: str, **filters: Callable[..., Any]) -> Template:
    """Load a template from the ``assets`` of a package; texts are escaped.

    Args:
        package: name of the package.
        name: file name of the template.
        filters: further filters that it uses. Undefined variables are errors.
    """
    environment = Environment(
        loader=PackageLoader(package, "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def asset(package: str, name: str) -> str:
    """Read a text file from the ``assets`` of a package."""
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    """Return the source expression that allows a text in a content security policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def to_json(value: Any) -> Markup:
    """Encode a value as JSON that cannot close the script element around it.

    Raises:
        ValueError: If it holds NaN or infinity, which JSON does not have.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))
