"""A stand-in for the Apple Push Notification service: HTTP/2 over TLS.

Behaves as Apple documents in "Sending notification requests to APNs", "Handling notification
responses from APNs" and "Establishing a token-based connection to APNs".

Members of a scripted answer beside the common ones: ``reason`` (makes the body), ``code`` (name of
an HTTP/2 error), and the actions ``rst_stream`` (with ``code``, default ``REFUSED_STREAM``),
``goaway`` (with ``code``, default ``NO_ERROR``; this request and later ones are not processed),
``goaway_after`` (the same, but this request is still answered), ``freeze`` (the connection goes
silent: nothing is read any more).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import time
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from automock.certs import new_p8
from automock.standin import ACTIONS, Answer, StandIn
from automock.web import GARBAGE

PAYLOAD_LIMIT = 4096
PUSH_TYPES = frozenset(
    """
    alert background complication controls fileprovider liveactivity location mdm pushtotalk voip
    widgets
    """.split()  # noqa: SIM905
)
TOKEN_LIFE = 3600
TOKEN_KEEP = 1200
"""Seconds a provider must keep a token."""

STATUS = {
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "PayloadTooLarge": 413,
    "MissingProviderToken": 403,
    "InvalidProviderToken": 403,
    "ExpiredProviderToken": 403,
    "Unregistered": 410,
    "ExpiredToken": 410,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
}
"""Statuses of reasons; 400 for the others."""

DEFAULTS: dict[str, Any] = {
    "max_concurrent_streams": 1000,
    "initial_window_size": 65535,
    "unregistered": [],
    "tokens_expire_after": TOKEN_LIFE,
}
"""Settings. The first two count for new connections, and the first is announced to open ones."""


class APNs(StandIn):
    """The server, with one app ``com.mozilla.org.firefox`` and one team with a key."""

    name = "apns"
    actions: ClassVar[frozenset[str]] = ACTIONS | {
        "rst_stream",
        "goaway",
        "goaway_after",
        "freeze",
    }
    topics = ("com.mozilla.org.firefox", "com.mozilla.org.token")
    key_id = "AUTOMOCK10"
    team_id = "TEAMMOCK10"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = dict(DEFAULTS)
        self.connections: set[_Connection] = set()
        self.accepted = 0
        self.protocol_errors: list[str] = []
        self._server: asyncio.Server | None = None
        self._last_tokens: dict[str, tuple[str, float]] = {}
        self.cert_file, self.key_file = self.authority.client("apns-client")
        self.p8_file = self.directory / "AuthKey.p8"
        self._public_key = new_p8(self.p8_file).public_key()

    async def start(self) -> None:
        context = self.authority.server_context("apns-server", self.host, ("h2",))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self.authority.ca_file)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), self.host, self.port, ssl=context, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()

    def options(self) -> dict[str, Any]:
        where = {"host": self.host, "port": self.port, "ca_file": str(self.authority.ca_file)}
        return {
            "apns_creds": {
                "firefox": {"cert": str(self.cert_file), "key": str(self.key_file), **where},
                "token": {
                    "key_id": self.key_id,
                    "team_id": self.team_id,
                    "p8": str(self.p8_file),
                    **where,
                },
            }
        }

    def configure(self, settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            if name not in DEFAULTS or type(value) is not type(DEFAULTS[name]):
                raise ValueError(f"apns has no setting {name} of this type")
        self.settings.update(settings)
        if "max_concurrent_streams" in settings:
            for connection in list(self.connections):
                connection.loop.call_soon_threadsafe(connection.announce_limit)

    def reset(self) -> None:
        super().reset()
        self.settings = dict(DEFAULTS)
        self.accepted = 0
        self.protocol_errors.clear()
        self._last_tokens.clear()
        for connection in list(self.connections):
            connection.loop.call_soon_threadsafe(connection.announce_limit)

    # ---- what Apple checks

    def refuse(
        self, headers: dict[str, str], body: bytes, has_certificate: bool, duplicate: bool
    ) -> str | None:
        """Return why a request is refused, None if it isn't."""
        if headers[":method"] != "POST":
            return "MethodNotAllowed"
        device = re.fullmatch(r"/3/device/([^/]*)", headers[":path"])
        if device is None:
            return "BadPath"
        if not device[1]:
            return "MissingDeviceToken"
        if duplicate:
            return "DuplicateHeaders"
        return (
            self._check_provider(headers.get("authorization"), has_certificate)
            or self._check_headers(headers)
            or self._check_body(body)
            or self._check_device(device[1])
        )

    def _check_provider(self, authorization: str | None, has_certificate: bool) -> str | None:
        if authorization is None:
            return None if has_certificate else "MissingProviderToken"
        scheme, _, token = authorization.partition(" ")
        claims = self._open_token(token) if scheme.lower() == "bearer" else None
        if claims is None:
            return "InvalidProviderToken"
        now = time.time()
        age = now - claims["iat"]
        if not -60 <= age <= self.settings["tokens_expire_after"]:
            return "ExpiredProviderToken"
        last, changed_at = self._last_tokens.get(self.key_id, (token, 0.0))
        if last != token and now - changed_at < TOKEN_KEEP:
            return "TooManyProviderTokenUpdates"
        if last != token or not changed_at:
            self._last_tokens[self.key_id] = (token, now)
        return None

    def _open_token(self, token: str) -> dict[str, Any] | None:
        try:
            text, _, signature = token.rpartition(".")
            raw = _b64decode(signature)
            head, claims = (json.loads(_b64decode(part)) for part in text.split("."))
            numbers = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
            self._public_key.verify(
                encode_dss_signature(*numbers), text.encode(), ec.ECDSA(hashes.SHA256())
            )
        except (ValueError, InvalidSignature, TypeError):
            return None
        good = (
            len(raw) == 64
            and head == {"alg": "ES256", "kid": self.key_id}
            and claims.get("iss") == self.team_id
            and isinstance(claims.get("iat"), int)
        )
        return claims if good else None

    def _check_headers(self, headers: dict[str, str]) -> str | None:
        apns_id = headers.get("apns-id")
        if apns_id is not None and not re.fullmatch(
            r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", apns_id
        ):
            return "BadMessageId"
        if not re.fullmatch(r"[0-9]{1,12}", headers.get("apns-expiration", "0")):
            return "BadExpirationDate"
        push_type = headers.get("apns-push-type", "alert")
        if push_type not in PUSH_TYPES:
            return "InvalidPushType"
        priority = headers.get("apns-priority", "10")
        if priority not in ("1", "5", "10") or (push_type == "background" and priority == "10"):
            return "BadPriority"
        if len(headers.get("apns-collapse-id", "").encode()) > 64:
            return "BadCollapseId"
        topic = headers.get("apns-topic")
        if not topic:
            return "MissingTopic"
        return None if topic in self.topics else "TopicDisallowed"

    def _check_body(self, body: bytes) -> str | None:
        if len(body) > PAYLOAD_LIMIT:
            return "PayloadTooLarge"
        try:
            payload = json.loads(body)
        except ValueError:
            return "PayloadEmpty"
        return None if isinstance(payload, dict) and "aps" in payload else "PayloadEmpty"

    def _check_device(self, device: str) -> str | None:
        if not re.fullmatch(r"(?:[0-9a-f]{2}){32,100}", device, re.IGNORECASE):
            return "BadDeviceToken"
        return "Unregistered" if device in self.settings["unregistered"] else None


def _b64decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class _Connection(asyncio.Protocol):
    """One connection of a provider."""

    transport: Any

    def __init__(self, server: APNs) -> None:
        self.server = server
        self.loop = asyncio.get_running_loop()
        config = H2Configuration(client_side=False, header_encoding="utf-8")
        self._h2 = H2Connection(config=config)
        self._streams: dict[int, tuple[list[tuple[str, str]], list[bytes]]] = {}
        self._open: set[int] = set()
        self._last_processed: int | None = None
        self._trusted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.connections.add(self)
        self.server.accepted += 1
        self.number = self.server.accepted
        self.has_certificate = bool(transport.get_extra_info("peercert"))
        self._trusted = self.has_certificate
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: self._limit(),
            SettingCodes.INITIAL_WINDOW_SIZE: self.server.settings["initial_window_size"],
        }
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        self._h2.initiate_connection()
        self._flush()

    def _limit(self) -> int:
        """Apple allows one stream until a valid provider token has come."""
        limit: int = self.server.settings["max_concurrent_streams"]
        return limit if self._trusted else min(1, limit)

    def announce_limit(self) -> None:
        """Tell the provider the present limit."""
        try:
            self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self._limit()})
            self._flush()
        except H2Error:
            pass  # it is closing

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except ProtocolError as error:
            self.server.protocol_errors.append(f"{type(error).__name__}: {error}")
            self._flush()
            self.transport.close()
            return
        for event in events:
            if isinstance(event, RequestReceived):
                pairs: Any = event.headers  # texts, as the configuration says
                self._streams[event.stream_id] = (list(pairs), [])
                self._open.add(event.stream_id)
            elif isinstance(event, DataReceived):
                if event.stream_id in self._streams:
                    self._streams[event.stream_id][1].append(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self._request(event.stream_id, *self._streams.pop(event.stream_id))
            elif isinstance(event, StreamReset):
                self._streams.pop(event.stream_id, None)
                self._ended(event.stream_id)
            elif isinstance(event, ConnectionTerminated):
                self._flush()
                self.transport.close()
                return
        self._flush()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    # ---- one request

    def _request(self, stream_id: int, pairs: list[tuple[str, str]], chunks: list[bytes]) -> None:
        if self._last_processed is not None and stream_id > self._last_processed:
            return  # after our GOAWAY
        headers, body = dict(pairs), b"".join(chunks)
        duplicate = len(headers) != len(pairs)
        reason = self.server.refuse(headers, body, self.has_certificate, duplicate)
        self.server.script.saw(self._describe(stream_id, headers, body, reason))
        if not self._trusted and reason not in (
            "MissingProviderToken",
            "InvalidProviderToken",
            "ExpiredProviderToken",
        ):
            self._trusted = True
            self.announce_limit()
        answer = self.server.script.next() or Answer()
        act = partial(self._act, stream_id, headers, reason, answer)
        if answer.held:
            answer.gate.pass_through(partial(self.loop.call_soon_threadsafe, act))
        elif answer.delay:
            self.loop.call_later(answer.delay, act)
        else:
            act()

    def _describe(
        self, stream_id: int, headers: dict[str, str], body: bytes, reason: str | None
    ) -> dict[str, Any]:
        try:
            payload = json.loads(body)
        except ValueError:
            payload = None
        return {
            "connection": self.number,
            "stream": stream_id,
            "open_streams": len(self._open),
            "certificate": self.has_certificate,
            "path": headers.get(":path"),
            "headers": {name: headers[name] for name in headers if not name.startswith(":")},
            "payload": payload,
            "size": len(body),
            "reason": reason,
        }

    def _act(
        self, stream_id: int, headers: dict[str, str], reason: str | None, answer: Answer
    ) -> None:
        if stream_id not in self._open or self.transport.is_closing():
            return
        action = answer.action
        if action is None:
            self._reply(stream_id, headers, reason, answer)
        elif action == "rst_stream":
            code = ErrorCodes[answer.more.get("code", "REFUSED_STREAM")]
            self._h2.reset_stream(stream_id, code)
            self._ended(stream_id)
        elif action in ("goaway", "goaway_after"):
            self._go_away(stream_id, headers, reason, answer)
        elif action == "close_mid_body":
            self._h2.send_headers(stream_id, [(":status", "400"), ("content-length", "100")])
            self._h2.send_data(stream_id, b'{"reason": "Bad')
            self._flush()
            self.transport.close()
        elif action == "garbage":
            self._flush()
            self.transport.write(GARBAGE)
        elif action == "freeze":
            self.transport.pause_reading()
        elif action == "reset":
            self.transport.abort()
        elif action == "close":
            self.transport.close()
        self._flush()

    def _go_away(
        self, stream_id: int, headers: dict[str, str], reason: str | None, answer: Answer
    ) -> None:
        """h2 would end the connection at once; a frame of our own doesn't."""
        answered = answer.action == "goaway_after"
        frame = GoAwayFrame(0)
        self._last_processed = frame.last_stream_id = stream_id if answered else stream_id - 2
        frame.last_stream_id = max(frame.last_stream_id, 0)
        frame.error_code = ErrorCodes[answer.more.get("code", "NO_ERROR")]
        self._flush()
        self.transport.write(frame.serialize())
        if answered:
            self._reply(stream_id, headers, reason, answer)
        for number in [one for one in self._open if one > self._last_processed]:
            self._ended(number)
        self._ended(0)

    def _reply(
        self, stream_id: int, headers: dict[str, str], reason: str | None, answer: Answer
    ) -> None:
        scripted = answer.more.get("reason")
        reason = scripted or (reason if answer.status is None else None)
        status = answer.status or (STATUS.get(reason, 400) if reason else 200)
        body = b""
        if answer.body is not None:
            body = answer.body.encode()
        elif answer.json is not None:
            body = json.dumps(answer.json).encode()
        elif reason:
            content: dict[str, Any] = {"reason": reason}
            if status == 410:
                content["timestamp"] = answer.more.get("timestamp", int(time.time() * 1000))
            body = json.dumps(content).encode()
        pairs = [
            (":status", str(status)),
            ("apns-id", headers.get("apns-id") or str(uuid.uuid4()).upper()),
            *((name.lower(), value) for name, value in answer.headers.items()),
        ]
        if body:
            pairs.append(("content-type", "application/json"))
        self._h2.send_headers(stream_id, pairs, end_stream=not body)
        self._send(stream_id, body)
        self._ended(stream_id)
        self._flush()

    def _send(self, stream_id: int, body: bytes) -> None:
        """Send as much of a body as fits into the provider's windows; the rest is lost."""
        while body:
            size = min(
                self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size
            )
            if size <= 0:
                self._h2.reset_stream(stream_id, ErrorCodes.FLOW_CONTROL_ERROR)
                return
            chunk, body = body[:size], body[size:]
            self._h2.send_data(stream_id, chunk, end_stream=not body)

    def _ended(self, stream_id: int) -> None:
        self._open.discard(stream_id)
        if self._last_processed is not None and not self._open:
            self._flush()
            self.transport.close()
