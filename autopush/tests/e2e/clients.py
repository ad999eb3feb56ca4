"""Other people's clients: a browser (``websockets``, ``http-ece``) and application servers
(``pywebpush``, ``py-vapid``)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any

import http_ece
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid01, Vapid02
from pywebpush import WebPusher, webpush
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 60
"""Seconds to wait for something that must come, also on a busy machine."""

QUIET = 0.4
"""Seconds to wait for something that must not come."""

JSON = dict[str, Any]

PATIENT: JSON = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "ping_interval": None}
"""For ``connect`` of ``websockets``: of itself it gives up a handshake after ten seconds, and a
connection whose ping isn't answered within twenty."""


def b64encode(data: bytes) -> str:
    """URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64decode(text: str) -> bytes:
    """The reverse of :func:`b64encode`; padding is optional."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """The uncompressed point of a key, 65 bytes."""
    return key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


class VapidSender:
    """An application server with a key."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.public_key = b64encode(public_bytes(self.private.public_key()))
        self.draft01 = Vapid01(self.private)
        self.rfc8292 = Vapid02(self.private)


class Subscription:
    """What a page gets from ``PushManager.subscribe()``, with the browser's half of the keys."""

    def __init__(self, channel: str, endpoint: str) -> None:
        self.channel = channel
        self.endpoint = endpoint
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.public = public_bytes(self.private.public_key())
        self.auth = os.urandom(16)

    @property
    def info(self) -> JSON:
        """What the page sends to its server."""
        keys = {"p256dh": b64encode(self.public), "auth": b64encode(self.auth)}
        return {"endpoint": self.endpoint, "keys": keys}

    def decrypt(self, frame: Mapping[str, Any]) -> bytes:
        """Decrypt a notification frame as a browser does."""
        headers = frame["headers"]
        encoding = headers["encoding"]
        given: JSON = {"auth_secret": self.auth}
        if encoding != "aes128gcm":
            dh = headers["encryption_key" if encoding == "aesgcm128" else "crypto_key"]
            given["salt"] = b64decode(_parameter("salt", headers["encryption"]))
            given["dh"] = b64decode(_parameter("dh", dh))
        if encoding == "aesgcm128":
            del given["auth_secret"]
        data = b64decode(frame["data"])
        return http_ece.decrypt(data, private_key=self.private, version=encoding, **given)


def _parameter(name: str, header: str) -> str:
    found = re.search(rf"(?:^|[;,])\s*{name}=\"?([A-Za-z0-9_-]+)", header)
    assert found, (name, header)
    return found[1]


def _session(verify: str | None) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    if verify:
        session.verify = verify
    return session


def push(
    subscription: Subscription,
    data: bytes | None,
    ttl: int | None = 60,
    encoding: str = "aes128gcm",
    vapid: Vapid01 | None = None,
    headers: Mapping[str, str] | None = None,
    verify: str | None = None,
) -> requests.Response:
    """Send a message with pywebpush (blocks).

    :param data: None sends no body
    :param vapid: sign with this key, in its draft's form
    :param verify: file with the certificate to trust
    :raises pywebpush.WebPushException: refused
    """
    with _session(verify) as session:
        if encoding == "aesgcm128":
            return _push_aesgcm128(session, subscription, data or b"", ttl, headers)
        common: JSON = {"headers": dict(headers or {}), "content_encoding": encoding}
        if vapid is None:
            pusher = WebPusher(subscription.info, requests_session=session)
            answer = pusher.send(data, ttl=ttl, timeout=PATIENCE, **common)
        else:
            answer = webpush(
                subscription.info,
                data,
                vapid_private_key=vapid,
                vapid_claims={"sub": "mailto:ops@example.com"},
                ttl=ttl,
                timeout=PATIENCE,
                requests_session=session,
                **common,
            )
        assert isinstance(answer, requests.Response)
        return answer


def _push_aesgcm128(
    session: requests.Session,
    subscription: Subscription,
    data: bytes,
    ttl: int | None,
    headers: Mapping[str, str] | None,
) -> requests.Response:
    # pywebpush has dropped the oldest encoding; its encryption library has not.
    key, salt = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
    body = http_ece.encrypt(
        data, salt=salt, private_key=key, dh=subscription.public, version="aesgcm128"
    )
    dh = b64encode(public_bytes(key.public_key()))
    own = {
        "TTL": str(ttl),
        "Content-Encoding": "aesgcm128",
        "Encryption": f'keyid="p256dh";salt="{b64encode(salt)}"',
        "Encryption-Key": f'keyid="p256dh";dh="{dh}"',
    }
    return session.post(
        subscription.endpoint, body, headers={**own, **(headers or {})}, timeout=PATIENCE
    )


async def send(*args: Any, **kwargs: Any) -> requests.Response:
    """:func:`push`, without blocking the event loop."""
    return await asyncio.to_thread(push, *args, **kwargs)


class UserAgent:
    """One WebSocket of a browser. Use :meth:`open`."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.uaid: str | None = None
        self._later: deque[JSON] = deque()

    @classmethod
    async def open(
        cls,
        url: str,
        uaid: str | None = None,
        hello: bool = True,
        unix: str | None = None,
        **kw: Any,
    ) -> UserAgent:
        """Connect and, unless told otherwise, say hello.

        :param uaid: the one to offer
        :param unix: path of a Unix socket to go through
        :param kw: for ``websockets``' ``connect``
        """
        options: JSON = {
            **PATIENT,
            "compression": None,
            "proxy": None,
            "max_size": None,
            "max_queue": None,
            **kw,
        }
        if unix is not None:
            del options["proxy"]
            ws = await unix_connect(unix, url, **options)
        else:
            ws = await connect(url, **options)
        agent = cls(ws)
        if hello:
            await agent.hello(uaid)
        return agent

    async def __aenter__(self) -> UserAgent:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # ---- frames

    async def send(self, message: Any) -> None:
        """Send one JSON text."""
        await self.ws.send(json.dumps(message))

    async def receive(self, kind: str | None = None, timeout: float = PATIENCE) -> JSON:
        """Return the next message (of this ``messageType``; others are kept for later).

        :raises TimeoutError: none came
        :raises ConnectionClosed: the server closed instead
        """
        for message in self._later:
            if kind in (None, message.get("messageType")):
                self._later.remove(message)
                return message
        async with asyncio.timeout(timeout):
            while True:
                message = json.loads(await self.ws.recv())
                if kind in (None, message.get("messageType")):
                    return message
                self._later.append(message)

    async def receive_all(self, count: int, timeout: float = PATIENCE) -> list[JSON]:
        """Return the next ``count`` notifications."""
        return [await self.receive("notification", timeout) for _ in range(count)]

    async def nothing(self, seconds: float = QUIET) -> None:
        """Check that the connection stays open and no message comes for a while."""
        with contextlib.suppress(TimeoutError):
            message = await self.receive(timeout=seconds)
            raise AssertionError(f"unexpected: {message}")

    async def closed(self, timeout: float = PATIENCE) -> int | None:
        """Wait for the server to close; return the code of its close frame, None if it was empty
        or missing. Messages still in the buffer are dropped."""
        async with asyncio.timeout(timeout):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.ws.recv()
        await self.ws.wait_closed()
        protocol = self.ws.protocol
        received = protocol.close_rcvd
        return received.code if received is not None and received.code != 1005 else None

    @property
    def got_close_frame(self) -> bool:
        """Whether the server's end of the connection was announced."""
        return self.ws.protocol.close_rcvd is not None

    async def close(self) -> None:
        """Close as browsers do."""
        await self.ws.close()

    def abort(self) -> None:
        """Vanish."""
        self.ws.transport.abort()

    # ---- commands

    async def hello(self, uaid: str | None = None, **more: Any) -> JSON:
        """Say hello and return the answer."""
        message: JSON = {"messageType": "hello", "use_webpush": True, **more}
        if uaid is not None:
            message["uaid"] = uaid
        await self.send(message)
        reply = await self.receive("hello")
        self.uaid = reply.get("uaid")
        return reply

    async def register(self, key: str | None = None, channel: str | None = None) -> Subscription:
        """Make a subscription, restricted to an application server's key if one is given."""
        channel = channel or str(uuid.uuid4())
        message: JSON = {"messageType": "register", "channelID": channel}
        if key is not None:
            message["key"] = key
        await self.send(message)
        reply = await self.receive("register")
        assert (reply["status"], reply["channelID"]) == (200, channel), reply
        return Subscription(channel, reply["pushEndpoint"])

    async def ack(self, *frames: JSON, code: int = 100) -> None:
        """Acknowledge notifications in one message."""
        updates = [
            {"channelID": frame["channelID"], "version": frame["version"], "code": code}
            for frame in frames
        ]
        await self.send({"messageType": "ack", "updates": updates})

    async def round_trip(self) -> None:
        """Wait until all that was sent before has been handled."""
        await self.send({"messageType": "unregister", "channelID": "nothing"})
        assert (await self.receive("unregister"))["status"] == 401

    async def ack_and_wait(self, *frames: JSON) -> None:
        """Acknowledge, and wait until the server has seen it."""
        await self.ack(*frames)
        await self.round_trip()


class BlockingClient:
    """A WebSocket for tests that are no coroutines.

    The blocking client of ``websockets`` reads in one thread and writes in another, which OpenSSL
    allows nobody with the same connection: over TLS it loses a request now and then.

    :param options: as ``connect`` of ``websockets`` takes them
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        try:
            self._ws = self._runner.run(_opened(url, options))
        except BaseException:
            self._runner.close()
            raise

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._runner.run(self._ws.close())
        finally:
            self._runner.close()

    def send(self, text: str) -> None:
        """Send a message."""
        self._runner.run(self._ws.send(text))

    def recv(self, timeout: float = PATIENCE) -> str | bytes:
        """Wait for a message.

        :raises TimeoutError: none came in so many seconds
        """
        return self._runner.run(asyncio.wait_for(self._ws.recv(), timeout))

    def ping(self) -> None:
        """Send a ping, and wait until it is answered."""
        self._runner.run(self._ping())

    async def _ping(self) -> None:
        await asyncio.wait_for(await self._ws.ping(), PATIENCE)


async def _opened(url: str, options: JSON) -> ClientConnection:
    return await connect(url, **{**PATIENT, **options})
