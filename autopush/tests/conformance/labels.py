"""The labels of the recorded cases: templates such as ``{endpoint}/m/<msg1>``.

In a request a label stands for a value we know or make; in an answer it binds on first sight. The
same label is the same value everywhere in a case, different labels are different values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

HEX32 = r"[0-9a-f]{32}"
DASHED = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
FERNET = r"[A-Za-z0-9_-]+"

PATTERNS = {
    "uaid": HEX32,
    "newuaid": HEX32,
    "httpuaid": HEX32,
    "hex32": HEX32,
    "chid": f"{DASHED}|{HEX32}",
    "channelID": f"{DASHED}|{HEX32}",
    "httpchid": HEX32,
    "uuid": DASHED,
    "hex64": "[0-9a-f]{64}",
    "secret": "[0-9a-f]{64}",
    "token": FERNET,
}
"""What a value of a label looks like."""

LABEL = re.compile(r"<([A-Za-z0-9:]+)>|\{(endpoint|ws|router)\}")


class Mismatch(AssertionError):
    """An answer differs from the recorded one."""


def pattern_of(label: str) -> str:
    """The regular expression of a label's values."""
    if label.startswith("fernet:"):
        return f"[A-Za-z0-9_-]{{{label.removeprefix('fernet:')}}}"
    if re.fullmatch(r"msg\d+", label):
        return f"{FERNET}=*"
    return PATTERNS[label]


def dashed(text: str) -> str:
    """The dashed form of a UUID."""
    digits = text.replace("-", "")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class Labels:
    """The values of a case's labels.

    :param make: returns the value of a label that a request uses and nobody has bound
    :param addresses: values of ``{endpoint}``, ``{ws}`` and ``{router}``
    """

    def __init__(self, make: Callable[[str], str], addresses: dict[str, str]) -> None:
        self._make = make
        self._addresses = addresses
        self.values: dict[str, str] = {}

    def fill(self, template: Any) -> Any:
        """Return a request with its labels replaced; works on any JSON value."""
        if isinstance(template, str):
            return LABEL.sub(lambda found: self._value(found[1], found[2]), template)
        if isinstance(template, list):
            return [self.fill(item) for item in template]
        if isinstance(template, dict):
            return {key: self.fill(value) for key, value in template.items()}
        return template

    def _value(self, label: str | None, address: str | None) -> str:
        if label is None:
            assert address is not None
            return self._addresses[address]
        if label == "chid:dashed":
            return dashed(self.values["chid"])
        if label not in self.values:
            self.values[label] = self._make(label)
        return self.values[label]

    def match(self, template: Any, actual: Any, where: str = "") -> None:
        """Compare an answer with its recording.

        :raises Mismatch: they differ
        """
        if isinstance(template, str) and isinstance(actual, str):
            self._match_text(template, actual, where)
        elif isinstance(template, dict) and isinstance(actual, dict):
            if set(template) != set(actual):
                raise Mismatch(f"{where}: {actual!r}, recorded {template!r}")
            for key, value in template.items():
                self.match(value, actual[key], f"{where}.{key}")
        elif isinstance(template, list) and isinstance(actual, list):
            if len(template) != len(actual):
                raise Mismatch(f"{where}: {actual!r}, recorded {template!r}")
            for number, (one, other) in enumerate(zip(template, actual, strict=True)):
                self.match(one, other, f"{where}[{number}]")
        elif type(template) is not type(actual) or template != actual:
            raise Mismatch(f"{where}: {actual!r}, recorded {template!r}")

    def _match_text(self, template: str, actual: str, where: str) -> None:
        names: list[str] = []
        expression, end = "", 0
        for found in LABEL.finditer(template):
            expression += re.escape(template[end : found.start()])
            end = found.end()
            label = found[1]
            if label is None or label in self.values or label == "chid:dashed":
                expression += re.escape(self._value(label, found[2]))
            else:
                expression += f"({pattern_of(label)})"
                names.append(label)
        matched = re.fullmatch(expression + re.escape(template[end:]), actual)
        if matched is None:
            raise Mismatch(f"{where}: {actual!r}, recorded {template!r} ({self.values})")
        for label, value in zip(names, matched.groups(), strict=True):
            if value in self.values.values():
                raise Mismatch(f"{where}: <{label}> is not new: {value!r} ({self.values})")
            self.values[label] = value
