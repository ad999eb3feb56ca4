"""The page, its files and the figures, as a browser asks for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from autopush.tests.web.page.support import KEY, LOCAL, TOKEN, Site
from autopush.web.page.handlers import Page

FIGURES = {"connections": 3}


def full(peer="127.0.0.1", **options):
    page = Page(figures=lambda: dict(FIGURES), token=options.pop("token", None))
    return Site(peer, page, **options)


def error(answer):
    body = json.loads(answer.body)
    return answer.status, body["errno"], body["message"]


def test_the_page_is_at_the_root_and_nowhere_else():
    site = Site()
    assert "<h1>A push service</h1>" in site.html()
    assert "<h1>A push service</h1>" in site.html("/?utm=x")
    for path in ("/index.html", "//", "/page", "/page/", f"/{KEY}", f"/{KEY}/", "/favicon.ico"):
        assert error(site.get(path)) == (404, 102, "There is no such route"), path


def test_a_websocket_is_not_answered_with_a_page():
    """Where it has a port of its own: whoever set the wrong one is told so, as ever."""
    upgrade = ("Upgrade", "WebSocket"), ("Connection", "Upgrade")
    assert Site().get("/", *upgrade).status == 404


def test_headers():
    answer = Site().get()
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy == {
        "default-src": "'self'",
        "connect-src": "'self'",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "text/html; charset=UTF-8"
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/page/try.js", "/page/figures", "/page/nothing.js"])
def test_pages_of_other_origins_get_nothing(path):
    site = full()
    for method in ("GET", "OPTIONS"):
        answer = site.get(path, LOCAL, ("Origin", "https://evil.example"), method=method)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "DENY"


def test_what_is_tried_may_be_sent_where_endpoints_are():
    answer = Site(public_url="https://push.example.org").get()
    assert "connect-src 'self';" in answer.headers["content-security-policy"]
    answer = Site().get("/", ("Host", "other.example"))
    policy = answer.headers["content-security-policy"]
    assert "connect-src 'self' http://push.example:8080/;" in policy
    assert b"Is this the right address?" in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_not_allowed(method):
    assert Site().get(method=method).status == 405


def test_head_is_as_get_without_the_body():
    site = Site()
    for path in ("/", "/page/try.js"):
        get = site.get(path)
        site.wire.transport.clear()
        site.wire.send(f"HEAD {path} HTTP/1.1\r\nHost: push.example:8080\r\n\r\n".encode())
        head = site.wire.transport.value().decode()
        assert head.startswith("HTTP/1.1 200 OK")
        assert f"Content-Length: {len(get.body)}\r\n" in head
        assert head.endswith("\r\n\r\n")
        site.wire.transport.clear()


def test_files():
    site = Site()
    for name, kind in (("try.js", "text/javascript"), ("page.css", "text/css"),
                       ("icon.svg", "image/svg+xml")):  # fmt: skip
        answer = site.get(f"/page/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(kind)
        again = site.get(f"/page/{name}", ("If-None-Match", answer.headers["etag"]))
        assert (again.status, again.body) == (304, b"")
    for name in ("page.html", "nothing.js", "..", "figures.js/x"):
        assert site.get(f"/page/{name}").status == 404


# ---------------------------------------------------------------------------- private services


@pytest.mark.parametrize("path", [f"/{KEY}", f"/{KEY}/", f"/?key={KEY}"])
def test_who_has_the_key_sees_the_settings(path):
    site = Site(access_keys=[KEY], public_url="https://push.example.org")
    html = site.html(path)
    assert f"wss://push.example.org/{KEY}<" in html
    assert f"https://push.example.org/{KEY}<" in html
    assert "This service is private" not in html


def test_who_has_none_is_told_so():
    site = Site(access_keys=[KEY])
    for path in ("/", "/?key=wrong"):
        html = site.html(path)
        assert "This service is private" in html
        assert "dom.push.serverURL</code>" not in html
        assert KEY not in html


def test_a_wrong_key_is_no_path():
    site = Site(access_keys=[KEY])
    assert site.get("/" + "x" * len(KEY)).status == 404


def test_the_rest_of_a_private_service_stays_as_it_is():
    site = Site(access_keys=[KEY])
    assert site.get("/v1/fcm/a/registration", method="POST").status == 401


# ---------------------------------------------------------------------------------- under a path


def test_below_a_path_everything_is():
    site = Site(public_url="https://example.org/a/push")
    for path in ("/a/push/", "/"):
        html = site.html(path)
        assert 'href="/a/push/page/page.css"' in html
        assert "wss://example.org/a/push/<" in html
    for path in ("/a/push/page/try.js", "/page/try.js"):
        assert site.get(path).status == 200


def test_without_the_slash_the_browser_is_sent_to_the_page():
    answer = Site(public_url="https://example.org/a/push").get("/a/push")
    assert (answer.status, answer.headers["location"]) == (308, "/a/push/")


# ------------------------------------------------------------------------------------- the figures


def test_the_operator_sees_figures():
    site = full()
    answer = site.get("/page/figures", LOCAL)
    assert json.loads(answer.body) == FIGURES
    assert answer.headers["cache-control"] == "no-store"
    assert 'data-local="yes"' in site.html("/", LOCAL)


def test_others_do_not():
    for site, headers in (
        (full("192.0.2.1"), [LOCAL]),
        (full(), [("Host", "evil.example")]),
        (full(), [LOCAL, ("X-Forwarded-For", "127.0.0.1")]),
    ):
        answer = site.get("/page/figures", *headers)
        assert error(answer)[:2] == (401, 109)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert 'data-local=""' in site.html("/", *headers)


def test_a_token_opens_them():
    site = full("192.0.2.1", token=TOKEN)
    assert site.get("/page/figures").status == 401
    right = ("Authorization", f"Bearer {TOKEN}")
    assert json.loads(site.get("/page/figures", right).body) == FIGURES
    assert TOKEN not in site.html()


def test_figures_may_take_a_while():
    asked: Deferred[Any] = Deferred()
    site = Site(peer="127.0.0.1", page=Page(figures=lambda: asked))
    for method in ("GET", "HEAD"):
        lines = [f"{method} /page/figures HTTP/1.1", "Host: 127.0.0.1:8080", "", ""]
        site.wire.send("\r\n".join(lines).encode())
    assert site.wire.answers() == []
    asked.callback(dict(FIGURES))
    first, second = site.wire.answers("GET", "HEAD")
    assert json.loads(first.body) == FIGURES and second.body == b""
    assert (first.status, second.status) == (200, 200)


def test_without_figures_there_are_none():
    site = Site("127.0.0.1", Page(token=TOKEN))
    assert site.get("/page/figures", LOCAL).status == 404
    assert "For the operator" not in site.html("/", LOCAL)


def test_client_certificates_are_asked_for_here_too():
    site = Site()
    site.conf.client_certs = {}
    site.wire.connection.transport.getPeerCertificate = lambda: None
    assert site.get().status == 401
