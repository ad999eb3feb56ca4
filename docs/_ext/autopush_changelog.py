"""Directive ``autopush-changelog``: what CHANGELOG.md says, as sections of the page.

The argument is the file, seen from the page. Of Markdown it knows what a changelog needs: headings,
lists, code and links.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

UNDERLINES = {"##": "-", "###": "~"}
HEADING = re.compile(r"^(##+) (.+)$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`(\w?)")
LINK = re.compile(r"\[([^\]]+)\]\((https?:[^)]+)\)")


def restructured(markdown: str) -> str:
    """Translate to reStructuredText, without the title.

    :raises KeyError: a heading below the third level
    """
    text = markdown.partition("\n")[2]
    text = CODE.sub(lambda found: f"``{found[1]}``" + (f"\\ {found[2]}" if found[2] else ""), text)
    text = LINK.sub(r"`\1 <\2>`__", text)
    return HEADING.sub(lambda found: f"{found[2]}\n{UNDERLINES[found[1]] * len(found[2])}", text)


class ChangelogDirective(SphinxDirective):
    """See the module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.relfn2path(self.arguments[0])[1])
        self.env.note_dependency(__file__)
        self.env.note_dependency(path)
        text = restructured(path.read_text("utf-8"))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx' entry point."""
    app.add_directive("autopush-changelog", ChangelogDirective)
    return {"version": "1", "parallel_read_safe": True}
