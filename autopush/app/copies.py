"""``--backup`` and ``--restore`` of the standalone service."""

from __future__ import annotations

import contextlib
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from autopush.app.progress import Progress
from autopush.app.standalone import CRYPTO_KEY, DataDir, data_dir_dsn
from autopush.db import sqlite_path
from autopush.db.interface import StoreUnusable
from autopush.db.open import POSTGRESQL
from autopush.exceptions import InvalidConfig


def backup(ns: Any) -> str:
    """Copy the database to the file of ``--backup``; says what was done.

    :raises StoreUnusable: there is no database, or the copy exists or can't be written
    """
    from autopush.db.sqlite import copies

    source, target = database(ns), absolute(ns.backup)
    with _shown() as shown:
        copies.backup(source, target, shown)
    size = os.path.getsize(target)
    return f"Copied {source} to {target} ({size} bytes). Keep a copy of the key files with it."


def restore(ns: Any) -> str:
    """Put the file of ``--restore`` in the place of the database; says what was done.

    :raises StartError: the service runs
    :raises StoreUnusable: the file or the database can't be used; nothing has changed
    """
    from autopush.db.sqlite import copies

    target, source = database(ns), absolute(ns.restore)
    if not os.path.isfile(source):  # before a data directory is made
        what = "is no file" if os.path.exists(source) else "doesn't exist"
        raise StoreUnusable(f"{source} {what}: name the copy to restore")
    data_dir = DataDir(ns.data_dir)
    try:
        with _shown() as shown:
            done = copies.restore(source, target, shown)
    finally:
        data_dir.release()
    said = [f"Restored {target} from {source} ({done.size} bytes, {done.users} users)."]
    if done.kept is not None:
        said.append(f"The one before is {done.kept}.")
    keys = data_dir.path / CRYPTO_KEY
    if not keys.exists() and not any(ns.crypto_key or ()):
        said.append(f"{keys} is missing: put the one that was kept with the copy there.")
    return " ".join(said)


def database(ns: Namespace) -> str:
    """Return the path of the service's database, existing or not.

    :raises InvalidConfig: there can be none
    :raises StoreUnusable: it is no file
    """
    if not ns.data_dir:
        raise InvalidConfig("data_dir must name a directory")
    dsn = ns.db_dsn or data_dir_dsn(ns.data_dir)
    if dsn.startswith(POSTGRESQL):
        raise StoreUnusable("the database is no file: copy it by pg_dump, and back by pg_restore")
    return absolute(sqlite_path(dsn))


def absolute(path: str) -> str:
    """Return the absolute path of what somebody has typed."""
    return os.path.abspath(os.path.expanduser(path))


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[int, int], None]]:
    """Shows how far a copy is."""
    progress = Progress("Copying", "MB", scale=1e6)

    def shown(done: int, total: int) -> None:
        progress.total = total
        progress.update(done)

    try:
        yield shown
    finally:
        progress.finish()
