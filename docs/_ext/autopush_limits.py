"""Directive ``autopush-limits``: a table of limits, with defaults and reasons out of the code.

Each line of the content is ``what | where``. ``where`` is a module's constant without
``autopush.``, whose docstring gives unit and reason, or ``--option command | reason``.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from autopush_options import PARSERS
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SOURCES = re.compile(r"\s*\((?:spec/[a-z-]+ )?\d+(?:\.\d+)*\)")
"""Sections of the specification in docstrings; RFCs stay."""


class Limit(NamedTuple):
    """A row."""

    what: str
    where: str
    """reStructuredText."""
    default: Any
    reason: str


@cache
def docstrings(module: str) -> dict[str, str]:
    """The docstrings of a module's constants."""
    source = Path(importlib.import_module(module).__file__ or "").read_text("utf-8")
    body = ast.parse(source).body
    found = {}
    for statement, after in pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(after, ast.Expr):
            target = statement.targets[0]
            if isinstance(target, ast.Name) and isinstance(after.value, ast.Constant):
                found[target.id] = " ".join(str(after.value.value).split())
    return found


def limit(line: str) -> Limit:
    """Read a line of the directive's content.

    :raises KeyError, AttributeError, ImportError: there is no such limit, or it has no reason
    """
    what, where, *reason = (part.strip() for part in line.split("|"))
    if where.startswith("--"):
        option, command = where.split()
        default = PARSERS[command]().get_default(option[2:])
        return Limit(what, f":option:`{option} <{command} {option}>`", default, reason[0])
    module, _, name = f"autopush.{where}".rpartition(".")
    text = reason[0] if reason else SOURCES.sub("", docstrings(module)[name])
    return Limit(what, f"``{where}``", getattr(importlib.import_module(module), name), text)


def source(limits: list[Limit]) -> Iterator[str]:
    """Yield a table in reStructuredText."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 24 10 26 40", "")
    yield from ("   * - Limit", "     - Default", "     - Where", "     - Unit and reason")
    for row in limits:
        default = f"{row.default:,}" if isinstance(row.default, int) else row.default
        yield from (f"   * - {row.what}", f"     - {default}", f"     - {row.where}")
        yield f"     - {row.reason}"


class LimitsDirective(SphinxDirective):
    """See the module."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(__file__)
        limits = [limit(line) for line in self.content if line.strip()]
        return self.parse_text_to_nodes("\n".join(source(limits)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx' entry point."""
    app.add_directive("autopush-limits", LimitsDirective)
    return {"version": "1", "parallel_read_safe": True}
