"""What the page tells of addresses, by how the visitor has come."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given, strategies as st

from autopush.tests.web.page.support import KEY, make_conf, make_request
from autopush.web.page.addresses import addresses_for

HOST = ("Host", "push.local:8080")
PROXY = (
    ("Host", "127.0.0.1:8080"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "Push.Example.org"),
)


def found(*headers, conf=None, **kwargs):
    return addresses_for(conf or make_conf(), make_request(*headers), **kwargs)


def test_without_a_public_url_it_is_where_the_visitor_has_come():
    addresses = found(HOST)
    assert addresses.base == "http://push.local:8080"
    assert addresses.push_server == "ws://push.local:8080/"
    assert addresses.distributor == "http://push.local:8080"
    assert addresses.root == ""
    assert not addresses.is_secure


def test_what_a_proxy_says_counts_then():
    addresses = found(*PROXY)
    assert addresses.base == "https://push.example.org"
    assert addresses.push_server == "wss://push.example.org/"
    assert addresses.distributor == "https://push.example.org"
    assert addresses.is_secure


def test_the_proxy_nearest_to_the_visitor_is_asked():
    addresses = found(
        HOST, ("X-Forwarded-Proto", "https, http"), ("X-Forwarded-Host", "a.example, b.example")
    )
    assert addresses.base == "https://a.example"


def test_a_path_that_a_proxy_has_taken_off():
    addresses = found(*PROXY, ("X-Forwarded-Prefix", "/push/"))
    assert addresses.root == "/push"
    assert addresses.base == "https://push.example.org/push"
    assert addresses.push_server == "wss://push.example.org/push/"


@pytest.mark.parametrize("prefix", ["push", "/pu sh", '/"><script>', "/a/../b", "//evil.example"])
def test_what_is_no_path_is_not_taken_for_one(prefix):
    assert found(*PROXY, ("X-Forwarded-Prefix", prefix)).root == ""


def test_the_public_url_wins():
    conf = make_conf(public_url="https://example.org/push")
    addresses = found(*PROXY, ("X-Forwarded-Prefix", "/other"), conf=conf)
    assert addresses.base == addresses.api == "https://example.org/push"
    assert addresses.push_server == "wss://example.org/push/"
    assert addresses.root == "/push"
    assert not addresses.differs


def test_the_key_of_a_private_service_is_at_the_end():
    conf = make_conf(public_url="https://example.org/push")
    addresses = found(HOST, conf=conf, key=KEY)
    assert addresses.push_server == f"wss://example.org/push/{KEY}"
    assert addresses.distributor == f"https://example.org/push/{KEY}"
    assert KEY not in repr(addresses)


def test_user_agents_may_have_a_port_of_their_own():
    conf = make_conf(port=9000)
    assert found(HOST, conf=conf, separate=True).websocket == "ws://push.local:9000/"
    ipv6 = found(("Host", "[::1]:8080"), conf=conf, separate=True)
    assert ipv6.websocket == "ws://[::1]:9000/"
    assert found(("Host", "name"), conf=conf, separate=True).websocket == "ws://name:9000/"
    conf = make_conf(port=9000, public_url="https://p.example")
    assert found(HOST, conf=conf, separate=True).websocket == "ws://push.example:9000/"


def test_names_of_this_machine_are_the_same_place():
    conf = make_conf(hostname="127.0.0.1")
    assert found(("Host", "localhost:8080"), conf=conf).differs
    assert not found(("Host", "localhost:8080"), conf=conf).misleads
    assert found(("Host", "localhost:8080"), conf=conf).is_local
    assert not found(HOST, conf=conf).is_local
    assert found(HOST, conf=conf).misleads
    assert not found(("Host", "push.example:8080")).differs


WORDS = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40),
    st.from_regex(r"[a-z0-9.-]+(:[0-9]{1,6})?|\[[0-9a-f:.]*\](:[0-9]{1,5})?", fullmatch=True),
)


@given(WORDS, WORDS, WORDS, WORDS, st.booleans())
def test_whatever_headers_say_it_is_an_address(host, scheme, forwarded, prefix, separate):
    addresses = found(
        ("Host", host),
        ("X-Forwarded-Proto", scheme),
        ("X-Forwarded-Host", forwarded),
        ("X-Forwarded-Prefix", prefix),
        separate=separate,
    )
    assert addresses.misleads in (True, False) and addresses.is_local in (True, False)
    for text in (addresses.base, addresses.push_server, addresses.distributor, addresses.root):
        assert not set(text) & set(" \"'<>&\\")
    assert urlsplit(addresses.base).scheme in ("http", "https")
    for url in (addresses.base, addresses.push_server):
        assert urlsplit(url).hostname
        assert urlsplit(url).port != 0
