"""Parameter headers of the Web Push encryption drafts: ``Crypto-Key`` and its like.

Syntax (spec/http-endpoint 5.6): groups separated by ``,``, parameters of a group by ``;``, each
``name=value``. ``Encryption`` and ``Encryption-Key`` are written the same way. Nothing between two
separators, or behind the last, is nothing (RFC 9110 5.6.1): some libraries end their lists so.
"""

from __future__ import annotations


class CryptoKeyException(Exception):
    """The header can't be parsed."""

    def __init__(self, message: str = "Invalid Crypto Key value") -> None:
        super().__init__(message)


class CryptoKey:
    """A parsed header.

    :param header: the header's text
    :raises CryptoKeyException: a parameter has no ``=``, or there is none
    """

    __slots__ = ("_values",)

    def __init__(self, header: str) -> None:
        groups = [_parse_group(group) for group in header.split(",")]
        self._values = [group for group in groups if group]
        if not self._values:
            raise CryptoKeyException

    def get_keyid(self, keyid: str) -> dict[str, str] | None:
        """Return the first group with this ``keyid``."""
        for group in self._values:
            if group.get("keyid") == keyid:
                return group
        return None

    def get_label(self, label: str) -> str | None:
        """Return the value of a parameter in the first group that has it."""
        for group in self._values:
            if label in group:
                return group[label]
        return None

    @classmethod
    def parse_and_get_label(cls, header: str, label: str) -> str | None:
        """Return :meth:`get_label` of the header, None also if that is malformed."""
        try:
            return cls(header).get_label(label)
        except CryptoKeyException:
            return None

    def to_string(self) -> str:
        """Return the header in normal form: every value in double quotes, no blanks."""
        return ",".join(
            ";".join(f'{name}="{value}"' for name, value in group.items()) for group in self._values
        )


def _parse_group(text: str) -> dict[str, str]:
    """Parse ``name=value;name=value``; a repeated name keeps its last value."""
    group: dict[str, str] = {}
    for parameter in text.split(";"):
        name, equals, value = parameter.partition("=")
        if not equals:
            if not parameter.strip():
                continue
            raise CryptoKeyException
        group[name.strip()] = value.strip(' "')
    return group
