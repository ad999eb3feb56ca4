"""JSON over HTTP with the control API, with nothing but the standard library."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

PATIENCE = 60.0
"""Seconds an answer may take beyond what was asked for."""


class ControlError(Exception):
    """The control API refused; the text says why.

    :ivar status: HTTP status
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Control:
    """The control API of one service; may be used from several threads.

    :param url: with the token
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """One request; returns what the answer's JSON is, None if there is none.

        :param query: those that are not None are sent
        :raises ControlError: it was refused
        :raises OSError: there is no service
        """
        __tracebackhide__ = True  # pytest shows the line of the test
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{self._path}{path}" + (f"?{urlencode(given)}" if given else "")
        patience = PATIENCE + float(given.get("timeout", 0))
        connection = HTTPConnection(self._host, self._port, timeout=patience)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, target, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        value = json.loads(text) if text else None
        if answer.status >= 300:
            raise ControlError(answer.status, (value or {}).get("error", answer.reason))
        return value
