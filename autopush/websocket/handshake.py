"""Where the opening handshake of today's Autobahn differs from spec/websocket 2.2."""

from __future__ import annotations

import re

EXTENSIONS = re.compile(rb"\r\nsec-websocket-extensions:([^\r\n]*)", re.IGNORECASE)

REASON_TEXTS = (
    (re.compile(r'\(case-insensitive\): "(.*)"$'), r"(case-insensitive) : \1"),
    (re.compile('"'), "'"),
)
"""From the library's reason phrases to the documented ones: pattern, replacement."""


def normalize_head(head: bytes) -> bytes:
    """Make of a request what Autobahn accepts.

    HTTP/1.0 is taken as 1.1, and repeated ``Sec-WebSocket-Extensions`` are joined (RFC 6455 9.1).

    :param head: request line and headers, up to and including the empty line
    """
    line, _, rest = head.partition(b"\r\n")
    if line.endswith(b" HTTP/1.0"):
        head = line[:-1] + b"1\r\n" + rest
    if head.lower().count(b"\r\nsec-websocket-extensions:") > 1:
        offers: list[bytes] = EXTENSIONS.findall(head)
        joined = b"Sec-WebSocket-Extensions: " + b", ".join(map(bytes.strip, offers))
        head = EXTENSIONS.sub(b"", head)[:-4] + b"\r\n" + joined + b"\r\n\r\n"
    return head
