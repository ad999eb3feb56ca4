"""The parser of HTTP requests: limits and framing (spec/http-endpoint 1, RFC 9112)."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import example, given, settings, strategies as st

from autopush.httpserver.parser import (
    BODY_LIMIT,
    CHUNK_LINE_LIMIT,
    HEAD_LIMIT,
    HEADERS_LIMIT,
    URI_LIMIT,
    BadRequest,
    RequestParser,
)
from autopush.httpserver.request import Headers, Request

POST = b"POST /p HTTP/1.1\r\nHost: h\r\n"


def parse(*pieces: bytes, **kwargs):
    """The requests in the pieces, then a status or what is left: ``wait``."""
    parser = RequestParser(**kwargs)
    result: list = []
    try:
        for piece in pieces:
            parser.feed(piece)
            while (request := parser.poll()) is not None:
                result.append(request)
                if not request.keep_alive:
                    return [*result, "close"]
        return [*result, "wait" if parser.in_body or parser.buffered else "end"]
    except BadRequest as error:
        return [*result, error.status]
    finally:
        parser.close()


def summary(results):
    """Comparable form of what :func:`parse` gives."""
    return [
        (r.method, r.uri, r.version, sorted(r.headers.items()), r.body, r.keep_alive)
        if isinstance(r, Request)
        else r
        for r in results
    ]


def one(data: bytes) -> Request:
    request, rest = parse(data)
    assert rest in ("end", "close")
    return request


def status(data: bytes, **kwargs) -> object:
    return parse(data, **kwargs)[-1]


class TestRequest:
    def test_parts(self):
        request = one(b"POST /a%20b?x=1&y= HTTP/1.1\r\nHost: h:1\r\nContent-Length: 2\r\n\r\nhi")
        assert request.method == "POST"
        assert request.uri == "/a%20b?x=1&y="
        assert request.path == "/a%20b"
        assert request.query == "x=1&y="
        assert request.version == "HTTP/1.1"
        assert request.body == b"hi"
        assert request.host == "h:1"
        assert request.arguments == {"x": ["1"], "y": [""]}

    def test_form_body_adds_arguments(self):
        request = one(
            POST + b"Content-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 7\r\n\r\na=1&b=2"
        )
        assert request.arguments == {"a": ["1"], "b": ["2"]}

    def test_header_names_are_case_insensitive_and_lower_case(self):
        headers = one(b"GET / HTTP/1.1\r\nHost: h\r\nX-Foo: 1\r\ntTl: 5\r\n\r\n").headers
        assert dict(headers) == {"host": "h", "x-foo": "1", "ttl": "5"}
        assert headers["TTL"] == headers.get("Ttl") == "5"
        assert "X-FOO" in headers and "y" not in headers and 5 not in headers
        assert list(headers.get_all()) == [("host", "h"), ("x-foo", "1"), ("ttl", "5")]

    def test_repeated_headers_are_joined_with_a_comma_and_no_space(self):
        headers = one(b"GET / HTTP/1.1\r\nHost: h\r\nTTL: 5\r\nttl: 6\r\n\r\n").headers
        assert headers["ttl"] == "5,6"
        assert headers.get_list("ttl") == ["5", "6"]
        assert headers.get_list("topic") == []

    def test_header_values_are_latin1_and_stripped(self):
        headers = one(b"GET / HTTP/1.1\r\nHost: h\r\nA: \t caf\xe9 b \t\r\nB:\r\n\r\n").headers
        assert headers == {"host": "h", "a": "caf\xe9 b", "b": ""}

    def test_cookies(self):
        assert one(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\n\r\n").cookies["a"].value == "b"
        assert not one(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").cookies

    @pytest.mark.parametrize(
        ("uri", "path", "host"),
        [
            (b"http://other/wpush/v1/x?q", "/wpush/v1/x", "other"),
            (b"HTTPS://other:8/", "/", "other:8"),
            (b"http://other?q", "/", "other"),
            (b"*", "*", "h"),
        ],
    )
    def test_absolute_form(self, uri, path, host):
        request = one(b"OPTIONS " + uri + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (request.path, request.host, request.uri) == (path, host, uri.decode())

    @pytest.mark.parametrize("method", [b"BREW", b"PROPFIND", b"QUERY", b"get", b"M!", b"A" * 64])
    def test_unknown_methods_are_parsed(self, method):
        request = one(method + b" /x?y HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
        assert (request.method, request.uri, request.body) == (method.decode(), "/x?y", b"hi")

    def test_connect_is_an_unknown_method(self):
        request, rest = parse(b"CONNECT host:443 HTTP/1.1\r\nHost: host\r\n\r\n")
        assert (request.method, request.path, rest) == ("CONNECT", "host:443", "end")

    def test_upgrade_is_ignored_and_the_body_read(self):
        request = one(POST + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nhi")
        assert (request.headers["upgrade"], request.body) == ("h2c", b"hi")
        assert "*pgrade" not in request.headers

    def test_empty_lines_before_the_request_line_are_ignored(self):
        results = parse(
            b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n\r", b"\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n"
        )
        assert [r.uri for r in results[:-1]] == ["/", "/b"]

    def test_pipelined(self):
        results = parse(
            POST + b"Content-Length: 1\r\n\r\naGET /b HTTP/1.1\r\nHost: h\r\n\r\nGET /c"
        )
        assert [r.uri for r in results[:-1]] == ["/p", "/b"]
        assert results[-1] == "wait"


class TestKeepAlive:
    @pytest.mark.parametrize(
        ("version", "connection", "expected"),
        [
            (b"1.1", None, True),
            (b"1.1", b"close", False),
            (b"1.1", b"foo, Close", False),
            (b"1.0", None, False),
            (b"1.0", b"Keep-Alive", True),
            (b"1.0", b"keep-alive", True),
        ],
    )
    def test_persistence(self, version, connection, expected):
        header = b"Connection: " + connection + b"\r\n" if connection else b""
        request = one(b"GET / HTTP/" + version + b"\r\nHost: h\r\n" + header + b"\r\n")
        assert request.keep_alive is expected


class TestHost:
    """RFC 9112 3.2: exactly one, so that all who handle a request mean the same by it"""

    def test_missing(self):
        assert parse(b"GET / HTTP/1.1\r\nA: b\r\n\r\n") == [400]
        assert parse(b"GET http://h/ HTTP/1.1\r\n\r\n") == [400]

    def test_http_1_0_knows_none(self):
        assert one(b"GET / HTTP/1.0\r\n\r\n").host == "127.0.0.1"

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    @pytest.mark.parametrize(
        "headers", [b"Host: a\r\nHost: b", b"Host: a\r\nX: y\r\nhOST: a", b"Host: a, b", b"Host: ,"]
    )
    def test_several(self, version, headers):
        assert parse(b"GET / HTTP/" + version + b"\r\n" + headers + b"\r\n\r\n") == [400]

    @pytest.mark.parametrize("host", [b"", b"h:80", b"[::1]:8080", b"xn--caf-dma.example"])
    def test_any_one(self, host):
        assert one(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").uri == "/"

    def test_is_looked_at_before_a_connection_is_handed_over(self):
        data = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
        assert parse(data, take_over=lambda request: True) == [400]

    def test_in_trailers_it_is_nothing(self):
        body = b"0\r\nHost: other\r\n\r\n"
        request = one(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert request.host == "h"


class TestLimits:
    def test_head_of_exactly_the_limit(self):
        start = b"GET / HTTP/1.1\r\nHost: h\r\nB: " + b"b" * (HEAD_LIMIT // 2 - 10) + b"\r\nA: "
        good = start + b"a" * (HEAD_LIMIT - len(start) - 4) + b"\r\n\r\n"
        assert len(good) == HEAD_LIMIT
        assert status(good) == "end"
        assert status(good.replace(b"A: ", b"A: a")) == 431

    def test_line_of_the_length_1_58_3_took(self):
        """spec/http-endpoint 1.2: 16384 bytes"""
        line = b"Authorization: " + b"a" * (16384 - 15)
        assert status(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n") == "end"
        assert status(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"a\r\n\r\n") == 431

    def test_head_over_the_limit_is_refused_before_its_end(self):
        assert parse(b"GET / HTTP/1.1\r\nA: ", b"a" * HEAD_LIMIT) == [431]

    def test_number_of_headers(self):
        assert (
            status(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * (HEADERS_LIMIT - 1) + b"\r\n")
            == "end"
        )
        assert (
            status(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * HEADERS_LIMIT + b"\r\n") == 431
        )

    def test_uri(self):
        longest = b"/" + b"a" * (URI_LIMIT - 1)
        assert status(b"GET " + longest + b" HTTP/1.1\r\nHost: h\r\n\r\n") == "end"
        assert status(b"GET " + longest + b"a HTTP/1.1\r\nHost: h\r\n\r\n") == 414
        assert parse(b"GET ", longest, b"a") == [414]

    def test_content_length(self):
        head = POST + b"Content-Length: %d\r\n\r\n"
        assert status(head % BODY_LIMIT) == "wait"
        assert status(head % (BODY_LIMIT + 1)) == 413
        assert status(head % 10**17) == 413

    def test_chunked_body_is_refused_when_it_grows_too_long(self):
        head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
        results = parse(head, *[chunk] * 64, b"0\r\n\r\n")
        assert len(results[0].body) == BODY_LIMIT
        assert parse(head, *[chunk] * 64, b"1\r\n") == [413]
        assert parse(head, b"FFFFFFFFFFFFFFFF\r\n") == [413]

    def test_chunk_size_line(self):
        head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        line = b"0;" + b"a" * (CHUNK_LINE_LIMIT - 2)
        assert status(head + line + b"\r\n\r\n") == "end"
        assert status(head + line + b"a\r\n\r\n") == 400
        assert status(head + line + b"aa") == 400

    def test_trailers(self):
        head = POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
        assert status(head + b"A: b\r\n" * 1000 + b"\r\n") == "end"
        assert status(head + b"A: b\r\n" * 3000 + b"\r\n") == 431
        assert status(head + b"A: " + b"b" * HEAD_LIMIT) == 431

    def test_endless_input_is_not_kept(self):
        """10,000 headers, a 1 GB body and garbage are refused within the first 64 KiB."""
        for data in (
            b"GET / HTTP/1.1\r\n" + b"X-Header: 1\r\n" * 10_000,
            POST + b"Content-Length: 1000000000\r\n\r\n" + b"x" * 65536,
            b"\x16\x03\x01\x02\x00" + b"\x80" * 65536,
            b"A" * 65536,
        ):
            assert isinstance(status(data), int)


class TestStrictFraming:
    @pytest.mark.parametrize(
        "headers",
        [
            b"Content-Length: 5\r\nContent-Length: 5\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: 5, 5\r\n",
            b"Content-Length: +5\r\n",
            b"Content-Length: -5\r\n",
            b"Content-Length: 0x5\r\n",
            b"Content-Length: 5_0\r\n",
            b"Content-Length: \xb2\r\n",
            b"Content-Length:\r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Transfer-Encoding: chunked, gzip\r\n",
            b"Transfer-Encoding: identity\r\n",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: \x0bchunked\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding:\r\n",
            b"A: b\r\n folded\r\n",
            b"A: b\r\n\tfolded\r\n",
            b" A: b\r\n",
            b"A : b\r\n",
            b"A\r\n",
            b": b\r\n",
            b"A(: b\r\n",
            b"A: b\nC: d\r\n",
            b"A: b\rC: d\r\n",
            b"A: b\x00\r\n",
            b"A: b\x01\r\n",
            b"A: b\x7f\r\n",
        ],
    )
    def test_refused_header(self, headers):
        assert status(POST + headers + b"\r\nhello") == 400

    def test_chunked_in_http_1_0_is_refused(self):
        head = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        assert status(head) == 400

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b"GET  / HTTP/1.1", 400),
            (b"GET / HTTP/1.1 ", 400),
            (b"GET /", 400),
            (b"GET / HTTP/1", 400),
            (b"GET / FTP/1.1", 400),
            (b"GET / ICE/1.0", 400),
            (b"GET /a b HTTP/1.1", 400),
            (b"GET /\x01 HTTP/1.1", 400),
            (b"GET /\xff HTTP/1.1", 400),
            (b"GET x HTTP/1.1", 400),
            (b"G(T / HTTP/1.1", 400),
            (b" GET / HTTP/1.1", 400),
            (b"A" * 65 + b" / HTTP/1.1", 400),
            (b"GET / HTTP/2.0", 505),
            (b"GET / HTTP/0.9", 505),
            (b"GET / HTTP/1.2", 505),
        ],
    )
    def test_refused_request_line(self, line, expected):
        assert status(line + b"\r\nHost: h\r\n\r\n") == expected

    @pytest.mark.parametrize(
        "start",
        [b"GET /\r\n", b"GET / HTTP/1.1\n", b"GET / X", b"\x16\x03\x01", b"\n", b"\rG", b"{}"],
    )
    def test_hopeless_start_is_refused_at_once(self, start):
        assert status(start) == 400

    @pytest.mark.parametrize(
        "body",
        [
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloX0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b";a\r\nhello\r\n0\r\n\r\n",
            b"5;\x00\r\nhello\r\n0\r\n\r\n",
            b"0\r\nA\x00: b\r\n\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nA: b\nB: c\r\n\r\n",
        ],
    )
    def test_refused_chunks(self, body):
        assert status(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body) == 400

    def test_chunks(self):
        body = b'5;ext="a"\r\nhello\r\n00001\r\n!\r\n0\r\nTrailer: x\r\nTTL: 9\r\n\r\n'
        request = one(POST + b"Transfer-Encoding: Chunked\r\n\r\n" + body)
        assert request.body == b"hello!"
        assert request.headers == {"host": "h", "transfer-encoding": "Chunked"}


class TestTakeOver:
    def test_gets_everything_from_the_head_on(self):
        parser = RequestParser(take_over=lambda request: request.path == "/ws")
        head = b"GET /ws HTTP/1.1\r\nHost: h\r\nUPGRADE: websocket\r\nConnection: upgrade\r\n\r\n"
        parser.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" + head + b"\x81\x80frame")
        first = parser.poll()
        assert first is not None and first.path == "/"
        assert not parser.taken
        assert parser.poll() is None
        assert parser.taken
        assert parser.unread() == head + b"\x81\x80frame"
        parser.close()

    def test_malformed_heads_are_refused_all_the_same(self):
        assert parse(b"GET /ws\r\n", take_over=lambda request: True) == [400]


class TestWantsContinue:
    def test_only_before_the_body(self):
        parser = RequestParser()
        parser.feed(POST + b"Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n")
        assert parser.poll() is None and parser.wants_continue
        parser.feed(b"h")
        assert parser.poll() is None and not parser.wants_continue
        parser.feed(b"i")
        assert parser.poll() is not None and not parser.wants_continue
        parser.close()

    @pytest.mark.parametrize(
        "data",
        [
            b"POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
            POST + b"Content-Length: 2\r\nExpect: 200-ok\r\n\r\n",
            POST + b"Content-Length: 2\r\n\r\n",
            POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\nh",
        ],
    )
    def test_not_wanted(self, data):
        parser = RequestParser()
        parser.feed(data)
        assert parser.poll() is None and not parser.wants_continue
        parser.close()


def test_headers_get_default():
    assert Headers().get("a") is None
    assert Headers().get("a", "b") == "b"


# ---- properties

TOKENS = st.sampled_from(
    [b"POST"] * 8 + [b"GET", b"PUT", b"BREW", b"CONNECT", b"HEAD", b"G\x00T", b"", b"p"]
)
TARGETS = st.sampled_from(
    [b"/"] * 8 + [b"/a?b", b"*", b"http://x/y", b"/ x", b"/\xff", b"", b"x:1"]
)
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 9 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.", b"http/1.1"])
HOSTS = st.sampled_from([b"Host: h\r\n"] * 30 + [b"", b"Host: h\r\nHost: h\r\n", b"Host: h,i\r\n"])
NAMES = st.sampled_from(
    [
        *(b"Content-Length", b"Transfer-Encoding", b"content-length ", b"Connection", b"X"),
        *(b"Upgrade", b" X", b"", b"Trans\x00fer", b"Expect", b"TRANSFER-ENCODING", b"X_Y"),
    ]
)
VALUES = st.sampled_from(
    [
        *(b"5", b"0", b"05", b"5, 5", b"5,6", b"+5", b"-1", b"5 ", b"\t5", b"", b"1e1"),
        *(b"chunked", b"Chunked", b" chunked ", b"gzip, chunked", b"chunked, chunked"),
        *(b"close", b"keep-alive", b"upgrade", b"h2c", b"\x00", b"a\rb", b"a\nb", b"\x0bchunked"),
        *(b"identity", b"99999999999"),
    ]
)
EOLS = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\n "])
BODIES = st.sampled_from(
    [
        *(b"", b"hello", b"hello world", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n"),
        *(b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"5;x\r\nhello\r\n0\r\n\r\n", b"G\r\n\r\n", b"0\n\n"),
        b"helloGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
)


FRAMED = st.sampled_from(
    [
        ([], b""),
        ([(b"Content-Length", b"5")], b"hello"),
        ([(b"content-length", b" 0 ")], b""),
        ([(b"Transfer-Encoding", b"chunked")], b"5;x\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n"),
    ]
)


@st.composite
def requests(draw):
    """A request, about as often sound as not."""
    lines = [b" ".join([draw(TOKENS), draw(TARGETS), draw(VERSIONS)]), draw(EOLS), draw(HOSTS)]
    headers, body = draw(FRAMED)
    if draw(st.booleans()):
        headers = headers + draw(st.lists(st.tuples(NAMES, VALUES), max_size=2))
    if draw(st.integers(0, 3)) == 0:
        body = draw(BODIES)
    for name, value in draw(st.permutations(headers)):
        lines += [name, b": ", value, draw(EOLS)]
    return b"".join([*lines, b"\r\n", body])


def parse_h11(data: bytes):
    """What h11 makes of it: (method, target, body) of each request, then ``error`` or ``end``."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    result: list = []
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                result.append((request.method.decode(), request.target.decode(), body))
                connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return [*result, "end"]
                connection.start_next_cycle()
            else:
                return [*result, "end"]
    except h11.RemoteProtocolError:
        return [*result, "error"]


@settings(max_examples=400, deadline=None)
@given(data=st.lists(requests(), min_size=1, max_size=3).map(b"".join))
@example(data=b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n")
def test_never_accepts_what_h11_refuses(data):
    """Every request we take is one that h11 takes, with the same body, in the same order."""
    ours = [(r.method, r.uri, r.body) for r in parse(data)[:-1]]
    theirs = parse_h11(data)
    assert ours == theirs[: len(ours)]


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


CUTS = st.lists(st.integers(0, 1 << 20), max_size=8)


@settings(max_examples=300, deadline=None)
@given(data=st.lists(requests(), min_size=1, max_size=3).map(b"".join), cuts=CUTS)
def test_segmentation_makes_no_difference(data, cuts):
    whole = summary(parse(data))
    assert summary(parse(*pieces_of(data, cuts))) == whole
    assert summary(parse(*[data[i : i + 1] for i in range(len(data))])) == whole


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300), cuts=CUTS)
def test_random_bytes(data, cuts):
    for start in (b"", b"GET / HTTP/1.1\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\n"):
        whole = summary(parse(start + data))
        assert summary(parse(*pieces_of(start + data, cuts))) == whole


@settings(max_examples=60, deadline=None)
@given(
    uri=st.integers(URI_LIMIT - 2, URI_LIMIT + 2),
    header=st.sampled_from([0, 16300, 16381, 16382, 32700]),
    count=st.sampled_from([0, HEADERS_LIMIT, HEADERS_LIMIT + 1]),
    bad=st.sampled_from([b"", b"x\n\r\n", b"\x01: y\r\n"]),
    cuts=CUTS,
)
def test_segmentation_makes_no_difference_at_the_limits(uri, header, count, bad, cuts):
    data = b"GET /" + b"a" * (uri - 1) + b" HTTP/1.1\r\n" + b"A: " + b"b" * header + b"\r\n"
    data += b"B: c\r\n" * count + bad + b"\r\n"
    assert summary(parse(*pieces_of(data, cuts))) == summary(parse(data))
