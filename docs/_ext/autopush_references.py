"""References to the specification and to decisions, as code and tests write them.

``spec/storage 17.6`` is section 17.6 of docs/spec/storage.rst, ``spec/websocket Q17`` the quirk of
that name there; several may follow each other: ``spec/storage 9, 10 and S17``. ``decisions/timers``
is docs/decisions/timers.rst. Within a file ``section 8.3`` is one of the document that the file
names first, and a quirk needs no document at all: its letter says which, but for Q, which is of
the first of the two documents that have such quirks and that the file names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1]
SPEC = DOCS / "spec"

LETTERS = {
    "B": ("bridges",),
    "C": ("configuration",),
    "D": ("deployment",),
    "H": ("http-endpoint",),
    "O": ("observability",),
    "P": ("python-api",),
    "Q": ("websocket", "http-endpoint"),
    "R": ("http-endpoint",),
    "S": ("storage",),
}
"""The documents whose quirks (H and R: routes) begin with a letter."""

SECTION = r"[0-9]+(?:\.[0-9]+)*"
QUIRK = f"[{''.join(LETTERS)}][0-9]{{1,2}}"
ITEM = rf"(?:{SECTION}|{QUIRK})\b"
PART = r"(?:\s+(?:step|row)(?:\s+[0-9]+|s\s+[0-9]+(?:\s+(?:to|and)\s+[0-9]+)*))"
ITEMS = rf"{ITEM}{PART}?(?:(?:,|;|,?\s+and|\s+to)\s+(?:quirks?\s+)?{ITEM}{PART}?)*"

NAMED = re.compile(rf"\bspec/(?!index)(?P<document>[a-z-]+)\b(?:\s+(?P<items>{ITEMS}))?")
SECTIONS = re.compile(rf"(?P<rfc>\bRFC [0-9]+,?\s+|`,\s+)?\b[Ss]ections?\s+(?P<items>{ITEMS})")
LEADING = re.compile(
    rf"^(?:-{{3,}}\s+)?(?P<items>[0-9]+\.[0-9]+\b(?!\.[0-9]){PART}?(?:(?:,|;)\s+{ITEM})*)\b"
)
QUIRKS = re.compile(rf"(?<![%:.\w]){QUIRK}\b(?!/[a-z]|:[0-9A-Z])")
DECISION = re.compile(r"\bdecisions/(?P<page>[a-z-]+)\b(?!\.rst)")


class Reference(NamedTuple):
    """A place in a document that a text speaks of."""

    start: int
    end: int
    document: str | None
    """Of docs/spec; None: the text doesn't say."""
    item: str | None
    """Section or quirk; None: the document as a whole."""

    @property
    def label(self) -> str:
        """The anchor's name in the documentation."""
        return label(self.document or "", self.item)


def label(document: str, item: str | None = None) -> str:
    """The name of an anchor, such as ``spec-storage-17-6`` or ``spec-websocket-q17``."""
    parts = ["spec", document, *([item.lower().replace(".", "-")] if item else [])]
    return "-".join(parts)


@cache
def labels() -> frozenset[str]:
    """All anchors of the specification."""
    found = re.compile(r"\.\. _(spec-[a-z0-9-]+):$", re.MULTILINE)
    return frozenset(
        name for path in SPEC.glob("*.rst") for name in found.findall(path.read_text("utf-8"))
    )


def items(document: str | None, text: str, offset: int) -> Iterator[Reference]:
    """Yield what a list such as ``9 step 2, 10 and S17`` names."""
    for found in re.finditer(rf"{PART}|(?P<item>{ITEM})", text):
        item = found["item"]
        if item is None:
            continue
        owner = document
        if item[0] in LETTERS and document not in LETTERS[item[0]]:
            owner = LETTERS[item[0]][0] if len(LETTERS[item[0]]) == 1 else None
        yield Reference(offset + found.start(), offset + found.end(), owner, item)


def named(text: str) -> Iterator[Reference]:
    """Yield the references that name their document."""
    for found in NAMED.finditer(text):
        if found["items"] is None:
            yield Reference(*found.span(), found["document"], None)
            continue
        whole = list(items(found["document"], found["items"], found.start("items")))
        yield whole[0]._replace(start=found.start())
        yield from whole[1:]


def unnamed(text: str) -> Iterator[Reference]:
    """Yield the references of a comment or a docstring that don't name their document.

    Those to sections have no document, those to quirks have it if their letter says it.
    """
    rest = NAMED.sub(lambda found: " " * len(found[0]), text)
    for pattern in (SECTIONS, LEADING):
        for found in pattern.finditer(rest):
            if found.groupdict().get("rfc") is None:
                yield from items(None, found["items"], found.start("items"))
        rest = pattern.sub(lambda found: " " * len(found[0]), rest)
    for found in QUIRKS.finditer(rest):
        yield from items(None, found[0], found.start())


def linked(text: str) -> str:
    """Make links of the references of a docstring that name their document."""
    parts, position = [], 0
    for reference in named(text):
        if reference.document is None or reference.label not in labels():
            continue
        shown = text[reference.start : reference.end]
        parts += [text[position : reference.start], f":ref:`{shown} <{reference.label}>`"]
        position = reference.end
    text = "".join((*parts, text[position:]))
    return DECISION.sub(lambda found: f":doc:`{found[0]} </{found[0]}>`", text)
