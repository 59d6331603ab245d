"""How the site is made (`make docs`). Its source is the repository, so that every link works there, too."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

import layeralign
from layeralign import __version__, api

project = "layeralign"
release = __version__
copyright = "The layeralign authors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md", "benchmarks/**.md"]
exclude_patterns = [".*", "out", "src", "tests"]  # not to be walked through
root_doc = "docs/index"

myst_heading_anchors = 4
highlight_language = "none"
smartquotes = False  # they make one dash of the two before a flag
default_role = "code"  # docstrings write `code` as Markdown does
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"

html_theme = "furo"  # nothing of it comes from another place, so the site works from a disk
html_title = "layeralign"
html_extra_path = ["root"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Two pages are made of the code itself: the commands', and what Python can call."""
    layeralign.cases, layeralign.report = api.cases, api.report  # the names are those of packages, too
    app.connect("source-read", _commands)
    app.connect("autodoc-process-docstring", _no_type, priority=400)


def _commands(app: Sphinx, name: str, source: list[str]) -> None:
    """Every command with its flags, by the command line's own words."""
    if name == "docs/reference/commands":
        from layeralign.cli.app import app as commands  # its commands come with the package

        told = commands.generate_docs()
        source[0] += told[told.index("**Find the hole**") :]


def _no_type(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """A field's text is no `type: text`, which is what napoleon takes its first line for."""
    if what == "attribute":
        lines[:0] = ["..", ""]  # an empty comment
