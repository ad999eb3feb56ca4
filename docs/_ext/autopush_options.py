"""Directive ``autopush-options``: the option tables of the standalone service."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from autopush.main_argparse import standalone_parser
from autopush.options import FLAG, SWITCH, Option
from autopush.options_standalone import STANDALONE


def source(row: Option) -> Iterator[str]:
    """Yield the lines that describe an option in reStructuredText."""
    names = [f"--{row.name}"]
    if row.kind == SWITCH:
        names.append(f"--no_{row.name}")
    elif row.kind != FLAG:
        names[0] += f" {row.metavar}"
        if row.short:
            names.insert(0, f"{row.short} {row.metavar}")
    yield f".. option:: {', '.join(names)}"
    yield ""
    # Braces, asterisks and the like in a help text are to be read as they are.
    text = row.help.replace("\\", r"\\").replace("*", r"\*").replace("`", r"\`")
    yield f"   {text}."
    facts = [f"Variable: ``{row.env}``"]
    if row.default not in (None, "", False, [], "{}"):
        default = "on" if row.default is True else row.default
        facts.append(f"default: ``{default}``")
    yield ""
    yield f"   {', '.join(facts)}."
    yield ""


class OptionsDirective(SphinxDirective):
    """All options, in their groups."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(__file__)
        result: list[nodes.Node] = []
        for title, rows in STANDALONE:
            lines = [line for row in rows if row.help != argparse.SUPPRESS for line in source(row)]
            section = nodes.section(
                ids=[nodes.make_id(title)], names=[nodes.fully_normalize_name(title)]
            )
            section += nodes.title(text=title[0].upper() + title[1:])
            section += self.parse_text_to_nodes(
                "\n".join([".. program:: autopush_standalone", "", *lines])
            )
            result.append(section)
        return result


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx' entry point; fails the build if the parser does."""
    standalone_parser()
    app.add_directive("autopush-options", OptionsDirective)
    return {"version": "1", "parallel_read_safe": True}
