"""The client of the control API."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from autopush.testing.http import Control, ControlError


@pytest.fixture
def server():
    """Answers what it is told to, and keeps what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            self.server.seen.append((self.command, self.path, body))
            status, text = self.server.answers.pop(0)
            self.send_response(status, "Reason")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen, server.answers = [], []
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def control(server):
    return Control(f"http://127.0.0.1:{server.server_port}/token/")


def test_requests_and_answers(server, control):
    server.answers += [(200, b'{"a": 1}'), (204, b""), (201, b"[]")]
    assert control.call("GET", "/x", after=1, timeout=None) == {"a": 1}
    assert control.call("DELETE", "/x") is None
    assert control.call("POST", "/x", {"b": "\u00fc"}) == []
    assert server.seen == [
        ("GET", "/token/x?after=1", b""),
        ("DELETE", "/token/x", b""),
        ("POST", "/token/x", json.dumps({"b": "\u00fc"}).encode()),
    ]


def test_refusals(server, control):
    server.answers += [(409, b'{"error": "not now"}'), (500, b"")]
    with pytest.raises(ControlError, match="not now") as refused:
        control.call("GET", "/")
    assert refused.value.status == 409
    with pytest.raises(ControlError, match="Reason"):
        control.call("GET", "/")


def test_nobody_there(server):
    with pytest.raises(OSError):
        Control("http://127.0.0.1:1/x").call("GET", "/")
