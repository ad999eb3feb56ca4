"""What the page is made of: parts, and files beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import attrs

from autopush import __version__

if TYPE_CHECKING:
    from autopush.web.page.addresses import Addresses

FILES = Path(__file__).with_name("files")

CONTENT_TYPES = {
    ".css": "text/css; charset=UTF-8",
    ".js": "text/javascript; charset=UTF-8",
    ".svg": "image/svg+xml",
}
"""Of the files that are fetched; others are parts of the document."""


@attrs.frozen
class Part:
    """A section of the page.

    :ivar name: of its file ``<name>.html``, a template
    :ivar when: the condition under which it is shown; empty: always
    """

    name: str
    when: str = ""


@attrs.frozen
class Document:
    """A page.

    :ivar frame: file around all parts
    :ivar parts: from the top
    :ivar folder: where the files are
    """

    parts: tuple[Part, ...]
    frame: str = "page.html"
    folder: Path = FILES

    def render(self, values: Mapping[str, str], conditions: frozenset[str], **markup: str) -> str:
        """Return the HTML.

        :param values: texts by the name of their place, which are escaped
        :param conditions: those that are met
        :param markup: what is HTML already
        """
        safe = {**{name: escape(value) for name, value in values.items()}, **markup}
        shown = (part for part in self.parts if not part.when or part.when in conditions)
        sections = "".join(self._template(f"{part.name}.html").substitute(safe) for part in shown)
        return self._template(self.frame).substitute(safe, sections=sections)

    def file(self, name: str) -> bytes | None:
        """Return a file that may be fetched; None: there is no such file."""
        return _files(self.folder).get(name)

    def _template(self, name: str) -> Template:
        return _template(self.folder / name)


@cache
def _template(path: Path) -> Template:
    return Template(path.read_text("utf-8"))


@cache
def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.iterdir() if path.suffix in CONTENT_TYPES)
    return {path.name: path.read_bytes() for path in paths}


PRIVATE = "private"
"""An access key is needed, and the visitor has shown none."""

OPEN = "open"
"""None is needed, or it was shown."""

DIFFERS = "differs"
"""Endpoint URLs may lead elsewhere than the visitor has come."""

FULL = "full"
"""There are figures for the operator."""

WELCOME = Document(
    (
        Part("about"),
        Part("differs", DIFFERS),
        Part("private", PRIVATE),
        Part("settings", OPEN),
        Part("unifiedpush", OPEN),
        Part("try"),
        Part("figures", FULL),
    )
)
"""The page of a service."""

INBOX = Document(
    (Part("inbox", FULL), Part("private", PRIVATE), Part("settings", OPEN), Part("try"))
)
"""The page of a service that tests send to. It has no address for distributors: that is this
machine's own, and gone after the tests."""


def conditions_for(addresses: Addresses, private: bool, full: bool) -> frozenset[str]:
    """Return the conditions that are met.

    :param private: whether an access key is needed
    :param full: whether there are figures
    """
    is_open = not private or bool(addresses.key)
    met = {PRIVATE: not is_open, OPEN: is_open, DIFFERS: addresses.misleads, FULL: full}
    return frozenset(name for name, value in met.items() if value)


def values_for(addresses: Addresses, local: bool) -> dict[str, str]:
    """Return the texts of the page.

    :param local: whether the visitor is the operator without showing a token
    """
    return {
        "root": addresses.root,
        "version": __version__,
        "base": addresses.base,
        "api": addresses.api,
        "push_server": addresses.push_server,
        "distributor": addresses.distributor,
        "insecure": "hidden" if addresses.is_secure else "",
        "reachable": "" if addresses.is_local else "hidden",
        "keyed": "" if addresses.key else "hidden",
        "local": "yes" if local else "",
    }


def qr_code(text: str) -> str:
    """Return an SVG element for HTML that shows a text to cameras.

    Dark on whatever is behind it, which has to be light.
    """
    import segno  # 2 MB that a service whose page nobody opens does without

    code = segno.make_qr(text, error="m")
    return str(code.svg_inline(border=4, svgclass="qr", lineclass=None, omitsize=True))
