"""Sections, quirks and decisions that code, tests and manual speak of are there.

How they are written is told in docs/_ext/autopush_references.py.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from autopush.tests import TREE
from autopush.tests.docs.support import DOCS

sys.path.insert(0, str(DOCS / "_ext"))
from autopush_references import (
    DECISION,
    LETTERS,
    Reference,
    label,
    labels,
    linked,
    named,
    unnamed,
)

sys.path.pop(0)

KINDS = {".py", ".rst", ".md", ".sql", ".toml", ".sample", ".ini", ".yml", ".service"}
ELSEWHERE = re.compile(
    r"(?<![/\w-])(?:bridges|broadcasts|configuration|deployment|design|http-endpoint|measurements|"
    r"observability|python-api|storage|websocket)\.md\b"
)
"""Documents as they were called before they were part of the tree."""
PERHAPS = re.compile(
    rf"\b[Ss]ections? [0-9]|\b[{''.join(LETTERS)}][0-9]|(?:\"\"\"|-{{3}} )[0-9]+\."
)
"""In every file with a reference that doesn't name its document; reading the others takes long."""


def sources() -> list[Path]:
    """All texts of the tree that may refer to something."""
    folders = ("autopush", "automock", "bench", "configs", "docs", "fuzz", ".ci")
    found = [path for name in folders for path in (TREE / name).rglob("*") if path.is_file()]
    found += [path for path in TREE.iterdir() if path.is_file()]
    return sorted(path for path in found if path.suffix in KINDS and "_build" not in path.parts)


TEXTS = {str(path.relative_to(TREE)): path.read_text("utf-8") for path in sources()}
PROGRAMS = [name for name, text in TEXTS.items() if name.endswith(".py") and PERHAPS.search(text)]


def remarks(source: str) -> Iterator[str]:
    """Yield comments (lines that follow each other as one) and docstrings."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text.strip()
    last, block = -1, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1:
            yield "\n".join(block)
            block = []
        last = token.start[0]
        block.append(token.string.lstrip("# "))
    yield "\n".join(block)


def joined(text: str) -> str:
    """Take the marks of comments away where a reference goes over the end of a line."""
    return re.sub(r"\n\s*(?:#|--)\s*", "\n", text)


def documents(text: str) -> list[str]:
    """The documents a file names, the first one first."""
    return [found.document for found in named(joined(text)) if found.document]


def document(reference: Reference, own: list[str]) -> str | None:
    """The document of a reference that doesn't name it.

    :param own: those the file names
    """
    if reference.document is not None:
        return reference.document
    letter = (reference.item or "")[0]
    return next((name for name in own if name in LETTERS.get(letter, own)), None)


def unknown(text: str) -> list[str]:
    """The references of a text of any kind that name a document, and lead nowhere."""
    text = joined(text)
    wrong = [text[found.start : found.end] for found in named(text) if found.label not in labels()]
    pages = {path.stem for path in (DOCS / "decisions").glob("*.rst")}
    return wrong + [found[0] for found in DECISION.finditer(text) if found["page"] not in pages]


def unresolved(source: str) -> list[str]:
    """The references of a program that don't name their document, and lead nowhere."""
    wrong, own = [], documents(source)
    for remark in remarks(source):
        for found in unnamed(remark):
            name = document(found, own)
            if name is None or label(name, found.item) not in labels():
                wrong.append(f"{found.item} in {remark[:60]!r}")
    return wrong


def test_documents_and_decisions_are_there():
    """``spec/storage 17.6``, ``decisions/timers``"""
    assert {name: wrong for name, text in TEXTS.items() if (wrong := unknown(text))} == {}


def test_sections_and_quirks_are_there():
    """``section 8.3``, ``quirk Q17``: with the file's document, or the letter's."""
    assert {name: wrong for name in PROGRAMS if (wrong := unresolved(TEXTS[name]))} == {}


def test_nothing_outside_the_tree_is_referred_to():
    own = Path(__file__).name
    found = {name: ELSEWHERE.findall(text) for name, text in TEXTS.items() if own not in name}
    assert {name: names for name, names in found.items() if names} == {}


def test_every_section_and_every_quirk_has_an_anchor():
    for path in (DOCS / "spec").glob("*.rst"):
        text = path.read_text("utf-8")
        titles = re.findall(r"^([0-9]+(?:\.[0-9]+)?)\.? .+\n[-~]{4,}$", text, re.MULTILINE)
        anchored = {name for name in labels() if name.startswith(label(path.stem))}
        assert {label(path.stem, number) for number in titles} <= anchored


# ------------------------------------------------------------------------------ the notation


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("(spec/storage 17.6)", ["spec-storage-17-6"]),
        ("spec/storage 9, 10 and S17", ["spec-storage-9", "spec-storage-10", "spec-storage-s17"]),
        ("spec/websocket 7 step 8, 14 step 5).", ["spec-websocket-7", "spec-websocket-14"]),
        ("spec/websocket 4 to 18", ["spec-websocket-4", "spec-websocket-18"]),
        ("spec/bridges 3. 404 means", ["spec-bridges-3"]),
        ("spec/storage 5, quirk S1", ["spec-storage-5", "spec-storage-s1"]),
        ("spec/http-endpoint\n    5.6", ["spec-http-endpoint-5-6"]),
        ("spec/python-api, marks D", ["spec-python-api"]),
        ("spec/storage 13, spec/deployment D7", ["spec-storage-13", "spec-deployment-d7"]),
        ("spec/storage 6, RFC 9112 2.2", ["spec-storage-6"]),
    ],
)
def test_named(text, labels):
    assert [found.label for found in named(text)] == labels


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("Sections 8.7 and 8.8", [(None, "8.7"), (None, "8.8")]),
        ("Section 5.3, rows 3 to 5", [(None, "5.3")]),
        ("Section 3.1 steps 1 and 2, section 3.2", [(None, "3.1"), (None, "3.2")]),
        ("Quirks Q17, S2", [(None, "Q17"), ("storage", "S2")]),
        ("5.2: any error (quirk Q5).", [(None, "5.2"), (None, "Q5")]),
        ("------ 7.1 settings", [(None, "7.1")]),
        ("RFC 8292, section 4", []),
        ("%C3%A9, A0:B1:FF, /auth/O2/token, S3_BUCKET", []),
        ("spec/storage 8; S3 to S6", []),
    ],
)
def test_unnamed(text, places):
    assert [(found.document, found.item) for found in unnamed(text)] == places


def test_linked():
    assert linked("How (spec/storage 9 and S17): see decisions/timers.") == (
        "How (:ref:`spec/storage 9 <spec-storage-9>` and :ref:`S17 <spec-storage-s17>`):"
        " see :doc:`decisions/timers </decisions/timers>`."
    )


def test_documents_of_a_file():
    """The first that is named counts, and for a Q the first that has such quirks."""
    own = documents("spec/storage 4, spec/http-endpoint 5")
    assert document(Reference(0, 0, None, "8.3"), own) == "storage"
    assert document(Reference(0, 0, None, "Q17"), own) == "http-endpoint"
    assert document(Reference(0, 0, None, "Q17"), ["storage"]) is None
    assert document(Reference(0, 0, None, "8.3"), []) is None
    assert document(Reference(0, 0, "storage", "S2"), []) == "storage"
