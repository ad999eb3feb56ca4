"""A data directory that is gone when the service ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autopush.app.standalone import LOCK

PREFIX = "autopush-ephemeral-"


@contextlib.contextmanager
def ephemeral_directory() -> Iterator[str]:
    """Make a temporary directory, and remove it at the end.

    What killed services have left is removed, too.
    """
    sweep(Path(tempfile.gettempdir()))
    path = tempfile.mkdtemp(prefix=PREFIX)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove directories of ours whose service has ended without doing so."""
    for path in parent.glob(f"{PREFIX}*"):
        if is_left_behind(path):
            shutil.rmtree(path, ignore_errors=True)


def is_left_behind(path: Path) -> bool:
    """Whether a service had locked the directory, and has gone. One that is just being made has no
    process id in its lock yet."""
    try:
        fd = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # none, or somebody else's
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.fstat(fd).st_size > 0
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
