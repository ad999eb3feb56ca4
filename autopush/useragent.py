"""What a ``User-Agent`` header says (spec/websocket 16)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ua_parser import Parser

VALID_UA_BROWSER = ("Chrome", "Firefox", "Safari", "Opera")
VALID_UA_OS = ("Firefox OS", "Linux", "Mac OS X")

MAX_PARSED = 512
"""Characters looked at: some hundred expressions are searched in them, 4 us per character in all,
and real headers have 60 to 250."""

CACHED_AGENTS = 1024
"""Distinct headers remembered: real traffic has a few hundred, and parsing a new one takes about
1 ms."""

_NO_INFO = {
    "ua_os_family": "",
    "ua_os_ver": "",
    "ua_browser_family": "",
    "ua_browser_ver": "",
}


class UserAgent:
    """A User-Agent header and what it says. Shared by all who brought it.

    :param header: None: there is none
    """

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
        return self.parsed()[0] if self.header else {}

    @property
    def info(self) -> dict[str, str]:
        """Family and version of system and browser, all empty texts without a header."""
        return self.parsed()[1] if self.header else _NO_INFO

    def parsed(self) -> tuple[dict[str, str], dict[str, str]]:
        """What the header says, an empty one, too; see :func:`parse_user_agent`."""
        # Lazily: most sessions never log.
        if self._parsed is None:
            self._parsed = _parse((self.header or "")[:MAX_PARSED])
        return self._parsed


@lru_cache(maxsize=CACHED_AGENTS)
def user_agent(header: str | None) -> UserAgent:
    """The shared object of a header."""
    return UserAgent(header)


@lru_cache(maxsize=1)
def _parser() -> Parser:
    # Imported and built on first use: it takes 0.25 s and 8 MB, which small commands don't need.
    from ua_parser import Parser
    from ua_parser.basic import Resolver
    from ua_parser.loaders import load_builtins

    return Parser(Resolver(load_builtins()))


def preload() -> None:
    """Load the database now instead of with the first header that is parsed."""
    _parser()


def parse_user_agent(agent_string: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return system and browser named by a header.

    :returns: few values fit for metrics tags (``ua_os_family``, ``ua_browser_family``), and all
        there is (also ``ua_os_ver``, ``ua_browser_ver``). The dicts are the caller's own.
    """
    tags, info = user_agent(agent_string).parsed()
    return dict(tags), dict(info)


def _parse(header: str) -> tuple[dict[str, str], dict[str, str]]:
    system = _parser().parse_os(header)
    browser = _parser().parse_user_agent(header)
    os_family = system.family if system else "Other"
    browser_family = browser.family if browser else "Other"
    os_version: list[str | None] = []
    if system:
        os_version = [system.major, system.minor, system.patch, system.patch_minor]
    browser_version: list[str | None] = []
    if browser:
        browser_version = [browser.major, browser.minor, browser.patch]
    info = {
        "ua_os_family": os_family,
        "ua_os_ver": ".".join(filter(None, os_version)),
        "ua_browser_family": browser_family,
        "ua_browser_ver": ".".join(filter(None, browser_version)),
    }
    tags = {
        "ua_os_family": _limited_os(os_family, header),
        "ua_browser_family": browser_family if browser_family in VALID_UA_BROWSER else "Other",
    }
    return tags, info


def _limited_os(family: str, header: str) -> str:
    if family.startswith("Windows"):
        return "Windows"
    if family in VALID_UA_OS:
        return family
    # Android and its relatives.
    return "Linux" if "Linux" in header else "Other"
