"""Who is at the other end: the User-Agent header, parsed once per distinct text."""

from __future__ import annotations

from functools import lru_cache

from autopush.useragent import parse_user_agent

MAX_PARSED = 512
"""Characters of the header that are looked at: parsing takes time with every one of them, and
browsers send about a hundred."""

CACHED = 1024
"""Distinct headers remembered; real traffic has a few hundred."""

_NO_INFO = {
    "ua_os_family": "",
    "ua_os_ver": "",
    "ua_browser_family": "",
    "ua_browser_ver": "",
}


class UserAgent:
    """A User-Agent header and what it says (spec/websocket 16). Shared by many sessions."""

    __slots__ = ("_parsed", "header")

    def __init__(self, header: str | None) -> None:
        self.header = header
        self._parsed: tuple[dict[str, str], dict[str, str]] | None = None

    @property
    def text(self) -> str:
        """The header, or the text ``None``."""
        return str(self.header)

    @property
    def tags(self) -> dict[str, str]:
        """``ua_os_family`` and ``ua_browser_family``, limited to a few values; else empty."""
        return self._parse()[0]

    @property
    def info(self) -> dict[str, str]:
        """Family and version of system and browser, all empty texts without a header."""
        return self._parse()[1]

    def _parse(self) -> tuple[dict[str, str], dict[str, str]]:
        # Lazily: parsing a new header takes a millisecond, and most sessions never log.
        if self._parsed is None:
            if self.header:
                self._parsed = parse_user_agent(self.header[:MAX_PARSED])
            else:
                self._parsed = {}, _NO_INFO
        return self._parsed


@lru_cache(maxsize=CACHED)
def user_agent(header: str | None) -> UserAgent:
    """The shared object of a header."""
    return UserAgent(header)


@lru_cache(maxsize=CACHED)
def shared_host(host: str) -> str:
    """One object for equal texts: all sessions of a node name the same few hosts."""
    return host
