"""Who is shown the figures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from autopush.tests.web.page.support import LOCAL, TOKEN, make_request
from autopush.web.page.operator import FORWARDED, is_operator


class Socket:
    def __init__(self, address):
        self._address = address

    def getPeer(self):
        return self._address


def from_peer(host, *headers, announced=None, wrapped=False, **kwargs):
    """A request over a connection from an address, which a PROXY header may say is another."""
    address = IPv6Address if ":" in host else IPv4Address
    transport = Socket(address("TCP", host, 1234))
    if announced is not None:
        wrapper = Socket(IPv4Address("TCP", announced, 1234))
        wrapper.wrappedProtocol, wrapper.transport = object(), transport
        transport = wrapper
    request = make_request(*(headers or (LOCAL,)), **kwargs)
    request.connection = SimpleNamespace(transport=transport, remote_ip=announced or host)
    return request


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]", "[::1]:8080"]
)
def test_a_browser_on_this_machine(peer, host):
    assert is_operator(from_peer(peer, ("Host", host)), None)


@pytest.mark.parametrize("peer", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "0.0.0.0"])
def test_a_browser_elsewhere_is_not(peer):
    assert not is_operator(from_peer(peer), None)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil@localhost",
        "192.0.2.1",
        "0.0.0.0:8080",
        "[2001:db8::1]",
        "127.0.0.1, evil.example",
        "",
        "127.1",
    ],
)
def test_a_page_whose_name_leads_here_is_not(host):
    """DNS rebinding."""
    assert not is_operator(from_peer("127.0.0.1", ("Host", host)), None)


@pytest.mark.parametrize("name", [*sorted(FORWARDED), "x-forwarded-for", "X-Forwarded-Whatever"])
def test_a_visitor_of_a_proxy_on_this_machine_is_not(name):
    assert not is_operator(from_peer("127.0.0.1", LOCAL, (name, "127.0.0.1")), None)


def test_a_proxy_that_says_nothing_speaks_http_1_0():
    """nginx with no more than proxy_pass: neither address nor host are passed on."""
    assert not is_operator(from_peer("127.0.0.1", version="HTTP/1.0"), None)


def test_both_ways_to_name_a_host_count():
    absolute = from_peer("127.0.0.1", LOCAL, path="http://evil.example/page/figures")
    assert not is_operator(absolute, None)
    other = from_peer("127.0.0.1", ("Host", "evil.example"), path="http://localhost/page/figures")
    assert not is_operator(other, None)


def test_a_proxy_header_makes_nobody_local():
    """Nor may one from elsewhere say that it comes from here."""
    assert not is_operator(from_peer("192.0.2.1", announced="127.0.0.1"), None)
    assert not is_operator(from_peer("127.0.0.1", announced="192.0.2.1"), None)
    assert is_operator(from_peer("127.0.0.1", announced="127.0.0.1"), None)


def test_a_unix_socket_is_a_proxys():
    request = make_request(LOCAL)
    socket = Socket(UNIXAddress(None))
    request.connection = SimpleNamespace(transport=socket, remote_ip="unix:")
    assert not is_operator(request, None)


def test_the_token_counts_from_anywhere():
    shown = ("Authorization", f"Bearer {TOKEN}")
    assert is_operator(from_peer("192.0.2.1", shown), TOKEN)
    assert is_operator(from_peer("192.0.2.1", ("Authorization", f"bearer  {TOKEN}")), TOKEN)


@pytest.mark.parametrize("shown", [TOKEN[:-1], TOKEN + "x", "None", "\xff"])
def test_another_token_does_not_even_here(shown):
    """So that the page can tell that it is wrong."""
    header = ("Authorization", f"Bearer {shown}")
    assert not is_operator(from_peer("127.0.0.1", LOCAL, header), TOKEN)
    assert not is_operator(from_peer("127.0.0.1", LOCAL, header), None)
