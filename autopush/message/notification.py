"""A Web Push message on its way from the sender to the user agent.

Source: spec/python-api 2.8, spec/http-endpoint 5.7 and 7.1, spec/storage 3.2 and 4,
spec/websocket 5.6 and 19. Pure values: nothing here reads or writes anything but the clock.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from uuid import UUID

import attrs

from autopush import clock
from autopush.clock import ns_time
from autopush.exceptions import InvalidRequest, InvalidTokenException
from autopush.message.encoding import AnyFernet, base64url_encode, decrypt
from autopush.message.urgency import NORMAL, stored, to_store
from autopush.types import JSONDict

TOPIC = "01"
TIMESTAMPED = "02"
LEGACY = "00"
"""Kinds of message, as ``api_ver`` of :meth:`WebPushNotification.parse_sort_key`. The first two
are also the prefixes of sort keys and of opened message ids."""

LEGACY_ID = "m"
"""Prefix of opened legacy message ids."""

STRIP_PADDING = re.compile(r"=+(?=[,;]|$)")
"""The base64 padding in a parameter header."""

CLEANED_HEADERS = ("encryption", "crypto-key", "encryption-key")
"""Headers that go along with a message, under names with ``_``."""

VALID_TOPIC = re.compile(r"[0-9A-Za-z_=-]{1,32}")
"""What endpoints let through; anything else might make a sort key nobody can read."""

SELF_CONTAINED = "aes128gcm"
"""The encoding whose salt and key are part of the body (RFC 8188 2.1): no header tells more."""

NEEDED = {
    "encryption": ("salt", frozenset({"keyid", "salt", "rs"})),
    "crypto-key": ("dh", frozenset({"keyid", "dh"})),
    "encryption-key": ("dh", frozenset({"keyid", "dh"})),
}
"""What decryption needs of each header: the parameter that makes a group worth keeping, and those
kept of it. A sender's own key (``p256ecdsa``), for one, is nothing to the user agent."""

MAX_HEADERS = 1024
"""Bytes kept of the headers about a message's encryption; two P-256 keys and a salt have 200. They
are stored beside the body, so without a limit they would be the way to fill a disk."""

MAX_SECONDS = 2**53
"""Seconds; larger numbers from another node are ignored: no store could keep them."""

CACHED_CHANNELS = 256
"""Channels remembered whose messages were read from storage: what waits for a user agent is mostly
for a few of them, and each is spelled several times on its way to the wire."""

CACHED_HEADERS = 1024
"""Combinations of them remembered: without a salt (RFC 8291) a sender repeats a few."""

MAX_CACHED_LENGTH = 512
"""Characters of those; a P-256 key has 87."""


class Id(UUID):
    """A UUID whose spellings are made once, not each time they are asked for.

    :param hex: 32 lower-case hex digits
    """

    __slots__ = ("hex", "text")
    hex: str
    text: str
    """With dashes."""

    def __init__(self, hex: str) -> None:
        super().__init__(hex)
        spell = object.__setattr__  # UUIDs can't be changed
        spell(self, "hex", hex)
        spell(self, "text", super().__str__())

    def __str__(self) -> str:
        return self.text


@attrs.define
class WebPushNotification:
    """One message.

    ``uaid`` and ``channel_id`` say for whom it is. ``ttl`` is in seconds, None if the sender gave
    none. ``data`` is the encrypted payload as unpadded base64url, ``headers`` say how it is
    encrypted. ``timestamp`` (Unix seconds) is when it was accepted. ``sortkey_timestamp``
    (microseconds) orders messages without ``topic``; it is set when first needed. ``source`` is
    ``Direct`` or ``Stored``. ``live``: accepted while its user agent was connected, so it is no
    backlog of one that stays away (``msg_limit``). ``message_id`` is the version given to the user
    agent, ``update_id`` the one in storage. ``legacy`` marks the kind of before 2017, which is
    still read. ``urgency`` is a level of :mod:`autopush.message.urgency`.
    """

    uaid: UUID
    channel_id: UUID
    ttl: int | None
    data: str | None = None
    headers: dict[str, str] | None = None
    timestamp: int = attrs.field(factory=lambda: int(clock.now()))
    sortkey_timestamp: int | None = None
    topic: str | None = None
    source: str = "Direct"
    message_id: str | None = None
    update_id: str | None = None
    legacy: bool = False
    live: bool = False
    urgency: int = NORMAL

    # ------------------------------------------------------------------------------ message id

    def generate_message_id(self, fernet: AnyFernet) -> str:
        """Seal what is needed to find the message again, and use it as its id from now on."""
        if self.topic:
            text = f"{TOPIC}:{self.uaid.hex}:{self.channel_id.hex}:{self.topic}"
        elif self.legacy:
            text = f"{LEGACY_ID}:{self.uaid.hex}:{self.channel_id.hex}"
        else:
            timestamp = self.order()
            text = f"{TIMESTAMPED}:{self.uaid.hex}:{self.channel_id.hex}:{timestamp}"
        self.message_id = self.update_id = fernet.encrypt(text.encode()).decode("ascii")
        return self.message_id

    def order(self) -> int:
        """Return the sort-key timestamp (µs), which is now if there was none so far."""
        if self.sortkey_timestamp is None:
            self.sortkey_timestamp = ns_time()
        return self.sortkey_timestamp

    @staticmethod
    def parse_decrypted_message_id(decrypted_token: str) -> JSONDict:
        """Take an opened message id apart.

        :returns: ``uaid`` and ``chid`` (hex), ``topic``, ``sortkey_timestamp``; None where the
            kind of message has none
        :raises InvalidTokenException: not the text of a message id
        """
        kind, *parts = decrypted_token.split(":")
        topic, timestamp = None, None
        if kind in (TOPIC, TIMESTAMPED):
            if len(parts) != 3:
                raise InvalidTokenException("Incorrect number of token parts.")
            if kind == TOPIC:
                topic = parts[2]
            else:
                timestamp = _digits(parts[2], InvalidTokenException)
        elif len(parts) != 2:
            raise InvalidTokenException("Incorrect number of token parts.")
        elif kind != LEGACY_ID:
            raise InvalidTokenException("Incorrect token kind.")
        return {
            "uaid": parts[0],
            "chid": parts[1],
            "topic": topic,
            "sortkey_timestamp": timestamp,
        }

    @classmethod
    def from_message_id(cls, message_id: str, fernet: AnyFernet) -> WebPushNotification:
        """Return as much of a message as its id tells: enough to delete it.

        :param message_id: with its padding
        :raises cryptography.fernet.InvalidToken: not our token
        :raises InvalidTokenException: ours, but not of a message
        """
        try:
            text = decrypt(fernet, message_id).decode()
            parts = cls.parse_decrypted_message_id(text)
            uaid, chid = UUID(hex=parts["uaid"]), UUID(hex=parts["chid"])
        except ValueError as exc:
            raise InvalidTokenException("Incorrect id in token.") from exc
        return cls(
            uaid=uaid,
            channel_id=chid,
            ttl=None,
            topic=parts["topic"],
            sortkey_timestamp=parts["sortkey_timestamp"],
            message_id=message_id,
            update_id=message_id,
            legacy=parts["topic"] is None and parts["sortkey_timestamp"] is None,
        )

    @property
    def location(self) -> str | None:
        """Last part of the message's URL."""
        return self.message_id

    @property
    def version(self) -> str | None:
        """What the user agent calls the message in its acknowledgement."""
        return self.message_id

    # --------------------------------------------------------------------------------- storage

    @property
    def sort_key(self) -> str:
        """Key of the message among those of its user (spec/storage 4)."""
        if self.topic:
            return f"{TOPIC}:{self.channel_id}:{self.topic}"
        if self.legacy:
            return f"{self.channel_id}:{self.message_id}"
        return f"{TIMESTAMPED}:{self.sortkey_timestamp or self.order()}:{self.channel_id}"

    @staticmethod
    def parse_sort_key(sort_key: str) -> JSONDict:
        """Take a sort key apart.

        :returns: ``api_ver`` (``01`` topic, ``02`` timestamped, ``00`` legacy), ``channel_id``
            (dashed), ``topic``, ``message_id``, ``sortkey_timestamp``; None where the kind has none
        :raises ValueError: not a sort key
        """
        parts = sort_key.split(":")
        topic, message_id, timestamp = None, None, None
        if parts[0] in (TOPIC, TIMESTAMPED) and len(parts) == 3:
            api_ver = parts[0]
            if api_ver == TOPIC:
                _, chid, topic = parts
            else:
                _, digits, chid = parts
                timestamp = _digits(digits, ValueError)
        elif parts[0] not in (TOPIC, TIMESTAMPED) and len(parts) == 2:
            api_ver = LEGACY
            chid, message_id = parts
        else:
            raise ValueError("Incorrect number of sort key parts.")
        return {
            "api_ver": api_ver,
            "channel_id": chid,
            "topic": topic,
            "message_id": message_id,
            "sortkey_timestamp": timestamp,
        }

    @classmethod
    def from_message_table(cls, uaid: UUID | str, item: JSONDict) -> WebPushNotification:
        """Return the message in a storage row (spec/storage 3.2).

        :param item: ``chidmessageid``, ``timestamp`` and, but for legacy rows, ``updateid``;
            optional ``ttl``, ``data``, ``headers``, ``live``, ``urgency``. Numbers may be of any
            numeric type.
        :raises ValueError: the row is no message
        """
        try:
            key = cls.parse_sort_key(item["chidmessageid"])
            legacy = key["api_ver"] == LEGACY
            update_id = item.get("updateid") if legacy else item["updateid"]
            return cls(
                uaid=_uuid(uaid),
                channel_id=_channel(key["channel_id"]),
                data=item.get("data"),
                headers=item.get("headers"),
                ttl=int(item.get("ttl") or 0),
                topic=key["topic"],
                message_id=key["message_id"] if legacy else update_id,
                update_id=update_id,
                timestamp=int(item["timestamp"]),
                sortkey_timestamp=key["sortkey_timestamp"],
                source="Stored",
                legacy=legacy,
                live=bool(item.get("live")),
                urgency=stored(item.get("urgency")),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as exc:
            raise ValueError("not a message row") from exc

    # --------------------------------------------------------------------------------- content

    @property
    def data_length(self) -> int:
        """Characters of ``data``: the size that counts everywhere."""
        return len(self.data) if self.data else 0

    def expired(self, at_time: float | None = None) -> bool:
        """Tell whether it is too late to deliver.

        :param at_time: Unix seconds; None: now
        """
        now = clock.now() if at_time is None else at_time
        return now >= (self.ttl or 0) + self.timestamp

    def cleanup_headers(self) -> None:
        """Reduce the request's headers to what the user agent needs (spec/http-endpoint 5.7).

        Afterwards they are ``encoding`` and, where sent and :data:`NEEDED` for decryption,
        ``encryption``, ``encryption_key``, ``crypto_key``: nothing else of a message encrypted as
        RFC 8291 has it. Quotes and base64 padding are removed, but not in ``encryption_key``
        (quirk Q11).

        :raises InvalidRequest: 400, errno 110: characters outside ASCII (quirk Q12), or more than
            :data:`MAX_HEADERS`
        """
        sent = self.headers or {}
        if sent["content-encoding"] == SELF_CONTAINED:
            self.headers = {"encoding": SELF_CONTAINED}
            return
        values = [sent.get(name) for name in CLEANED_HEADERS]
        clean = _clean_cached if worth_caching(*values) else _clean
        self.headers = dict(clean(sent["content-encoding"], *values))

    @classmethod
    def from_webpush_request_schema(
        cls, data: JSONDict, fernet: AnyFernet, legacy: bool = False
    ) -> WebPushNotification:
        """Return the message of a validated request, with a new message id.

        :param data: ``subscription`` with ``uaid`` and ``chid`` (any UUID spelling); ``headers``
            by lower-case name, with ``ttl`` (int or None), ``topic``, and perhaps ``urgency`` (a
            level); ``body`` as bytes, or already as base64url text
        :raises InvalidRequest: see :meth:`cleanup_headers`
        """
        subscription, headers, body = data["subscription"], data["headers"], data["body"]
        notification = cls(
            uaid=_uuid(subscription["uaid"]),
            channel_id=_uuid(subscription["chid"]),
            data=(base64url_encode(body) if isinstance(body, bytes) else body) or None,
            headers=headers,
            ttl=headers["ttl"],
            topic=headers["topic"],
            legacy=legacy,
            urgency=headers.get("urgency", NORMAL),
        )
        if notification.data:
            notification.cleanup_headers()
        else:
            notification.headers = None
        notification.generate_message_id(fernet)
        return notification

    # ------------------------------------------------------------------------------- wire forms

    def serialize(self) -> JSONDict:
        """Return the body of ``PUT /push`` between nodes (spec/websocket 19)."""
        payload: JSONDict = {
            "channelID": str(self.channel_id),
            "version": self.message_id,
            "ttl": self.ttl,
            "topic": self.topic,
            "timestamp": self.timestamp,
        }
        if self.data:
            payload["data"] = self.data
            payload["headers"] = self.headers
        if self.urgency != NORMAL:
            payload["urgency"] = to_store(self.urgency)
        return payload

    @classmethod
    def from_serialized(cls, uaid: UUID | str, data: JSONDict) -> WebPushNotification:
        """Return the message in the body of ``PUT /push``.

        Only what nothing can be sent without is refused (spec/websocket 19). Other members that are
        not of their type are converted, or else ignored: whatever a peer writes into them must
        neither keep the message from its user agent nor get into storage.

        :raises ValueError: ``channelID`` or ``version`` is missing or invalid, or there is data
            that is no text or has no header map
        """
        chid = data.get("channelID")
        if not isinstance(chid, str) or "version" not in data:
            raise ValueError("no channelID or no version")
        payload, headers = data.get("data") or None, data.get("headers")
        if payload and not (isinstance(payload, str) and isinstance(headers, dict)):
            raise ValueError("data is no text or has no headers")
        timestamp = _seconds(data.get("timestamp"))
        version = str(data["version"])
        return cls(
            uaid=_uuid(uaid),
            channel_id=UUID(chid),
            ttl=_seconds(data.get("ttl")),
            data=payload,
            headers=_texts(headers or {}) if payload else None,
            timestamp=int(clock.now()) if timestamp is None else timestamp,
            topic=_topic(data.get("topic")),
            message_id=version,
            update_id=version,
            urgency=stored(data.get("urgency")),
        )

    def websocket_format(self) -> JSONDict:
        """Return the frame for the user agent (spec/websocket 5.6)."""
        frame: JSONDict = {
            "messageType": "notification",
            "channelID": str(self.channel_id),
            "version": self.message_id,
        }
        if self.data:
            headers = self.headers or {}
            frame["data"] = self.data
            frame["headers"] = {name.replace("-", "_"): headers[name] for name in headers}
        return frame


@lru_cache(CACHED_CHANNELS)
def _channel(text: str) -> Id:
    return Id(UUID(text).hex)


def _seconds(value: Any) -> int | None:
    """Return a number of seconds sent by another node; None if it can't be one."""
    if value is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= MAX_SECONDS else None


def _topic(value: Any) -> str | None:
    """Return a topic sent by another node; None if it can't be one."""
    topic = str(value) if type(value) is int else value
    return topic if isinstance(topic, str) and VALID_TOPIC.fullmatch(topic) else None


def _texts(headers: dict[str, Any]) -> dict[str, str]:
    """Return the headers that have the type of one."""
    return {name: text for name, text in headers.items() if isinstance(text, str)}


def worth_caching(
    encryption: str | None, crypto_key: str | None, encryption_key: str | None
) -> bool:
    """Tell whether headers like these are likely to come again."""
    return not encryption and len(crypto_key or "") + len(encryption_key or "") < MAX_CACHED_LENGTH


def _clean(
    encoding: str, encryption: str | None, crypto_key: str | None, encryption_key: str | None
) -> dict[str, str]:
    headers = {"encoding": encoding}
    for name, value in (("encryption", encryption), ("crypto-key", crypto_key)):
        if value:
            if not value.isascii():
                raise InvalidRequest(f"Invalid characters in {name} header", errno=110)
            kept = _needed(name, STRIP_PADDING.sub("", value.replace('"', "")))
            if kept:
                headers[name.replace("-", "_")] = kept
    kept = _needed("encryption-key", encryption_key or "")
    if kept:
        headers["encryption_key"] = kept
    if sum(map(len, headers.values())) - len(encoding) > MAX_HEADERS:
        raise InvalidRequest(
            "Encryption, Crypto-Key and Encryption-Key must not be longer than"
            f" {MAX_HEADERS} bytes together",
            errno=110,
        )
    return headers


def _needed(name: str, header: str) -> str:
    """Return what decryption needs of a header, spelled as it is there."""
    mark, names = NEEDED[name]
    groups = []
    for group in header.split(","):
        parameters = [(text.partition("=")[0].strip(), text) for text in group.split(";")]
        kept = [text for name, text in parameters if name in names]
        if mark in dict(parameters) and kept:
            groups.append(";".join(kept))
    return ",".join(groups).strip()


_clean_cached = lru_cache(CACHED_HEADERS)(_clean)


def _uuid(value: UUID | str) -> UUID:
    """:raises ValueError: not a UUID in any spelling."""
    return value if isinstance(value, UUID) else UUID(value)


def _digits(text: str, error: type[Exception]) -> int:
    """Return a whole number; ``int()`` alone would take signs, blanks and underscores."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise error("Incorrect timestamp.")
    return int(text)
