"""What the loops have in common: a directory, and a look at the logs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from autopush.tests.e2e.harness import UNEXPECTED

CONTEXT = 12
"""Lines of the log after such a line that are kept with it."""


@contextlib.contextmanager
def home(given: Path | None) -> Iterator[Path]:
    """The directory to run in: the one that was asked for, which stays, or one that goes."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="autopush-fuzz-") as made:
        yield Path(made)


def log_faults(lines: Sequence[str], known: Sequence[str] = ()) -> Iterator[str]:
    """The places of a log that tell of something unexpected.

    :param known: what there may be a traceback of
    """
    skip = 0
    for number, line in enumerate(lines):
        if skip:
            skip -= 1
        elif any(sign in line for sign in UNEXPECTED) and not any(name in line for name in known):
            yield "\n    ".join(lines[number : number + CONTEXT])
            skip = CONTEXT
