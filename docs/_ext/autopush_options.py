"""Directive ``autopush-options``: all options of a command, as its parser knows them.

The argument is the command: ``autopush_standalone``, ``autopush`` or ``autoendpoint``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from autopush.options.parser import connection_parser, endpoint_parser, standalone_parser

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "autopush": connection_parser,
    "autoendpoint": endpoint_parser,
    "autopush_standalone": standalone_parser,
}
UNTITLED = {"options": "files and actions"}
"""argparse's name for what is in no group."""


def documented(action: argparse.Action) -> bool:
    """Whether ``--help`` shows an option, and so the reference does."""
    return bool(action.option_strings) and action.help not in (None, argparse.SUPPRESS)


def source(action: argparse.Action) -> Iterator[str]:
    """Yield the lines that describe an option in reStructuredText."""
    names = list(action.option_strings)
    if action.nargs != 0:
        metavar = action.metavar or action.dest.upper()
        names = [f"{name} {metavar}" for name in names]
    yield f".. option:: {', '.join(names)}"
    yield ""
    # Braces, asterisks and the like in a help text are to be read as they are.
    text = re.sub(r"([\\*`])", r"\\\1", (action.help or "").replace("%%", "%")).rstrip(".")
    if not text.partition(" ")[0].endswith(","):
        text = text[0].upper() + text[1:]
    yield f"   {text}."
    facts = []
    variable = getattr(action, "env_var", None)
    if variable:
        facts.append(f"Variable: ``{variable}``")
    if action.default not in (None, "", False, [], "{}", argparse.SUPPRESS):
        default = "on" if action.default is True else action.default
        facts.append(f"default: ``{default}``")
    if facts:
        facts[0] = facts[0][0].upper() + facts[0][1:]
        yield ""
        yield f"   {', '.join(facts)}."
    yield ""


class OptionsDirective(SphinxDirective):
    """The options of a command, in their groups."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(__file__)
        command = self.arguments[0]
        result: list[nodes.Node] = []
        for group in PARSERS[command]()._action_groups:
            actions = [action for action in group._group_actions if documented(action)]
            if actions:
                result.append(self.section(command, group.title or "", actions))
        return result

    def section(self, command: str, title: str, actions: list[argparse.Action]) -> nodes.section:
        """A group of options under its title."""
        title = UNTITLED.get(title, title)
        section = nodes.section(
            ids=[nodes.make_id(f"{command} {title}")], names=[nodes.fully_normalize_name(title)]
        )
        section += nodes.title(text=title[0].upper() + title[1:])
        lines = [line for action in actions for line in source(action)]
        section += self.parse_text_to_nodes("\n".join([f".. program:: {command}", "", *lines]))
        return section


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx' entry point."""
    app.add_directive("autopush-options", OptionsDirective)
    return {"version": "2", "parallel_read_safe": True}
