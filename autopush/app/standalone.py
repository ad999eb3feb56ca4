"""What the standalone service has of its own: its data directory and reading of the options.

::

    autopush-data/          0700
        lock                flock'ed while a service runs; holds its process id
        crypto_key          0600, Fernet keys of endpoint URLs and message ids
        auth_key            0600, keys of registration secrets
        access_keys         0600, keys of user agents, if the operator made the file
        log_key             0600, key that hides ids in logs
        autopush.sqlite3    0600, with -wal and -shm beside it

A key file holds one key a line, newest first; empty lines and lines starting with ``#`` are
ignored. Nothing that exists is ever overwritten.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from autopush.config import UNIX, AutopushConfig, announced_host
from autopush.db import sqlite_path
from autopush.exceptions import InvalidConfig
from autopush.logging import redaction

DATABASE = "autopush.sqlite3"
CRYPTO_KEY = "crypto_key"
AUTH_KEY = "auth_key"
ACCESS_KEYS = "access_keys"
LOG_KEY = "log_key"
LOCK = "lock"

NODE_NAME = "localhost"
"""Host in the node id of the service. It stays the same when the machine's name or the public
port changes, so the records of connected users survive both."""

WORKERS_END_WITHIN = 8.0
"""Seconds a start waits for the workers of a service that was killed: they save what they owe, and
end."""

MIN_AUTH_KEY = 16
"""Characters; shorter ones could be guessed."""

MIN_ACCESS_KEY = 22
"""Characters: 128 bits, so that nobody finds one by trying, as many as the network allows."""

MAX_ACCESS_KEY = 128
"""Characters: an address with more is cut somewhere."""


class StartError(Exception):
    """Why the service can't start; the text is one line for the operator."""


class DataDir:
    """The directory, locked for this process until :meth:`release`.

    :param path: created with mode 0700 if missing
    :ivar database: the file of the database, existing or not; another one with ``db_dsn``
    :raises StartError: it can't be made, isn't writable, or another process uses it
    """

    def __init__(self, path: str) -> None:
        self.path = data_dir_path(path)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise StartError(f"data_dir {self.path} is not a directory") from None
        except OSError as exc:
            raise StartError(f"Can't create data_dir {self.path}: {exc.strerror}") from exc
        self.database = self.path / DATABASE
        self._lock = self._take_lock()

    def release(self) -> None:
        """Let others use the directory. The lock file stays: removing it would race."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def descriptor(self) -> int | None:
        """Of the open lock file: a process that has it holds the lock. None after the release."""
        return self._lock

    def crypto_keys(self) -> list[str]:
        """Return the Fernet keys, newest first; made on the first call ever.

        :raises StartError: the file is unreadable, holds no key or something else
        """
        return self._keys(CRYPTO_KEY, lambda: Fernet.generate_key().decode(), parse_crypto_key)

    def auth_keys(self) -> list[str]:
        """Return the keys of registration secrets, as :meth:`crypto_keys`."""
        return self._keys(AUTH_KEY, _random_key, parse_auth_key)

    def access_keys(self) -> list[str]:
        """Return the keys of user agents; empty if there is no file. None is ever made.

        :raises StartError: the file is unreadable, holds no key or something else
        """
        try:
            return read_key_file(self.path / ACCESS_KEYS, parse_access_key)
        except FileNotFoundError:
            return []

    def log_key(self) -> str:
        """Return the key that hides ids in logs: the first in its file, which is made if missing.

        A new one costs no more than that the same user has another name in the logs from then on.

        :raises StartError: as for the other keys
        """
        return self._keys(LOG_KEY, _random_key, parse_auth_key, replaceable=True)[0]

    # ---------------------------------------------------------------------------- internal

    def _take_lock(self) -> int | None:
        path = self.path / LOCK
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StartError(f"Can't write to data_dir {self.path}: {exc.strerror}") from exc
        try:
            _lock(fd)
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        except BlockingIOError:
            owner = _owner(fd) or "unknown"
            os.close(fd)
            raise StartError(
                f"data_dir {self.path} is in use by another autopush process ({owner})"
            ) from None
        except OSError as exc:
            os.close(fd)
            raise StartError(f"Can't lock data_dir {self.path}: {exc.strerror}") from exc
        return fd

    def _keys(
        self,
        name: str,
        generate: Callable[[], str],
        parse: Callable[[str], str | None],
        replaceable: bool = False,
    ) -> list[str]:
        path = self.path / name
        try:
            return read_key_file(path, parse)
        except FileNotFoundError:
            if self.database.exists() and not replaceable:
                # A new key would silently turn every subscription in the database into garbage.
                raise StartError(key_missing(path)) from None
            return [self._make_key(path, generate)]

    def _make_key(self, path: Path, generate: Callable[[], str]) -> str:
        key = generate()
        try:
            write_new_file(path, f"{key}\n".encode())
        except OSError as exc:
            raise StartError(f"Can't write key file {path}: {exc.strerror}") from exc
        return key


def _lock(fd: int) -> None:
    """Lock a file, at once or when the last workers of a service that was killed have ended.

    :raises BlockingIOError: somebody else has it
    """
    end = time.monotonic() + WORKERS_END_WITHIN
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end or not _is_orphaned(fd):
                raise
        time.sleep(0.05)


def _owner(fd: int) -> str:
    """Return what a lock file says who has it."""
    return os.pread(fd, 20, 0).decode("ascii", "replace").strip()


def _is_orphaned(fd: int) -> bool:
    """Whether whoever took the lock has gone: then its workers have it, and are ending."""
    owner = _owner(fd)
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, OSError):
        return False
    return False


def key_missing(path: Path) -> str:
    """What to do about a key file that isn't there although it must have been."""
    return (
        f"Key file {path} is missing although there is a database: restore it,"
        f" or pass --{path.name}"
    )


def data_dir_path(path: str) -> Path:
    """Return the absolute path of a data directory."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def data_dir_dsn(path: str) -> str:
    """Return the ``db_dsn`` of the database in a data directory."""
    return f"sqlite://{data_dir_path(path) / DATABASE}"


def dsn_of(ns: Any) -> str:
    """Return the ``db_dsn`` for a small command, which may be given a data directory instead."""
    if ns.data_dir and ns.db_dsn == "dynamodb:":
        return data_dir_dsn(ns.data_dir)
    return str(ns.db_dsn)


def existing_crypto_keys(path: str) -> list[str]:
    """Return the Fernet keys of a data directory, newest first; nothing is made.

    :raises StartError: there are none, or they can't be used
    """
    file = data_dir_path(path) / CRYPTO_KEY
    try:
        return read_key_file(file, parse_crypto_key)
    except FileNotFoundError:
        raise StartError(f"There is no key file {file}: pass --crypto_key") from None


def write_new_file(path: Path, content: bytes) -> None:
    """Create a file of mode 0600 that is either complete on disk or absent, even after a crash.

    :raises FileExistsError: it exists
    :raises OSError: it can't be written
    """
    draft = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()  # left by a crash; the directory is locked, so it isn't anybody's
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_key_file(path: Path, parse: Callable[[str], str | None]) -> list[str]:
    """Return the keys in a file.

    :raises FileNotFoundError: there is no such file
    :raises StartError: it can't be read, or holds something else
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise StartError(f"Can't read key file {path}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise StartError(f"Bad key file {path}: not a text file") from None
    return parse_key_file(path, text, parse)


def parse_key_file(path: Path, text: str, parse: Callable[[str], str | None]) -> list[str]:
    """Return the keys in a file.

    :raises StartError: a line is no key, or there is none; the text never shows the line
    """
    keys = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key = parse(line)
        if key is None:
            raise StartError(f"Bad key file {path}: line {number} is not a key")
        keys.append(key)
    if not keys:
        raise StartError(f"Bad key file {path}: it holds no key")
    return keys


def parse_crypto_key(line: str) -> str | None:
    """Return the Fernet key in a line: bare, or as ``autokey`` prints it."""
    match = re.fullmatch(r'(?:CRYPTO_KEY=)?"?([A-Za-z0-9_-]{43}=)"?', line)
    return match[1] if match else None


def parse_auth_key(line: str) -> str | None:
    """Return the key in a line; any word that is long enough will do."""
    return line if len(line) >= MIN_AUTH_KEY and not re.search(r"\s", line) else None


def parse_access_key(line: str) -> str | None:
    """Return the key in a line: it must stand in a URL as it is."""
    word = rf"[A-Za-z0-9_-]{{{MIN_ACCESS_KEY},{MAX_ACCESS_KEY}}}"
    return line if re.fullmatch(word, line) else None


def access_keys_from_options(ns: Any) -> list[str]:
    """Return the keys of ``--access_key``; empty texts count as not given.

    :raises InvalidConfig: one is none; the text doesn't show it
    """
    keys = [key for key in ns.access_key or () if key]
    if not all(map(parse_access_key, keys)):
        raise InvalidConfig(
            f"Invalid access_key: must have {MIN_ACCESS_KEY} to {MAX_ACCESS_KEY} letters, digits, -"
            " or _; autokey --access makes one"
        )
    return keys


def page_token_from_options(ns: Any) -> str | None:
    """Return the token of ``--page_token``; None: there is none.

    :raises InvalidConfig: it is too short, or has other characters; the text doesn't show it
    """
    token: str = ns.page_token or ""
    if token and not parse_access_key(token):
        raise InvalidConfig(
            f"Invalid page_token: must have {MIN_ACCESS_KEY} to {MAX_ACCESS_KEY} letters, digits, -"
            " or _; autokey --access makes one"
        )
    return token or None


def _random_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


# --------------------------------------------------------------------- from options


def has_own_endpoint_port(ns: Any) -> bool:
    """Whether the HTTP API listens apart from the WebSocket; port 0 is any free one."""
    return ns.endpoint_port is not None and (ns.endpoint_port != ns.port or ns.port == 0)


def standalone_config(ns: Any) -> AutopushConfig:
    """Build the configuration; without the keys of the data directory, and touching no file.

    :raises InvalidConfig: options contradict each other or can't be used
    """
    if not ns.data_dir:
        raise InvalidConfig("data_dir must name a directory")
    unix = ns.host.startswith(UNIX)
    if unix and ns.endpoint_port is not None:
        raise InvalidConfig("host unix:<path> takes no endpoint_port beside it")
    if ns.control and ns.workers != 1:
        raise InvalidConfig("control goes with one process: leave out workers")
    conf = AutopushConfig.from_argparse(
        ns,
        hostname=announced_host(ns.host, ns.hostname),
        port=None if unix else ns.port,
        endpoint_scheme=ns.endpoint_scheme or ("https" if ns.ssl_key else "http"),
        endpoint_port=None if unix else ns.endpoint_port if has_own_endpoint_port(ns) else ns.port,
        router_hostname=ns.router_hostname or NODE_NAME,
        router_port=ns.router_port or None,
        db_dsn=ns.db_dsn or data_dir_dsn(ns.data_dir),
        data_dir=str(data_dir_path(ns.data_dir)),
        access_keys=access_keys_from_options(ns),
        page_token=page_token_from_options(ns),
    )
    if conf.public_path:
        conf.sts_max_age = 0  # the host is not ours alone, and its subdomains are not ours at all
    return conf


def use_data_dir(conf: AutopushConfig, data_dir: DataDir, ns: Any) -> None:
    """Take the keys from the data directory, unless options have them.

    :raises StartError: a key file can't be used
    """
    if ns.db_dsn and conf.db_dsn.startswith("sqlite:"):
        data_dir.database = Path(os.path.abspath(sqlite_path(conf.db_dsn)))
    if not any(ns.crypto_key or ()):
        conf.use_crypto_keys(data_dir.crypto_keys())
    if not conf.bear_hash_key:
        conf.bear_hash_key = data_dir.auth_keys()
    if not conf.access_keys:
        conf.access_keys = data_dir.access_keys()
    redaction.hide([*conf.access_keys, *filter(None, [conf.page_token])])
