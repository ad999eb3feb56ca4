"""How long a line of the log may be: whatever is sent, one request fills no disk.

What is short enough is written as it is. Of what isn't, the longest texts are cut, and end in
``...[+N]``, N characters that are missing.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii
from typing import Any

from autopush.types import JSONDict

MAX_LINE = 2048
"""Bytes of a line, without the traceback of a failure. An event of a request has some 700; the
rest is room for a long URL or ``User-Agent``, which nobody needs longer to know whose it is. At the
levels that are written by default a request has one event."""

MAX_TRACEBACK = 8192
"""Bytes of a traceback: that of a deep recursion, or of a long text in an exception, is cut in its
middle. It tells where it began and what it was."""

CUTS = ((256, 768), (96, 384), (32, 192), (8, 96))
"""Bytes that texts, and the event's own, are cut to: the first pair that is enough."""

MAX_NAME = 64
"""Bytes of a field's name: claims of VAPID tokens have names of their senders' choice."""

KEPT = frozenset(("log_level", "message"))
"""Fields that a line has in any case."""


def size(text: str) -> int:
    """Return the bytes of a text in a line of ASCII JSON."""
    return len(encode_basestring_ascii(text)) - 2


def cut(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` bytes in a line, and a mark if it was longer."""
    if size(text) <= limit:
        return text
    kept = text[:limit]
    while size(kept) > limit:
        kept = kept[: len(kept) * limit // size(kept)]
    return f"{kept}...[+{len(text) - len(kept)}]"


def cut_middle(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` bytes and a mark, by leaving out what is in its middle."""
    if size(text) <= limit:
        return text
    head = cut(text, limit // 2)
    tail = text[::-1][: limit // 2]
    while size(tail) > limit // 2:
        tail = tail[: len(tail) * (limit // 2) // size(tail)]
    return f"{head}\n{tail[::-1]}"


def cut_fields(fields: JSONDict, limit: int) -> JSONDict:
    """Return fields of at most ``limit`` bytes: texts are cut, and if there are too many, some left
    out. A traceback has a length of its own."""
    result: JSONDict = {}
    for most, most_text in CUTS:
        result = {
            cut(name, MAX_NAME): _cut_value(value, most_text if name == "message" else most)
            for name, value in fields.items()
            if name != "traceback"
        }
        if fields_size(result) <= limit:
            break
    for name in reversed([name for name in result if name not in KEPT]):
        if fields_size(result) <= limit:
            break
        del result[name]
    if "traceback" in fields:
        result["traceback"] = fields["traceback"]
    return result


def _cut_value(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return cut(value, limit)
    text = repr(value)
    return value if size(text) <= limit else cut(text, limit)


def fields_size(fields: JSONDict) -> int:
    """Return the bytes of fields in a line, names and punctuation included; at least that many."""
    return sum(
        size(name) + size(value if isinstance(value, str) else repr(value)) + 6
        for name, value in fields.items()
    )


def cut_line(line: str, limit: int) -> str:
    """Return a line for people of at most ``limit`` bytes of UTF-8, the mark included."""
    data = line.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return line
    kept = data[: limit - 24].decode("utf-8", "ignore")
    return f"{kept}...[+{len(line) - len(kept)}]\n"
