"""Why a start failed, in one line (spec/configuration C8)."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import CannotListenError

from autopush.app.starterrors import is_expected, start_error_text
from autopush.exceptions import InvalidConfig


def test_error_texts():
    in_use = CannotListenError("", 80, OSError(98, "Address already in use"))
    assert start_error_text(in_use) == "Can't listen on *:80: Address already in use"
    ipv6 = CannotListenError("::1", 80, OSError(98, "Address already in use"))
    assert start_error_text(ipv6).startswith("Can't listen on [::1]:80: ")
    assert start_error_text(SSL.Error([])).endswith(": unreadable file")
    assert start_error_text(InvalidConfig("two\nlines")) == "two lines"
    assert start_error_text(KeyError("x")) == "Unexpected error: KeyError: 'x'"
    assert not is_expected(KeyError("x"))
