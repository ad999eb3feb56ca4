"""What somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKENESS = 0.6
"""Of two names, from 0 to 1, that one has to have to be named for the other: a letter left out, two
swapped, one word of two."""


def plain(name: str) -> str:
    """Return a name as it is compared: dashes and underscores are the same."""
    return name.replace("_", "-")


def closest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like ``word``; None if none is."""
    known = {plain(name).lower(): name for name in names}
    found = difflib.get_close_matches(plain(word).lower(), known, n=1, cutoff=LIKENESS)
    return known[found[0]] if found else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return the question as a text; empty if there is nothing to ask."""
    name = closest(word, names)
    return f"{word}: did you mean {name}?" if name else ""
