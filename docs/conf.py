"""Builds the site: ``make docs``."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from flax import nnx
from sphinx.util.inspect import stringify_signature

import flax_attn
from flax_attn.registry import BLOCKS

ROOT = Path(__file__).parent.parent
# Pages of the site that are files of the repository, or begin with one.
FILES = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}

project = "flax_attn"
html_show_copyright = False
version = release = flax_attn.__version__
extensions = ["myst_parser", *(f"sphinx.ext.{name}" for name in ("autodoc", "autosummary", "napoleon", "viewcode"))]
html_theme = "furo"
html_title = f"flax_attn {version}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

default_role = "py:obj"  # `CBAM` in a docstring links to the class
autodoc_default_options = {"members": True, "special-members": "__call__", "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]


def public(module: str) -> list[str]:
    """The names that a module offers and no other page has: its own, and those that a package re-exports."""
    found = importlib.import_module(module)
    names = [name for name, value in vars(found).items() if name[0] != "_" and is_public(found, value)]
    return [name for name in names if found is flax_attn or not hasattr(flax_attn, name)]


def is_public(module: Any, value: Any) -> bool:
    """Whether a file defines a class or function, or a package re-exports something from its files."""
    if hasattr(module, "__path__"):
        return not inspect.ismodule(value)
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__


# For _templates/package.rst: the names of each module that api.rst lists.
API = re.findall(r"^   (flax_attn\S*)$", (ROOT / "docs" / "api.rst").read_text(encoding="utf-8"), flags=re.MULTILINE)
autosummary_context = {"public": {module: public(module) for module in API}}


def read_source(app: Any, page: str, source: list[str]) -> None:
    """Puts files of the repository in place, and has links lead to pages of the site."""
    if page in FILES:
        source[0] = (ROOT / FILES[page]).read_text(encoding="utf-8") + source[0]
    text = re.sub(r"\]\((\.\./|docs/)?(CONTRIBUTING|CHANGELOG)\.md", lambda m: f"]({m[2].lower()}.md", source[0])
    text = re.sub(r"\]\(docs/", "](", text) if page in FILES else text
    if page == "blocks":  # a page for each, listed beside this one
        pages = "\n".join(dict.fromkeys(f"api/flax_attn.{entry.block.__name__}" for entry in BLOCKS))
        text += f"\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
    source[0] = re.sub(r"\[`(\w+)`\]\((?:\.\./)?flax_attn/blocks/\w+\.py\)", r"{py:class}`~flax_attn.\1`", text)


def picture(block: str) -> Path:
    """The picture of what a block records, which ``python -m train report --pictures`` draws."""
    return ROOT / "docs" / "blocks" / f"{block}.png"


def read_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Adds to a block its picture and the text of its file, with equations, and keeps stars from becoming emphasis."""
    if what == "class" and thing.__module__.startswith("flax_attn.blocks."):
        for name in (entry.name for entry in BLOCKS if entry.block is thing and picture(entry.name).is_file()):
            alt = f"What {name} records on a generated image with a white patch"
            lines += [f".. image:: /blocks/{name}.png", f"   :alt: {alt}", ""]
        file = inspect.getdoc(inspect.getmodule(thing)) or ""
        lines += [".. rubric:: Background", "", *file.splitlines(), ""]
    stars = re.compile(r"(``.*?``)|(\*{1,2})(?=\w+\b(?!\*))")
    lines[:] = [stars.sub(lambda m: m[1] or m[2].replace("*", r"\*"), line) for line in lines]


def read_signature(app: Any, what: str, name: str, thing: Any, *_: Any) -> tuple[str, str] | None:
    """The arguments of a class's ``__init__``, which NNX's metaclass hides."""
    if what != "class" or not issubclass(thing, nnx.Module):
        return None
    signature = inspect.signature(thing.__init__)
    own = signature.replace(parameters=list(signature.parameters.values())[1:])
    return stringify_signature(own, show_annotation=False), ""


def skip_foreign(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out functions of other packages that are defaults of a class's fields."""
    home = getattr(thing, "__module__", None) or "flax_attn"
    return True if inspect.isroutine(thing) and not home.startswith("flax_attn") else None


def setup(app: Any) -> None:
    """Connects the hooks."""
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
    app.connect("autodoc-skip-member", skip_foreign)
