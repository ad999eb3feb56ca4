"""A faulty way to PostgreSQL: passes everything on to a server, but for what a script spoils.

::

    proxy = PostgresqlProxy("127.0.0.1", 5432).start()
    proxy.fail("COMMIT", "lost_answer")
    ...                                   # connect to proxy.host, proxy.port
    proxy.heal()

It understands as much of the protocol as it takes to tell one statement from the next. Faults:

================== ================================================================================
``cut``            the connection ends before the statement is passed on
``lost_answer``    it ends after the statement was carried out: the client can't know
``hang``           the statement is not passed on, nor anything after it
``late_hang``      it is, and nothing comes back
================== ================================================================================
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections import deque
from typing import NamedTuple

FAULTS = frozenset({"cut", "lost_answer", "hang", "late_hang"})

NEGOTIATION = {80877103, 80877104}
"""Codes of requests for TLS and for GSSAPI encryption, which are refused."""

READY = b"Z"
"""Type of the message that ends the answer to a statement."""


class Fault(NamedTuple):
    """What is to be spoilt.

    :ivar pattern: is searched for in a statement
    """

    pattern: str
    name: str


class _Gone(Exception):
    """One of the ends has closed the connection."""


class _Stream:
    """One end of a connection, read message by message."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exactly(self, size: int) -> bytes:
        """The next bytes.

        :raises _Gone: there are none
        """
        data = b""
        while len(data) < size:
            more = self.connection.recv(size - len(data))
            if not more:
                raise _Gone
            data += more
        return data

    def startup(self) -> bytes:
        """The first message, which has no type."""
        head = self.exactly(4)
        return head + self.exactly(struct.unpack("!I", head)[0] - 4)

    def message(self) -> tuple[bytes, bytes]:
        """A message's type, and all of it."""
        head = self.exactly(5)
        return head[:1], head + self.exactly(struct.unpack("!I", head[1:])[0] - 4)


class _Connection:
    """One client's way to the server."""

    def __init__(self, proxy: PostgresqlProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = _Stream(client)
        self._server = _Stream(socket.create_connection(proxy.target))
        self._prepared: dict[bytes, str] = {}
        self._fault: str | None = None

    def serve(self) -> None:
        """Pass on what comes until one of the ends has had enough."""
        try:
            self._start()
            threading.Thread(target=self._answers, daemon=True).start()
            while True:
                self._request()
        except (OSError, _Gone):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """End it on both sides."""
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.connection.shutdown(socket.SHUT_RDWR)
            end.connection.close()

    def _start(self) -> None:
        while True:
            message = self._client.startup()
            if struct.unpack("!I", message[4:8])[0] not in NEGOTIATION:
                break
            self._client.connection.sendall(b"N")
        self._server.connection.sendall(message)

    def _request(self) -> None:
        """The messages of one statement."""
        data, statement = b"", None
        while True:
            kind, message = self._client.message()
            data += message
            statement = self._statement(kind, message[5:]) or statement
            if kind in b"QSXp":
                break
        fault = None if statement is None else self._proxy.take(statement)
        if fault == "cut":
            raise _Gone
        if fault == "hang":
            self._proxy.healed.wait()
            raise _Gone
        self._fault = fault
        self._server.connection.sendall(data)

    def _statement(self, kind: bytes, body: bytes) -> str | None:
        """Its text, if this message tells it."""
        if kind == b"Q":
            return body.rstrip(b"\0").decode()
        if kind == b"P":
            name, text = body.split(b"\0")[:2]
            self._prepared[name] = text.decode()
        elif kind == b"B":
            return self._prepared.get(body.split(b"\0")[1])
        return None

    def _answers(self) -> None:
        try:
            while True:
                kind, message = self._server.message()
                fault = self._fault
                if fault is None:
                    self._client.connection.sendall(message)
                elif kind == READY:
                    if fault == "late_hang":
                        self._proxy.healed.wait()
                    break
        except (OSError, _Gone):
            pass
        self.close()


class PostgresqlProxy:
    """See the module.

    :param host: of the server
    :ivar statements: those that came, oldest first
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.host = "127.0.0.1"
        self.port = 0
        self.statements: deque[str] = deque(maxlen=10_000)
        self.healed = threading.Event()
        self._faults: deque[Fault] = deque()
        self._each: str | None = None
        self._spoilt: set[str] = set()
        self._refusing = False
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._listener: socket.socket | None = None

    def start(self) -> PostgresqlProxy:
        """Listen."""
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def stop(self) -> None:
        """End everything."""
        self.heal()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self.cut()

    def fail(self, pattern: str, name: str, times: int = 1) -> None:
        """Spoil statements.

        :param pattern: regular expression they have somewhere; empty: any
        :param times: how many of them
        """
        if name not in FAULTS:
            raise ValueError(f"no such fault: {name}")
        with self._lock:
            self.healed.clear()
            self._faults.extend([Fault(pattern, name)] * times)

    def fail_each(self, name: str) -> None:
        """Spoil every statement the first time it comes."""
        if name not in FAULTS:
            raise ValueError(f"no such fault: {name}")
        with self._lock:
            self.healed.clear()
            self._each = name
            self._spoilt.clear()

    def heal(self) -> None:
        """From now on everything works; what hangs ends."""
        with self._lock:
            self._faults.clear()
            self._each = None
            self._refusing = False
            self.healed.set()

    def cut(self, refuse: bool = False) -> None:
        """End all connections.

        :param refuse: and let there be no others until it is healed
        """
        with self._lock:
            self._refusing = refuse
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    def take(self, statement: str) -> str | None:
        """The fault for a statement, if any."""
        with self._lock:
            self.statements.append(statement)
            if self._each is not None and statement not in self._spoilt:
                self._spoilt.add(statement)
                return self._each
            if self._faults and re.search(self._faults[0].pattern, statement):
                return self._faults.popleft().name
            return None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            connection = _Connection(self, client)
        except OSError:
            client.close()
            return
        with self._lock:
            refused = self._refusing
            self._connections.add(connection)
        if refused:
            connection.close()
        else:
            connection.serve()
        with self._lock:
            self._connections.discard(connection)
