"""The handlers of the page: the document, its files, the operator's figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

import attrs

from autopush.types import JSONDict
from autopush.web.base import BaseWebHandler
from autopush.web.page.addresses import Addresses, addresses_for
from autopush.web.page.document import (
    CONTENT_TYPES,
    WELCOME,
    Document,
    conditions_for,
    qr_code,
    values_for,
)
from autopush.web.page.operator import is_operator

POLICY = (
    "default-src 'self'; connect-src 'self'{others}; object-src 'none'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Of everything that belongs to the page. A referrer might have an access key."""

NOT_THE_OPERATOR = "The figures are for the operator: over loopback, or with the page_token"


@attrs.define
class Page:
    """What the application shows at ``/``.

    :ivar document: made for people
    :ivar figures: returns what the operator is shown, at once or later; None: nothing is
    :ivar token: shows who the operator is; None: only a connection from this machine does
    :ivar separate: whether user agents connect to a port of their own
    """

    document: Document = WELCOME
    figures: Callable[[], JSONDict | Awaitable[JSONDict]] | None = None
    token: str | None = attrs.field(default=None, repr=False)
    separate: bool = False


class PagePart(BaseWebHandler):
    """What the handlers of the page have in common.

    They are no part of the API: pages of other origins get nothing of them (no CORS), and what they
    say about the host (HSTS) is left to those who have it.
    """

    def prepare(self) -> None:
        """Check the client's certificate, then add the headers."""
        if self.conf.client_certs is not None and not self.authenticate_peer_cert():
            return
        self._headers.update(HEADERS)

    @property
    def page(self) -> Page:
        """What is shown."""
        page: Page = self.application.page
        return page

    def _not_found(self) -> None:
        """As for every path there isn't."""
        self._write_response(404, 102, message="There is no such route", error="Page not found")

    def options(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing is allowed to pages of other origins."""

    def head(self, *args: Any, **kwargs: Any) -> Any:
        """As GET: the server leaves out the body."""
        return self.get(*args, **kwargs)


class PageHandler(PagePart):
    """``/``, in a private service also ``/<access key>``."""

    def get(self, key: str | None = None) -> None:
        """The document."""
        if "websocket" in self.request.headers.get("upgrade", "").lower():
            self._not_found()  # user agents have a port of their own, and this isn't it
            return
        access, query = self.application.access, self.get_argument("key", "")
        shown = key or query
        known = access is not None and bool(shown) and access.opens(shown)
        if key is not None and not known:
            if access is not None:
                access.refuse(self._client_info["remote_ip"])
            self._not_found()
            return
        request, page = self.request, self.page
        addresses = addresses_for(self.conf, request, shown if known else "", page.separate)
        full = page.figures is not None
        html = page.document.render(
            values_for(addresses, full and is_operator(request, None)),
            conditions_for(addresses, access is not None, full),
            qr=qr_code(addresses.distributor),
        )
        self._headers["Content-Security-Policy"] = _policy(addresses)
        self._headers["Cache-Control"] = "no-store"
        self.finish(html)


class SlashHandler(PagePart):
    """The path of the public URL without its slash, beside which the browser would look for all
    that the page names."""

    def get(self) -> None:
        """To the page."""
        self.set_status(308)
        self.set_header("Location", f"{self.conf.public_path}/")
        self.finish()


class FileHandler(PagePart):
    """``/page/<name>``: styles and scripts."""

    def get(self, name: str) -> None:
        """The file; browsers ask each time whether it is still the same."""
        content = self.page.document.file(name)
        if content is None:
            self._not_found()
            return
        self._headers["Content-Type"] = CONTENT_TYPES[name[name.rindex(".") :]]
        self._headers["Content-Security-Policy"] = "default-src 'self'"
        self._headers["Cache-Control"] = "no-cache"
        self.finish(content)


class FiguresHandler(PagePart):
    """``/page/figures``: how the service is, for its operator."""

    challenge = "Bearer"

    async def get(self) -> None:
        """JSON."""
        page = self.page
        self._headers["Cache-Control"] = "no-store"
        if page.figures is None:
            self._not_found()
        elif is_operator(self.request, page.token):
            figures = page.figures()
            self.finish(await figures if isawaitable(figures) else figures)
        else:
            self._write_response(401, 109, message=NOT_THE_OPERATOR)


def _policy(addresses: Addresses) -> str:
    """The document's ``Content-Security-Policy``: what it tries is sent to where endpoints are."""
    others = f" {addresses.api}/" if addresses.differs else ""
    return POLICY.format(others=others)


ROUTES = (
    (r"/page/figures", FiguresHandler),
    (r"/page/(?P<name>[a-z.]+)", FileHandler),
    (r"/(?:(?P<key>[A-Za-z0-9_-]{22,128})/?)?", PageHandler),
)
"""Before all that is not found."""
