"""Sphinx configuration."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from autopush import __version__  # noqa: E402

project = "autopush"
author = "the autopush authors"
copyright = "the autopush authors, MPL 2.0"
version = release = __version__

extensions = ["autopush_options"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Web Push service"}
nitpicky = True
smartquotes = False
