"""Fuzz the parsers of what strangers send: ``python -m fuzz.parsers [--rounds N] [TARGET ...]``.

Each round makes its input from the seed, the target's name and its number alone: a failure prints
the command that shows it again. Bounded by ``--rounds`` for each target, by ``--seconds`` for all.
What is checked, for every target:

* no exception but those its docstring names;
* the property in the target's own docstring here;
* the same inputs a second time leave nothing behind (:func:`growth`).
"""

# mypy: disable-error-code="misc"

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from functools import cache
from random import Random
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from cryptography.exceptions import InvalidSignature
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from marshmallow import ValidationError
from twisted.internet.task import Clock

from autopush.exceptions import InvalidRequest, InvalidTokenException, VapidAuthException
from autopush.httpserver.parser import (
    BODY_LIMIT,
    HEAD_LIMIT,
    HEADERS_LIMIT,
    BadRequest,
    RequestParser,
)
from autopush.message.crypto_key import CryptoKey, CryptoKeyException
from autopush.message.encoding import base64url_decode, base64url_encode
from autopush.message.endpoint_token import parse_endpoint
from autopush.message.vapid import parse_auth_header, verify
from autopush.tests.websocket import support as ws
from autopush.web.schemas_webpush import MESSAGE_HEADERS, load_crypto_headers
from autopush.websocket.trimmed import SlimServerProtocol, bind_options, unmask
from fuzz.mutation import mutated, pieces

# ------------------------------------------------------------------------------ HTTP requests

STATUSES = {400, 413, 414, 431, 505}
"""What the parser refuses with."""

REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /wpush/v1/x HTTP/1.1\r\nHost: h\r\nTTL: 60\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /x?y=z HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"BREW http://h/ HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n!",
)
HTTP_WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b":", b" ", b"\t", b"\0", b"\xff", b"HTTP/1.1", b"?"),
    *(b"Content-Length: 5\r\n", b"Content-Length: +5\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"\r\nTransfer-Encoding : chunked", b"Content-Length: 18446744073709551616\r\n"),
    *(b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"A: b\r\n" * HEADERS_LIMIT, b"Upgrade: h2c\r\n"),
)


def read_requests(parts: Iterable[bytes]) -> list[Any]:
    """Return what a connection would see: its requests, and how it ends."""
    parser = RequestParser()
    seen: list[Any] = []
    try:
        for part in parts:
            parser.feed(part)
            while (request := parser.poll()) is not None:
                assert len(request.body) <= BODY_LIMIT
                assert len(request.headers) <= HEADERS_LIMIT
                headers = sorted(request.headers.items())
                seen.append((request.method, request.uri, headers, request.body))
                if not request.keep_alive:
                    return [*seen, "last"]
            assert parser.buffered <= HEAD_LIMIT, parser.buffered
    except BadRequest as error:
        assert error.status in STATUSES, error.status
        return [*seen, error.status]
    finally:
        parser.close()
    return [*seen, "waits"]


def http(rng: Random) -> bytes:
    """How a stream is cut changes nothing, and never is more held than the limits say."""
    sound = b"".join(rng.choice(REQUESTS) for _ in range(rng.randrange(1, 4)))
    data = mutated(rng, sound, HTTP_WORDS)
    whole, cut = read_requests([data]), read_requests(pieces(rng, data))
    assert whole == cut, (whole, cut)
    return data


# ------------------------------------------------------------------------- WebSocket frames

FRAME_LIMIT = 1000
"""Bytes of a message in these tests."""

FRAME_HEAD = 14
"""Bytes of the longest head of a frame (RFC 6455 5.2)."""

WS_WORDS = (
    *(b"\x81\x80\0\0\0\0", b"\x01\x80\0\0\0\0", b"\x80\x80\0\0\0\0", b"\x00\x80\0\0\0\0"),
    *(b"\x89\x80\0\0\0\0", b"\x88\x82\0\0\0\0\x03\xe8", b"\x88\x80\0\0\0\0", b"\x88\x81\0\0\0\0x"),
    *(b"\x81\xfe\xff\xff", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff", b"\xc1", b"\x83", b"\0"),
    *(b"\xff" * 16, b"\x81\x05hello", "\u20ac".encode()),
)


class Recorder:
    """Notes what a session would be told."""

    factory: Any

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """A message has come."""
        self.factory.log.append(("message", payload, isBinary))

    def onPong(self, payload: bytes) -> None:
        """A pong has come."""
        self.factory.log.append(("pong", payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """The connection has ended."""
        self.factory.log.append(("closed", wasClean, code))


class Slim(Recorder, SlimServerProtocol):
    """Ours."""


class Stock(Recorder, WebSocketServerProtocol):
    """The one it stands for."""


class Factory(WebSocketServerFactory):
    """Makes one kind of protocol, without timers."""

    def __init__(self, protocol: type[WebSocketServerProtocol]) -> None:
        super().__init__(reactor=Clock())
        self.setProtocolOptions(
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            maxFramePayloadSize=FRAME_LIMIT,
            maxMessagePayloadSize=FRAME_LIMIT,
        )
        self.protocol = protocol
        self.protocol = bind_options(self)
        self.log: list[Any] = []


def read_frames(kind: type[WebSocketServerProtocol], parts: Iterable[bytes]) -> tuple[Any, ...]:
    """Return what became of a stream: events, bytes sent, how TCP was ended; what is unfinished."""
    factory = Factory(kind)
    transport = ws.FakeTransport()
    protocol = transport.connect(factory.protocol())
    protocol.dataReceived(ws.request())
    for part in parts:
        if transport.connected:
            protocol.dataReceived(part)
        if kind is Slim:
            assert held(protocol) <= FRAME_LIMIT + FRAME_HEAD, held(protocol)
    unfinished = kind is Slim and held(protocol) > 0
    ending = transport.ending
    transport.end()
    return factory.log, transport.take(), ending, unfinished


def held(protocol: Any) -> int:
    """Bytes kept of a message that has not come completely."""
    partial, fragments = protocol._partial, protocol._fragments
    size = len(partial[1]) if partial is not None else 0
    return size + (len(fragments[1]) if fragments is not None else 0)


def frames(rng: Random) -> bytes:
    """The trimmed protocol does what Autobahn's does, and holds no more than one message."""
    sound = b"".join(sound_message(rng) for _ in range(rng.randrange(1, 5)))
    data = mutated(rng, sound, WS_WORDS)
    parts = pieces(rng, data)
    *ours, unfinished = read_frames(Slim, parts)
    *stock, _ = read_frames(Stock, parts)
    if unfinished and ours[2] is None:
        # Autobahn judges a text as it comes, ours when it is complete.
        assert stock[2] in (None, "abort"), stock
        ours[2] = stock[2]
    assert ours == stock, (ours, stock)
    return data


def sound_frame(rng: Random, opcode: int, fin: bool) -> bytes:
    """A client's frame; the mask comes from ``rng``, too."""
    sizes = (0, 1, 125) if opcode & 8 else (0, 1, 5, 126, 700, FRAME_LIMIT, FRAME_LIMIT + 1)
    payload = b"a" * rng.choice(sizes)
    mask = rng.randbytes(4)
    head = ws.frame(opcode, payload, fin, masked=False).removesuffix(payload)
    return bytes([head[0], head[1] | 0x80]) + head[2:] + mask + unmask(payload, mask)


def sound_message(rng: Random) -> bytes:
    """A ping, a pong, or a message in up to three fragments."""
    opcode = rng.choice((ws.TEXT, ws.TEXT, ws.BINARY, ws.PING, ws.PONG))
    last = 0 if opcode & 8 else rng.randrange(3)
    opcodes = [opcode, ws.CONT, ws.CONT][: last + 1]
    return b"".join(sound_frame(rng, op, i == last) for i, op in enumerate(opcodes))


# ------------------------------------------------------------------- endpoint tokens and VAPID

NOW = 1_700_000_000.0
"""Seconds; tokens are made and judged at this time."""

TEXT_WORDS = (
    *(b"=", b"==", b"-", b"_", b"+", b"/", b".", b",", b";", b'"', b"\\", b" ", b"\t", b"\0"),
    *(b"t=", b"k=", b"vapid ", b"webpush ", b"Bearer ", b'="', b"\xe9", b"\xff", b"gAAAAA"),
    *(b"dh=", b"salt=", b"p256ecdsa=", b"keyid=", b"null", b"{}", b"AAAA"),
)
UAID, CHID = uuid.UUID(int=1).hex, uuid.UUID(int=2).hex


FERNET = Fernet(b"A" * 43 + b"=")
"""Seals the endpoints below; all is fixed, so that a round is the same in every run."""

V1 = (
    "gAAAAABrDDLLsxKThOmxV5cgTiC9dbrH_EDAnl7dKC1LT50W2v73Y7vVXyTKHVQDG9-zQG"
    "nlWHnboB0UEAg82eGC8wt2ta1JVxiWHs_CmX9Lx3JQllZo3lJCWVxv7MJCZs9QgRf318DT"
)
V2 = (
    "gAAAAABrDDLLzti88ZdZBy1zT5FniHpruwDZuqG9Jrnvwk3mTdayMaZDIguT5v8JitYk9G"
    "xN-XC3UhRFpDANzEY1MJ7SpszjqYoNxpD_dXSwE9UZDnZrn9l9VswDe1x2GAGcaoZsuEcz"
    "2NXw5wpvS7Hx2PahLARfsMF97KwYZN9pZcGZ6xduInI"
)
"""Tokens of an endpoint for everybody, and of one for :func:`sender`."""


@cache
def sender() -> tuple[ec.EllipticCurvePrivateKey, str]:
    """A sender's key, and its public half as text."""
    key = ec.derive_private_key(3, ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return key, base64url_encode(point)


@cache
def signed_token() -> str:
    """A sender's JWT; the signature is that of RFC 6979."""
    claims = {"aud": "https://push.example", "exp": NOW + 60, "sub": "mailto:a@b.example"}
    head = base64url_encode(json.dumps({"typ": "JWT", "alg": "ES256"}))
    signed = f"{head}.{base64url_encode(json.dumps(claims))}"
    algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
    r, s = decode_dss_signature(sender()[0].sign(signed.encode(), algorithm))
    return f"{signed}.{base64url_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def mutated_text(rng: Random, text: str) -> str:
    """As :func:`~fuzz.mutation.mutated`, for header values (latin-1)."""
    return mutated(rng, text.encode("latin-1"), TEXT_WORDS).decode("latin-1")


def tokens(rng: Random) -> str:
    """Whatever opens is what was sealed: nobody makes an endpoint, or turns one into another."""
    jwt, public = signed_token(), sender()[1]
    version = rng.choice(("v1", "v2", "v3", None))
    token = mutated_text(rng, rng.choice((V1, V2)))
    auth = rng.choice((None, f"vapid t={jwt},k={public}", f"WebPush {jwt}"))
    auth = auth and mutated_text(rng, auth)
    ckey = rng.choice((None, f"p256ecdsa={public}"))
    ckey = ckey and mutated_text(rng, ckey)
    try:
        found = parse_endpoint(FERNET, token, version, ckey, auth)
    except (CryptoKeyException, InvalidToken, InvalidTokenException, VapidAuthException):
        return repr((token, version, ckey, auth))
    assert (found.uaid, found.chid) == (UAID, CHID), found
    assert token.rstrip("=") == (V2 if version == "v2" else V1), found
    if version == "v2":
        assert base64url_decode(found.public_key or "") == base64url_decode(public), found
    return repr((token, version, ckey, auth))


def vapid(rng: Random) -> str:
    """A header is parsed into its four entries; a token counts only if these words were signed."""
    jwt, public = signed_token(), sender()[1]
    header = mutated_text(
        rng, rng.choice((f"vapid t={jwt}, k={public}", f'vapid k="{public}",t="{jwt}"', "Bearer a"))
    )
    try:
        parsed = parse_auth_header(header)
    except VapidAuthException:
        parsed = {}
    assert parsed.keys() <= {"scheme", "version", "t", "k"}, parsed
    assert bool(parsed) == (parsed.get("version") in (1, 2)), parsed
    token, key = parsed.get("t", ""), parsed.get("k", public)
    try:
        verify(token, key, NOW, rng.random() < 0.5)
    except (InvalidSignature, ValueError):
        return header
    assert token.rpartition(".")[0] == jwt.rpartition(".")[0], token
    assert base64url_decode(key)[-64:] == base64url_decode(public)[-64:], key
    return header


# ----------------------------------------------------------------------------- key headers

KEY_HEADERS = ("dh=AAAA", 'keyid="a";dh="BBBB",p256ecdsa=CCCC', "salt=DDDD", "keyid=a;salt=EE;rs=4")
ENCODINGS = ("aesgcm128", "aesgcm", "aes128gcm", "gzip")


def headers(rng: Random) -> str:
    """The normal form of a header means the same; what passes the schemas is what was sent."""
    texts = [mutated_text(rng, rng.choice(KEY_HEADERS)) for _ in range(3)]
    for text in texts:
        try:
            parsed = CryptoKey(text)
        except CryptoKeyException:
            assert CryptoKey.parse_and_get_label(text, "dh") is None
            continue
        normal = parsed.to_string()
        assert CryptoKey(normal).to_string() == normal, normal
        for label in ("dh", "salt", "p256ecdsa"):
            assert CryptoKey(normal).get_label(label) == parsed.get_label(label), label
    values = [rng.choice(ENCODINGS), *texts]
    sent = {name: v for name, v in zip(MESSAGE_HEADERS, values, strict=True) if rng.random() < 0.8}
    try:
        assert load_crypto_headers(sent) == sent
    except InvalidRequest as error:
        assert (error.status_code, error.errno) == (400, 110), error.errno
    except ValidationError:
        pass
    return repr(sent)


# ------------------------------------------------------------------------------- running them

Target = Callable[[Random], str | bytes]
TARGETS: dict[str, Target] = {
    target.__name__: target for target in (http, frames, tokens, vapid, headers)
}

MAY_GROW = 200
"""Blocks of memory that a second run of the same inputs may keep: caches of the interpreter."""


class Failure(Exception):
    """A property does not hold; the text says for which input, and how to see it again."""


def random_of(seed: int, name: str, number: int) -> Random:
    """The source of one round's input."""
    return Random(f"{seed}/{name}/{number}")


def fuzz(name: str, seed: int, numbers: range, until: float = float("inf")) -> int:
    """Run rounds of one target.

    :param until: monotonic seconds to end at
    :returns: how many rounds there were
    :raises Failure: at the first input for which something does not hold
    """
    target = TARGETS[name]
    done = 0
    for number in numbers:
        if time.monotonic() > until:
            break
        try:
            target(random_of(seed, name, number))
        except Exception as exc:
            again = f"python -m fuzz.parsers --seed {seed} --first {number} --rounds 1 {name}"
            raise Failure(f"{type(exc).__name__}: {exc}\n{again}") from exc
        done += 1
    return done


def growth(name: str, seed: int, numbers: range) -> int:
    """Return how many blocks of memory a second run of rounds leaves behind."""
    fuzz(name, seed, numbers)
    gc.collect()
    before = sys.getallocatedblocks()
    fuzz(name, seed, numbers)
    gc.collect()
    return sys.getallocatedblocks() - before


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser("python -m fuzz.parsers", description=__doc__.split("\n")[0])
    options.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options.add_argument("--rounds", type=int, default=20_000, help="of each target")
    options.add_argument("--seconds", type=float, default=300, help="of all targets together")
    options.add_argument("--seed", type=int, help="default: a new one, which is printed")
    options.add_argument("--first", type=int, default=0, help="number of the first round")
    return options


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = parser().parse_args(arguments)
    names = options.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser().error(f"no such target: {', '.join(sorted(unknown))}")
    seed = Random().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}")
    for name in names:
        begun = time.monotonic()
        until = begun + options.seconds / len(names)
        numbers = range(options.first, options.first + options.rounds)
        try:
            done = fuzz(name, seed, numbers, until)
            again = range(options.first, options.first + min(done, 200))
            grown = growth(name, seed, again)
        except Failure as failure:
            print(f"{name}: {failure}")
            return 1
        print(f"{name}: {done} rounds in {time.monotonic() - begun:.1f} s, {grown} blocks kept")
        if grown > MAY_GROW:
            print(f"{name}: something grows")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
