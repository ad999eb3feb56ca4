"""Turns of the processes that write to one file, in the order in which they ask.

SQLite lets one process write at a time. Who finds the file locked sleeps and tries again, longer
each time, so that whoever writes all the time gets it again and again, and others starve. Here
writers queue in the kernel instead::

    file: <database>-turns      8 bytes: the last ticket that was drawn
    lock of byte DRAWING        held while a ticket is drawn
    lock of byte N              held by whoever has ticket N, from drawing it to the end of its turn

Who has drawn ticket N waits for the lock of N - 1: for those before, each of which has one batch.
A process that dies loses its locks. Then its successor may begin while somebody further in front
still writes; that does no harm, as SQLite's own lock stays what keeps the file whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading

DRAWING = 2**62
"""Number of a byte that no ticket has."""

TURN_WAIT = 5.0
"""Seconds a writer waits for its turn; then it goes without, as SQLite would have it. It takes that
long if a process was stopped in its turn."""


class Turns:
    """Those of one process. All but :meth:`close` is for the thread that writes.

    :param path: of the database
    :param wait: seconds
    """

    def __init__(self, path: str, wait: float = TURN_WAIT) -> None:
        self._wait = wait
        self.ticket = 0
        """Ours, from when it is drawn to the end of our turn; 0: none."""
        self._lock = threading.Lock()
        """Guards the next two."""
        self._waiting = False
        """Whether the helper waits for our turn."""
        self._given_up = False
        """Whether nobody waits for the helper any more."""
        self._wanted = threading.Semaphore(0)
        self._got = threading.Semaphore(0)
        self._helper: threading.Thread | None = None
        self._file: int | None = None
        with contextlib.suppress(OSError):  # then there are no turns
            self._file = os.open(f"{path}-turns", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Wait for our turn; whether it is, or others may write at the same time."""
        with self._lock:
            if self._file is None or self._waiting:
                return False
        try:
            self._enter(self._file, fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return self._wait_for_it()
        except OSError:
            return False  # there are no locks here

    def give_back(self) -> None:
        """Our turn is over."""
        with self._lock:
            if not self._waiting:
                self._leave()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None and not self._waiting:
            os.close(file)
        self._wanted.release()

    # ---- internal

    def _enter(self, file: int, how: int) -> None:
        """Draw a ticket, and wait until it is the first.

        :param how: ``LOCK_NB``, so as not to wait, or 0
        :raises BlockingIOError: one would have to
        """
        if not self.ticket:
            fcntl.lockf(file, fcntl.LOCK_EX | how, 1, DRAWING)
            try:
                ticket = int.from_bytes(os.pread(file, 8, 0), "little") + 1
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, ticket)
                os.pwrite(file, ticket.to_bytes(8, "little"), 0)
                self.ticket = ticket
            finally:
                fcntl.lockf(file, fcntl.LOCK_UN, 1, DRAWING)
        fcntl.lockf(file, fcntl.LOCK_EX | how, 1, self.ticket - 1)
        fcntl.lockf(file, fcntl.LOCK_UN, 1, self.ticket - 1)

    def _leave(self) -> None:
        if self.ticket and self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self.ticket)
        self.ticket = 0

    def _wait_for_it(self) -> bool:
        """Have another thread wait in the kernel, which knows no time-out."""
        if self._helper is None:
            self._helper = threading.Thread(target=self._help, name="sqlite-turns", daemon=True)
            self._helper.start()
        self._waiting = True
        self._wanted.release()
        if self._got.acquire(timeout=self._wait):
            return True
        with self._lock:
            if self._waiting:
                self._given_up = True
                return False
        self._got.acquire()  # it came just now
        return True

    def _help(self) -> None:
        while True:
            self._wanted.acquire()
            file = self._file
            if file is None:
                return
            with contextlib.suppress(OSError):
                self._enter(file, 0)
            with self._lock:
                self._waiting = False
                if self._given_up:
                    self._given_up = False
                    self._leave()
                else:
                    self._got.release()
