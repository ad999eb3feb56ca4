"""The answer of an HTTP/1.1 server, as far as it has arrived."""

from __future__ import annotations

from typing import Any

import httptools


class Answer:
    """One answer being read; also the callbacks of its llhttp parser.

    Its body is counted and dropped: a subclass may keep it.

    :ivar status: 0 before the end of its headers
    :ivar size: bytes of the body that came
    :ivar framed: it says itself where it ends; else it ends with the connection
    :ivar complete: all of it is there
    :ivar keep: the connection may be used again after it
    """

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self.reset()

    def reset(self) -> None:
        """Begin with the next answer of the same connection."""
        self.status = self.size = 0
        self.framed = self.complete = self.keep = False

    def feed(self, data: bytes) -> None:
        """Take what came.

        :raises httptools.HttpParserError: that is no HTTP, or more than one answer
        :raises httptools.HttpParserUpgrade: the server speaks something else from here on
        """
        self._parser.feed_data(data)

    # ---- llhttp

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has arrived."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self.framed = True

    def on_headers_complete(self) -> None:
        """The body is next."""
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """A piece of the decoded body has arrived."""
        self.size += len(data)

    def on_message_complete(self) -> None:
        """The answer has ended, unless it is one of those that another follows (1xx)."""
        if self.status < 200:
            self.reset()
            return
        if self.complete:
            raise ValueError("more than one answer")
        self.complete = True
        self.keep = self._parser.should_keep_alive()
