"""Sphinx configuration."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from autopush_references import linked  # noqa: E402
from twisted.python.reflect import namedAny  # noqa: E402

from autopush import __version__  # noqa: E402

project = "autopush"
author = "the autopush authors"
copyright = "the autopush authors, MPL 2.0"
version = release = __version__

extensions = [
    "autopush_changelog",
    "autopush_drawing",
    "autopush_limits",
    "autopush_options",
    "sphinx.ext.autodoc",
    "sphinxcontrib.httpdomain",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"autopush {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
smartquotes = False
# Other people's classes are not linked: their inventories would have to be downloaded.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!autopush\.).*")]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90
http_headers_ignore_prefixes = ["X-"]
http_strict_mode = False


def with_links(app, what, name, obj, options, lines):
    """Make links of the references of docstrings to the specification and to decisions."""
    lines[:] = linked("\n".join(lines)).split("\n")


def undocumented(app, env, node, contnode):
    """Accept a reference to something of ours that exists without being documented."""
    name = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not name.startswith("autopush."):
        return None
    try:
        namedAny(name)
    except Exception:
        return None
    return contnode


def setup(app):
    """Sphinx' entry point."""
    app.connect("autodoc-process-docstring", with_links)
    app.connect("missing-reference", undocumented)
