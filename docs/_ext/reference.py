"""Generated pages: the command line, the environments and the Python interface."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import gymnasium as gym
from repository import DOCS, ROOT, write
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.typing import stringify_annotation

import worldmodel  # noqa: F401  (registers the environments)

DOORS = (
    "worldmodel.data",
    "worldmodel.models",
    "worldmodel.imagination",
    "worldmodel.planning",
    "worldmodel.rl",
    "worldmodel.evaluation",
    "worldmodel.viz",
    "worldmodel.export",
    "worldmodel.sweeps",
)
"""Packages whose ``__init__.py`` lists public names."""

MODULES = (
    "worldmodel.hyperparameters",
    "worldmodel.evaluation_config",
    "worldmodel.agent_config",
    "worldmodel.keywords",
    "worldmodel.objectives",
    "worldmodel.plugins",
    "worldmodel.registry",
    "worldmodel.run_directory",
    "worldmodel.evaluation.metrics",
    "worldmodel.evaluation.forecast_metrics",
)
"""Modules that other pages refer to."""

ANIMATIONS = {
    "DoublePendulum-v0": (
        "double_pendulum.gif",
        "A double pendulum falls from nearly upright and swings without torque",
    ),
    "DoublePendulumPixels-v0": (
        "double_pendulum_pixels.gif",
        "The double pendulum beside the two 64 by 64 frames of each observation",
    ),
    "worldmodel/Latent-v0": (
        "../forecast.gif",
        "Pendulums of the real environment, beside those that the model imagines",
    ),
}


def write_commands() -> None:
    """Write the reference of the command line, from the command line itself."""
    command = [
        sys.executable,
        "-m",
        "typer",
        "worldmodel.cli",
        "utils",
        "docs",
        "--name",
        "worldmodel",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    body = done.stdout.partition("\n")[2]
    write("reference/cli", f"# Commands and options\n{body}")


def write_environments() -> None:
    """Write a page for each registered environment of this package, from its class docstring."""
    own = [spec for spec in gym.registry.values() if str(spec.entry_point).startswith("worldmodel")]
    pages = []
    for spec in own:
        name = spec.id.rpartition("/")[2]
        file, alternative = ANIMATIONS[spec.id]
        docstring = inspect.getdoc(environment_class(str(spec.entry_point)))
        write(
            f"reference/environments/{name}",
            f"# {spec.id}\n\n![{alternative}](/environments/{file})\n\n{docstring}\n",
        )
        pages.append(name)
    write(
        "reference/environments/index",
        "# Environments of this package\n\nHow to use them, and any other Gymnasium environment: "
        "[](/environments.md).\n\n```{toctree}\n:maxdepth: 1\n\n" + "\n".join(pages) + "\n```\n",
    )


def environment_class(entry_point: str) -> Any:
    """Return the class behind an entry point, which may be a function that makes it."""
    name, _, attribute = entry_point.partition(":")
    module = importlib.import_module(name)
    found = getattr(module, attribute)
    return found if inspect.isclass(found) else getattr(module, found.__annotations__["return"])


def write_api() -> None:
    """Write the pages of the Python interface; each object is on the first page that names it."""
    seen: dict[int, str] = {}
    for name in ("worldmodel", *DOORS, *MODULES):
        write_module(name, seen)
    lines = "\n".join(f"   {name}" for name in ("worldmodel", *DOORS, *MODULES))
    write_rst(
        "index", f"Python reference\n================\n\n.. toctree::\n   :maxdepth: 1\n\n{lines}\n"
    )


def write_module(name: str, seen: dict[int, str]) -> None:
    """Write the page of a package or a module.

    Args:
        name: the package or module.
        seen: ids of objects that have a page already, and the names they have there; extended.
    """
    module = importlib.import_module(name)
    parts = [f"{name}\n{'=' * len(name)}\n", f".. automodule:: {name}\n   :no-members:\n"]
    elsewhere = []
    for each in public_names(module):
        found = getattr(module, each)
        if id(found) in seen:
            elsewhere.append(f"- :py:obj:`{each} <{seen[id(found)]}>`")
        else:
            seen[id(found)] = f"{name}.{each}"
            parts.append(directive(name, each, found))
    if elsewhere:
        parts.append("On another page:\n\n" + "\n".join(elsewhere) + "\n")
    write_rst(name, "\n".join(parts))


def public_names(module: Any) -> list[str]:
    """Return the names that a package exports, or the public names that a module defines."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if name != "__version__"]
    return [
        name
        for name, found in vars(module).items()
        if not name.startswith("_") and getattr(found, "__module__", None) == module.__name__
    ]


def directive(module: str, name: str, found: Any) -> str:
    """Return the directive that documents an object."""
    if inspect.isclass(found):
        return f".. autoclass:: {module}.{name}\n   :members:\n   :show-inheritance:\n"
    if inspect.isfunction(found):
        return f".. autofunction:: {module}.{name}\n"
    return f".. py:data:: {module}.{name}\n\n   {comment(module, name, found)}\n"


def comment(module: str, name: str, found: Any) -> str:
    """Return the text below the definition of a constant, in the module that defines it."""
    for origin in [module, *(each for each in sys.modules if each.startswith(f"{module}."))]:
        if vars(sys.modules[origin]).get(name) is found:
            text = ModuleAnalyzer.for_module(origin).find_attr_docs().get(("", name))
            if text is not None:
                return " ".join(text).strip()
    raise ValueError(f"{module}.{name} has no description; write one below its definition")


def write_rst(name: str, text: str) -> None:
    """Write a page of the Python reference in reStructuredText, which autodoc reads."""
    path = DOCS / "reference" / "api" / f"{name}.rst"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_pages(app: Sphinx) -> None:
    """Write all generated pages of the reference."""
    write_commands()
    write_environments()
    write_api()


def without_markdown(
    app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Environments describe themselves in Markdown, as Gymnasium's do, and have their own pages."""
    if lines and lines[0].startswith("## "):
        lines[:] = ["An environment, see :doc:`/reference/environments/index`."]


def skip_fields(
    app: Sphinx, what: str, name: str, found: Any, skip: bool, options: Any
) -> bool | None:
    """Leave the fields of named tuples to the docstring of the class."""
    return True if type(found).__name__ == "_tuplegetter" else None


def add_types(
    app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Add the types of the attributes that a class describes, and the defaults of settings."""
    documented = [line.split()[1].strip(":") for line in lines if line.startswith(":ivar ")]
    if inspect.isclass(found) and documented:
        hints = annotations(found)
        fields = getattr(found, "model_fields", {})
        for each in documented:
            if each in fields:
                add_default(lines, each, fields[each].default)
            if each in hints:
                lines.append(f":vartype {each}: {hints[each]}")


def add_default(lines: list[str], name: str, default: Any) -> None:
    """Add the default of a setting to its description, if it is a plain value."""
    if isinstance(default, int | float | str | Path | tuple):
        start = next(i for i, line in enumerate(lines) if line.startswith(f":ivar {name}:"))
        end = start + 1
        while end < len(lines) and lines[end].startswith(" "):
            end += 1
        value = str(default) if isinstance(default, Path) else repr(default)
        lines[end - 1] += f" Default: ``{value}``."


def hide_fields(
    app: Sphinx, what: str, name: str, found: Any, options: Any, signature: str, result: str
) -> tuple[str, str] | None:
    """Settings and results have their fields in the description, not also in the signature."""
    return ("", "") if inspect.isclass(found) and hasattr(found, "model_fields") else None


def annotations(found: type) -> dict[str, str]:
    """Return the types of a class's own attributes, without what validates them."""
    own = inspect.get_annotations(found)
    alone = type("alone", (), {"__annotations__": own, "__module__": found.__module__})
    try:
        hints = get_type_hints(alone)
    except NameError:  # a name that is imported for type checking only
        return {name: str(hint) for name, hint in own.items()}
    return {name: stringify_annotation(hint, "smart") for name, hint in hints.items()}


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps of the build."""
    app.connect("builder-inited", write_pages, priority=200)
    app.connect("autodoc-process-signature", hide_fields)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", without_markdown, priority=100)
    app.connect("autodoc-process-docstring", add_types, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
