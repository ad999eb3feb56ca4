"""Which web pages may open a WebSocket."""

# mypy: disable-error-code="arg-type,attr-defined,misc,valid-type"

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st
from twisted.logger import capturedLogs

from autopush.addresses import origin_of
from autopush.logging import human
from autopush.logging.floods import LINES
from autopush.tests.websocket.support import Server, StockPushProtocol, heard, request, say
from autopush.websocket import PushServerProtocol
from autopush.websocket.origins import origins_in, show

ENDPOINT = "https://push.example.org"
WS = "ws://node.example:8080/"
CLASSES = {"slim": PushServerProtocol, "stock": StockPushProtocol}


@pytest.fixture(params=list(CLASSES.values()), ids=list(CLASSES))
def cls(request):
    return request.param


def standalone(cls=PushServerProtocol, *allowed: str) -> Server:
    return Server(cls, allowed_origins=list(allowed), endpoint_url=ENDPOINT, ws_url=WS)


def status(server: Server, host: str = "push.example.org", **headers) -> int:
    reply, _ = server.handshake(request(host=host, **headers))
    return int(reply.split()[1])


PAGES = [
    "http://evil.example",
    "https://evil.example:8443",
    "HTTPS://EVIL.EXAMPLE",
    "https://push.example.org:8443",
    "https://push.example.org.evil.example",
    "http://push.example.org",
    "http://node.example",
    "http://localhost:3000",
    "http://[::1]:3000",
    "http://127.0.0.1",
    "null",
    "NULL",
    "file://",
    "file:///home/me/page.html",
    "http://",
    "https:nonsense",
    "https://push.example.org, http://evil.example",
    "https://push.example.org http://evil.example",
    "https://push.example.org@evil.example",
]
OTHERS = {
    "Firefox, with what dom.push.serverURL says": "wss://push.example.org/",
    "Firefox, and a path": "ws://localhost:8080/some/key?a=b,c",
    "Firefox, by another name of ours": "ws://192.168.1.7:8080/",
    "our own page": "https://push.example.org",
    "our own page, with the port": "https://push.example.org:443",
    "our own page, in capitals": "HTTPS://PUSH.EXAMPLE.ORG",
    "our own page, at the WebSocket's URL": "http://node.example:8080",
    "an extension": "moz-extension://0a1b-2c3d",
    "an application": "app://.",
    "empty": "",
    "nonsense": "push",
}


@pytest.mark.parametrize("origin", PAGES)
def test_pages_are_not_let_in(cls, origin):
    server = standalone(cls)
    with capturedLogs() as logs:
        reply, transport = server.handshake(request(origin=origin))
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head
    assert b"--allowed_origins" in body
    assert transport.ending == "close" and transport.protocol.session is None
    (event,) = [e for e in logs if e["log_format"] == "WebSocket of a page refused"]
    assert origin.startswith(event["origin"]) or event["origin"] in origin
    transport.end()
    assert server.factory.countConnections == 0


@pytest.mark.parametrize("origin", OTHERS.values(), ids=OTHERS)
def test_user_agents_and_our_own_pages_are(cls, origin):
    _, transport = standalone(cls).handshake(request(origin=origin))
    say(transport, {"messageType": "hello"})
    assert len(heard(transport)) == 1


def test_who_does_not_say_is_let_in(cls):
    assert status(standalone(cls)) == 101


@pytest.mark.parametrize("origin", PAGES)
def test_the_daemons_let_all_in(cls, origin):
    assert status(Server(cls), origin=origin) == 101


@pytest.mark.parametrize("origin", PAGES)
def test_so_does_a_star(cls, origin):
    assert status(standalone(cls, "*"), origin=origin) == 101


def test_several_origins(cls):
    server = standalone(cls)
    assert status(server, origin=["https://push.example.org", "http://evil.example"]) == 403
    assert status(server, origin=["http://evil.example", "wss://push.example.org"]) == 403
    assert status(server, origin=["https://push.example.org"] * 2) == 101
    assert status(Server(cls), origin=["http://a.example", "null"]) == 101


def test_version_8_names_it_otherwise(cls):
    page = {"sec_websocket_version": "8", "sec_websocket_origin": "http://evil.example"}
    assert status(standalone(cls), **page) == 403


def test_those_that_are_named_are_let_in(cls):
    server = standalone(cls, "https://www.example.org", "null", "file://")
    for origin in ("https://www.example.org", "https://WWW.example.org:443", "null", "file:///a"):
        assert status(server, origin=origin) == 101
    for origin in ("http://www.example.org", "https://www.example.org:444"):
        assert status(server, origin=origin) == 403


@pytest.mark.parametrize("place", ["127.0.0.1:8080", "[::1]:8080", "192.168.1.7", "localhost:8080"])
def test_a_page_of_the_address_that_is_connected_to_is_ours(cls, place):
    server = standalone(cls)
    assert status(server, host=place, origin=f"http://{place}") == 101
    assert status(server, host=place, origin=f"https://{place}") == 101
    assert status(server, host="127.0.0.9:8080", origin=f"http://{place}") == 403


@pytest.mark.parametrize("name", ["evil.example:8080", "127.0.0.1.evil.example", "1.2.3.4.5"])
def test_a_name_in_host_is_no_proof(cls, name):
    """DNS rebinding: the page's own name leads here."""
    assert status(standalone(cls), host=name, origin=f"http://{name}") == 403


def test_each_is_counted_and_a_flood_fills_no_log():
    server = standalone()
    counted = []
    server.node.metrics = SimpleNamespace(
        active=True, increment=lambda name, tags: counted.append((name, *tags))
    )
    with capturedLogs() as logs:
        for _ in range(LINES + 3):
            assert status(server, origin="http://evil.example") == 403
        server.factory.shutdown()
    assert counted == [("requests.refused", "errno:0", "code:403")] * (LINES + 3)
    assert server.factory.refused == {(403, 0): LINES + 3}
    *each, told = [e for e in logs if e["log_level"].name != "debug"]
    assert [e["log_format"] for e in each] == ["WebSocket of a page refused"] * LINES
    assert "origin=" in human.tell(each[0], each[0]["log_format"])
    assert told["log_format"] == "{count} more of these: {text}"
    assert (told["text"], told["count"]) == ("WebSocket of a page refused", 3)


def test_the_log_holds_neither_paths_nor_long_texts():
    server = standalone()
    with capturedLogs() as logs:
        status(server, origin="http://evil.example/secret?key=secret")
        status(server, origin="http://" + "x" * 5000)
    origins = [e["origin"] for e in logs if e["log_format"] == "WebSocket of a page refused"]
    assert origins[0] == "http://evil.example"
    assert len(origins[1]) == 300


# ------------------------------------------------------------------------ what Autobahn gets to see


@given(
    st.lists(
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
        | st.sampled_from(PAGES)
        | st.sampled_from(list(OTHERS.values())),
        max_size=2,
    ),
    st.sampled_from(list(CLASSES)),
)
def test_no_origin_whatever_is_too_much_for_autobahn(origins, kind):
    reply, _ = Server(CLASSES[kind]).handshake(request(origin=origins))
    assert reply.startswith(b"HTTP/1.1 101 ")


def test_programs_of_their_own_still_see_an_origin():
    seen = []

    class Mine(PushServerProtocol):
        def onConnect(self, request):
            seen.append(request.origin)
            return super().onConnect(request)

    Server(Mine).handshake(request(origin="wss://push.example.org/a/b"))
    assert seen == ["wss://push.example.org/a/b"]


def test_nothing_but_origins_is_hidden():
    head = request(origin=["null", "null"], x_origin="kept")
    assert show(head, origins_in(head)) == request(x_origin="kept")


# ------------------------------------------------------------------------------- origin_of


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://A.example", "https://a.example"),
        ("https://a.example:443/", "https://a.example"),
        ("http://a.example:8080", "http://a.example:8080"),
        ("wss://a.example:443", "wss://a.example"),
        ("http://[::1]:80", "http://[::1]"),
        ("NULL", "null"),
        ("file:///a/b", "file://"),
        ("moz-extension://0a", "moz-extension://0a"),
        ("http://a.example/path", None),
        ("http://", None),
        ("http://user@a.example", None),
        ("http://a.example:", None),
        ("a.example", None),
        ("", None),
    ],
)
def test_origin_of(text, origin):
    assert origin_of(text) == origin


def test_behind_a_path_the_origin_of_the_public_url_is_ours(cls):
    url = f"{ENDPOINT}/push"
    server = Server(cls, allowed_origins=[], endpoint_url=url, public_origin=ENDPOINT, ws_url=WS)
    assert status(server, origin=ENDPOINT) == 101
    assert status(server, origin="https://other.example") == 403
