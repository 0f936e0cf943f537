"""Builds the site: ``make docs``."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import flax_attn

ROOT = Path(__file__).parent.parent
# Pages of the site that are files of the repository, or begin with one.
FILES = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}

project = "flax_attn"
author = "the authors of flax_attn"
version = release = flax_attn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"flax_attn {version}"
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

default_role = "py:obj"  # `CBAM` in a docstring links to the class
autodoc_default_options = {"members": True, "special-members": "__call__", "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]


def public(module: str) -> list[str]:
    """The names that a module offers and no other page has: its own, and those that a package re-exports."""
    found = importlib.import_module(module)
    names = [name for name, value in vars(found).items() if name[0] != "_" and is_public(found, value)]
    return [name for name in names if found is flax_attn or not hasattr(flax_attn, name)]


def is_public(module: Any, value: Any) -> bool:
    """Whether a module defines a class or function, or re-exports it from a file of its package."""
    home = getattr(value, "__module__", "") or ""
    here = home == module.__name__ or (hasattr(module, "__path__") and home.startswith(f"{module.__name__}."))
    return here and (inspect.isclass(value) or inspect.isfunction(value))


autosummary_context = {"public": public}


def read_source(app: Any, page: str, source: list[str]) -> None:
    """Puts files of the repository in place, and has links lead to pages of the site."""
    if page in FILES:
        source[0] = (ROOT / FILES[page]).read_text(encoding="utf-8") + source[0]
    text = re.sub(r"\]\((\.\./|docs/)?(CONTRIBUTING|CHANGELOG)\.md", lambda m: f"]({m[2].lower()}.md", source[0])
    text = re.sub(r"\]\(docs/", "](", text) if page in FILES else text
    source[0] = re.sub(r"\[`(\w+)`\]\((?:\.\./)?flax_attn/blocks/\w+\.py\)", r"{py:class}`~flax_attn.\1`", text)


def escape_stars(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keeps the stars of ``**options`` in a docstring, which is no emphasis."""
    lines[:] = [re.sub(r"(?<![\w`*\\])(\*{1,2})(?=\w+\b(?!\*))", r"\\\1", line) for line in lines]


def setup(app: Any) -> None:
    """Connects the hooks."""
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", escape_stars)
