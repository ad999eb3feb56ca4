"""A service with a page, in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from autopush.config import AutopushConfig
from autopush.http import StandaloneHTTPFactory
from autopush.httpserver.request import Headers, Request
from autopush.tests.httpserver.support import Transport, Wire
from autopush.web.page.handlers import Page

KEY = "0123456789abcdefABCDEF-_"
TOKEN = "token-of-the-operator-0123"
LOCAL = ("Host", "127.0.0.1:8080")


def make_conf(**options: Any) -> AutopushConfig:
    given: dict[str, Any] = {"hostname": "push.example", "endpoint_port": 8080, "port": 8080}
    return AutopushConfig(**{**given, "cors": True, "statsd_host": None, **options})


def make_request(*headers: tuple[str, str], path: str = "/", version: str = "HTTP/1.1") -> Request:
    lower = Headers((name.lower(), value) for name, value in headers)
    return Request("GET", path, version, lower)


class Site:
    """An application with a page, and a visitor.

    :param peer: the address of the visitor
    :param page: as of :class:`Page`
    :param options: of the configuration
    """

    def __init__(self, peer: str = "192.0.2.7", page: Page | None = None, **options: Any) -> None:
        self.conf = make_conf(**options)
        self.page = page or Page()
        self.app = StandaloneHTTPFactory(self.conf, None, {}, page=self.page, clock=Clock())
        transport = Transport(peerAddress=IPv4Address("TCP", peer, 4321))
        self.wire = Wire(self.app, transport)

    def get(self, path: str = "/", *headers: tuple[str, str], method: str = "GET") -> Any:
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        if not any(name.lower() == "host" for name, _ in headers):
            lines.append("Host: push.example:8080")
        (answer,) = self.wire.send("\r\n".join([*lines, "\r\n"]).encode()).answers()
        return answer

    def html(self, path: str = "/", *headers: tuple[str, str]) -> str:
        answer = self.get(path, *headers)
        assert answer.status == 200, answer
        return answer.body.decode()
