"""The glossary explains words that the code really uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from autopush.tests import TREE
from autopush.tests.docs.support import pages
from autopush.tests.docs.test_architecture import DOTTED, exists

IN_GENERAL, OF_THE_CODE = pages()["glossary"].split("\nThe code\n")


class Entry(NamedTuple):
    """Words that are explained together."""

    terms: tuple[str, ...]
    text: str


def entries(text: str) -> list[Entry]:
    """The entries of a glossary."""
    found = re.findall(r"^((?:   \S.*\n)+)((?:      \S.*\n)+)", text, re.MULTILINE)
    return [
        Entry(tuple(line.strip() for line in terms.splitlines()), " ".join(body.split()))
        for terms, body in found
    ]


def module_of(name: str) -> Path:
    """The file of a name below ``autopush``: its own if it is a module's."""
    path = TREE / "autopush"
    for part in name.split("."):
        if not (path / part).is_dir() and not (path / f"{part}.py").exists():
            break
        path /= part
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def sources(name: str) -> str:
    """The text in which a word should occur: all of a package, where its face is named."""
    path = module_of(name)
    files = path.parent.glob("*.py") if path.stem == "__init__" else [path]
    return "\n".join(file.read_text("utf-8") for file in files)


def stem(term: str) -> re.Pattern[str]:
    """Finds a term and its forms, in identifiers as well."""
    words = [re.escape(word) for word in term.split()]
    return re.compile("(?<![a-z])" + "[ _]".join(words) + "s?(?![a-z])", re.IGNORECASE)


def test_there_are_entries():
    assert len(entries(IN_GENERAL)) > 30 and len(entries(OF_THE_CODE)) > 30


def test_no_word_is_explained_twice_in_one_part():
    for part in (IN_GENERAL, OF_THE_CODE):
        terms = [term for entry in entries(part) for term in entry.terms]
        assert len(terms) == len(set(terms))


@pytest.mark.parametrize("entry", entries(OF_THE_CODE), ids=lambda entry: entry.terms[0])
def test_words_of_the_code_are_used_where_the_glossary_says(entry):
    names = [name for name in DOTTED.findall(entry.text) if exists(f"autopush.{name}")]
    assert names == DOTTED.findall(entry.text)
    assert names
    for term in entry.terms:
        assert any(stem(term).search(sources(name)) for name in names), term
