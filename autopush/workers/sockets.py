"""The listening sockets of a service of several processes.

The supervisor makes them, so that a port is bound once, by whoever may do so, and stays bound while
workers end and start. On Linux each worker has a socket of its own at the same port
(``SO_REUSEPORT``), among which the kernel spreads connections by the addresses of both ends, evenly
and without waking anybody in vain. Elsewhere, and for a Unix socket, all have the same one, and
whoever is awake first takes what comes. The figures are in docs/decisions/workers.rst.
"""

from __future__ import annotations

import contextlib
import glob
import os
import socket
import stat
import sys
from collections.abc import Sequence

from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import CannotListenError
from twisted.python.lockfile import FilesystemLock

from autopush.app.process import BACKLOG
from autopush.config import UNIX

APART = sys.platform == "linux"
"""Whether the kernel spreads connections over sockets of one port."""


class Listening:
    """The sockets at one address.

    :param host: address, or ``unix:<path>`` (then ``port`` means nothing)
    :param port: TCP port; 0: any free one
    :param count: how many workers there are
    :raises CannotListenError: it is in use or not ours to use
    """

    def __init__(self, host: str, port: int, count: int, apart: bool = APART) -> None:
        self._lock: FilesystemLock | None = None
        self._path = ""
        self._together = True
        self._resting: set[int] = set()
        if host.startswith(UNIX):
            self._path = host.removeprefix(UNIX)
            self.sockets: Sequence[socket.socket] = [self._at_path()] * count
        elif apart and count > 1:
            self._together = False
            self.sockets = _at_port(host, port, count)
        else:
            self.sockets = _at_port(host, port, 1) * count
        for one in self.sockets:
            one.listen(BACKLOG)

    @property
    def port(self) -> int:
        """The number of the port; 0 for a Unix socket."""
        return 0 if self._path else int(self.sockets[0].getsockname()[1])

    def rest(self, index: int) -> None:
        """Have the other workers get what comes, for a while; what waits here is cut off."""
        if not self._together and index not in self._resting:
            self._resting.add(index)
            self.sockets[index].shutdown(socket.SHUT_RDWR)

    def resume(self, index: int) -> None:
        """End :meth:`rest`."""
        if index in self._resting:
            self._resting.remove(index)
            self.sockets[index].listen(BACKLOG)

    def close(self) -> None:
        """Let go of the address."""
        for one in self.sockets:
            one.close()
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._lock.unlock()
            self._lock = None

    def _at_path(self) -> socket.socket:
        path = self._path
        self._lock = lock = FilesystemLock(f"{path}.lock")
        try:
            if not lock.lock():
                self._lock = None
                raise CannotListenError(None, os.fsencode(path), "Cannot acquire lock")
            if not lock.clean:
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(os.stat(path).st_mode):
                        os.unlink(path)
            made = socket.socket(socket.AF_UNIX)
            made.bind(path)
            # Who may connect is for the directory's permissions to say.
            os.chmod(path, 0o666)
        except OSError as error:
            if lock.locked:
                lock.unlock()
            raise CannotListenError(None, os.fsencode(path), error) from error
        made.setblocking(False)
        return made


def _at_port(host: str, port: int, count: int) -> list[socket.socket]:
    """Bind so many sockets to one port."""
    made: list[socket.socket] = []
    try:
        if count == 1:
            return [_bound(host, port, shared=False)]
        # The first shares the port with nobody until it has it, so that two services never have the
        # same. It isn't used: one for which the kernel chose a port loses that when it rests.
        with _bound(host, port, shared=False) as first:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port = first.getsockname()[1]
            for _ in range(count):
                made.append(_bound(host, port, shared=True))
    except OSError as error:
        for one in made:
            one.close()
        raise CannotListenError(host, port, error) from error
    return made


def _bound(host: str, port: int, shared: bool) -> socket.socket:
    """Return a socket of this port.

    :param shared: other sockets may have it, too
    """
    made = socket.socket(socket.AF_INET6 if isIPv6Address(host) else socket.AF_INET)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def socket_paths(directory: str, count: int) -> list[str]:
    """Return a path of a Unix socket in a directory for each worker.

    What workers of another service have left there is removed: nobody else may use the directory.

    :raises OSError: there can be none: the path is too long (some 100 bytes), or the file system
        has no sockets
    """
    paths = [os.path.join(directory, f"worker-{number}.sock") for number in range(1, count + 1)]
    for left in glob.glob(os.path.join(glob.escape(directory), "worker-*.sock*")):
        os.unlink(left)
    probe = os.path.join(directory, f"worker-{count}.try")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(probe)
        os.unlink(probe)
    return paths


def forget(path: str) -> None:
    """Remove the Unix socket of a process that has ended.

    Whether one is in use is told by the id of the process in a file beside it. By the time that is
    looked at the id may be another process's, in a container even is most of the time.
    """
    for name in (path, f"{path}.lock"):
        with contextlib.suppress(OSError):
            os.unlink(name)
