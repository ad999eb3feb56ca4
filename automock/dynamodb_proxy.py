"""A faulty way to DynamoDB: passes requests on to an emulator, but for those a script spoils.

::

    proxy = DynamoDBProxy("http://127.0.0.1:8000").start()
    proxy.fail("PutItem", "throttled", times=2)
    ...                                   # use proxy.url
    proxy.heal()

Runs in threads, so that a test can use it in the process whose client it upsets. Operations are
DynamoDB's names (``GetItem``), ``*`` is any. Faults:

================== ================================================================================
``throttled``      ``ProvisionedThroughputExceededException``
``throttling``     ``ThrottlingException``
``missing``        ``ResourceNotFoundException``
``server_error``   ``InternalServerError``, status 500
``unavailable``    status 503 with a body that is no JSON
``denied``         ``AccessDeniedException``
``timeout``        no answer until the client has had enough
``reset``          TCP RST before the request is passed on
``lost_answer``    TCP RST after it: the operation was carried out, and the client can't know
``late_timeout``   no answer, after it was carried out
``unprocessed``    a ``BatchGetItem`` of which nothing was processed
================== ================================================================================
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
import time
from collections import deque
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

NAMESPACE = "com.amazonaws.dynamodb.v20120810#"
COMMON = "com.amazon.coral.service#"

ERRORS = {
    "throttled": (400, f"{NAMESPACE}ProvisionedThroughputExceededException"),
    "throttling": (400, f"{COMMON}ThrottlingException"),
    "missing": (400, f"{NAMESPACE}ResourceNotFoundException"),
    "server_error": (500, f"{NAMESPACE}InternalServerError"),
    "denied": (400, f"{COMMON}AccessDeniedException"),
}

FAULTS = frozenset(
    {*ERRORS, "unavailable", "timeout", "reset", "lost_answer", "late_timeout", "unprocessed"}
)

ANY = "*"

FOR_EVER = 1_000_000
"""``times`` of a fault that lasts until :meth:`DynamoDBProxy.heal`."""

LOOK = 0.05
"""Seconds between two looks whether a client has given up."""


class DynamoDBProxy:
    """See the module.

    :param target: URL of the emulator
    :ivar operations: names of the operations asked for, oldest first
    """

    def __init__(self, target: str, host: str = "127.0.0.1", port: int = 0) -> None:
        parts = urlsplit(target)
        self.target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.operations: deque[str] = deque(maxlen=10_000)
        self._faults: list[list[Any]] = []
        self._lock = threading.Lock()
        self.healed = threading.Event()
        self._server = _Server((host, port), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> DynamoDBProxy:
        """Begin to answer; returns itself."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Cut all connections."""
        self.heal()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._server.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # ---- script

    def fail(
        self,
        operation: str,
        fault: str,
        times: int = FOR_EVER,
        table: str | None = None,
        skip: int = 0,
    ) -> None:
        """Spoil the next requests.

        :param operation: which ones, such as ``PutItem``, or ``*``
        :param fault: how; see the module
        :param times: how many
        :param table: only those to this table
        :param skip: how many are passed on before
        """
        if fault not in FAULTS:
            raise ValueError(f"unknown fault {fault!r}")
        with self._lock:
            self.healed.clear()
            self._faults.append([operation, table, fault, times, skip])

    def heal(self) -> None:
        """Spoil nothing any more; requests kept waiting are cut off."""
        with self._lock:
            self._faults.clear()
            self.healed.set()

    def fault_for(self, operation: str, body: bytes) -> str | None:
        """How to spoil a request; None: not at all."""
        with self._lock:
            self.operations.append(operation)
            for entry in self._faults:
                wanted, table, fault, times, skip = entry
                if wanted not in (ANY, operation) or times < 1:
                    continue
                if table is not None and table not in _tables(body):
                    continue
                if skip:
                    entry[4] -= 1
                    continue
                entry[3] -= 1
                return str(fault)
        return None

    @property
    def waiting(self) -> bool:
        """Whether a fault has not happened as often as it should yet."""
        with self._lock:
            return any(times > 0 for _, _, _, times, _ in self._faults)


def _tables(body: bytes) -> set[str]:
    """The tables a request is about."""
    try:
        request = json.loads(body)
    except ValueError:
        return set()
    return {request.get("TableName", ""), *request.get("RequestItems", ())}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: DynamoDBProxy

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has given up is what happens here; anything else is worth a trace."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        """Any operation of DynamoDB."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        fault = self.server.proxy.fault_for(operation, body)
        if fault in ERRORS:
            status, kind = ERRORS[fault]
            self._answer(status, json.dumps({"__type": kind, "message": fault}).encode())
        elif fault == "unavailable":
            self._answer(503, b"<html>Service Unavailable</html>")
        elif fault == "unprocessed":
            keys = json.loads(body)["RequestItems"]
            self._answer(200, json.dumps({"Responses": {}, "UnprocessedKeys": keys}).encode())
        elif fault == "reset":
            self._reset()
        elif fault == "timeout":
            self._wait()
        else:
            status, answer = self._pass_on(body)
            if fault == "lost_answer":
                self._reset()
            elif fault == "late_timeout":
                self._wait()
            else:
                self._answer(status, answer)

    def _pass_on(self, body: bytes) -> tuple[int, bytes]:
        connection = HTTPConnection(*self.server.proxy.target, timeout=30)
        try:
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("connection", "accept-encoding")
            }
            connection.request("POST", self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _wait(self) -> None:
        """Until the client hangs up, or the proxy is healed."""
        self.close_connection = True
        self.connection.setblocking(False)
        while not self.server.proxy.healed.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except BlockingIOError:
                time.sleep(LOOK)
            except OSError:
                return

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            pass  # we have cut the connection
