"""The documentation site: `make docs` builds it into ``build/site``."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1])]

project = "worldmodel"
author = "The worldmodel authors"
copyright = author
release = version = installed_version("worldmodel")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "repository",
    "reference",
    "tables",
]
exclude_patterns = ["_ext"]
root_doc = "index"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
highlight_language = "none"
smartquotes = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpicky = True
LIBRARIES = (
    "abc|collections|gym|gymnasium|np|nn|numpy|pathlib|pydantic|rich|sklearn|stable_baselines3"
    "|torch|types"
)
INTERNAL = "adapters.EnvAdapter|frames.Array|header.Header|windows.WindowReader"
nitpick_ignore_regex = [
    (r"py:.*", rf"({LIBRARIES})\..*"),  # other projects: linked where there is a network
    (r"py:.*", rf"worldmodel\.data\.({INTERNAL})"),
    (r"py:.*", r"worldmodel\.rl\.evaluation\.Predicts"),
    (r"py:.*", r"[A-Z]\w+"),  # names that are imported for type checking only
]
if os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "gymnasium": ("https://gymnasium.farama.org", None),
        "stable_baselines3": ("https://stable-baselines3.readthedocs.io/en/master", None),
    }

html_theme = "furo"
html_title = "worldmodel"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False

linkcheck_timeout = 30
linkcheck_retries = 2


def name_levels(app, page, template, context, doctree):
    """Give the captions of the navigation the level that a heading must have."""
    navigation = context["furo_navigation_tree"]
    context["furo_navigation_tree"] = navigation.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )


def setup(app):
    """Change pages after furo has prepared them."""
    app.connect("html-page-context", name_levels, priority=900)
