"""The browser itself: Firefox subscribes, receives, stays subscribed (spec/websocket 23.6)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import http_ece
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pywebpush import webpush

from automock.running import Background
from autopush.scripts.autokey import access_key
from autopush.testing import Push, PushService
from autopush.tests.e2e.clients import QUIET, VapidSender, b64decode
from autopush.tests.e2e.firefox import PROGRAM, Firefox
from autopush.tests.e2e.harness import Server

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Firefox on this machine")

PAGE = """<!doctype html><title>push</title><script>
window.received = [];
navigator.serviceWorker.onmessage = event => window.received.push(event.data);
</script>"""

WORKER = """
self.addEventListener('install', event => self.skipWaiting());
self.addEventListener('activate', event => event.waitUntil(self.clients.claim()));
self.addEventListener('push', event => event.waitUntil((async () => {
  const text = event.data ? event.data.text() : null;
  for (const client of await self.clients.matchAll({includeUncontrolled: true}))
    client.postMessage(text);
  await self.registration.showNotification('push');
})()));
"""

SUBSCRIBE = """(async () => {
  await navigator.serviceWorker.register('worker.js');
  const registration = await navigator.serviceWorker.ready;
  const subscription = await registration.pushManager.subscribe(
    {userVisibleOnly: true, applicationServerKey: KEY});
  return subscription.toJSON();
})()"""

SUBSCRIPTION = """navigator.serviceWorker.ready
  .then(registration => registration.pushManager.getSubscription())
  .then(subscription => subscription && subscription.toJSON())"""

UNSUBSCRIBE = """navigator.serviceWorker.ready
  .then(registration => registration.pushManager.getSubscription())
  .then(subscription => subscription.unsubscribe())"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A website with a service worker."""
    root = tmp_path / "site"
    root.mkdir()
    (root / "index.html").write_text(PAGE)
    (root / "worker.js").write_text(WORKER)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://localhost:{httpd.server_address[1]}/"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "profile"
    path.mkdir()
    return path


async def received(firefox: Firefox, count: int) -> list[str]:
    """Wait until the page has got so many messages."""
    while True:
        texts = await firefox.run("window.received")
        if len(texts) >= count:
            return texts
        await asyncio.sleep(0.1)


async def connected(server: Server, start: int) -> None:
    """Wait until a user agent has said hello since line ``start`` of the log."""
    while not any('"hello"' in line for line in server.lines[start:]):
        await asyncio.sleep(0.1)


async def test_firefox_subscribes_and_receives(
    make_server: Callable[..., Server], site: str, profile: Path
) -> None:
    """Encrypted messages arrive decrypted: while connected, after a restart of the service, and
    those that waited for the browser; after unsubscribing the endpoint is gone."""
    server = make_server("--debug").start()
    sender = VapidSender()
    key = sender.public_key
    claims = {"sub": "mailto:ops@example.com"}

    def push(subscription: dict[str, object], text: str) -> int:
        answer = webpush(
            subscription, text, vapid_private_key=sender.rfc8292, vapid_claims=dict(claims), ttl=600
        )
        return answer.status_code

    url = {"dom.push.serverURL": server.ws_url}
    async with Firefox(profile, **url) as firefox:
        await firefox.open(site)
        subscription = await firefox.run(SUBSCRIBE.replace("KEY", f"'{key}'"))
        assert subscription["endpoint"].startswith(server.endpoint_url + "/wpush/v2/")
        assert await asyncio.to_thread(push, subscription, "héllo") == 201
        assert await received(firefox, 1) == ["héllo"]

        restarted = len(server.lines)
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await connected(server, restarted)
        assert await asyncio.to_thread(push, subscription, "after the restart") == 201
        assert await received(firefox, 2) == ["héllo", "after the restart"]

    for number in range(12):
        assert await asyncio.to_thread(push, subscription, f"waiting {number}") == 201

    async with Firefox(profile, **url) as firefox:
        await firefox.open(site)
        assert await firefox.run(SUBSCRIPTION) == subscription
        assert await asyncio.to_thread(push, subscription, "at last") == 201
        while "at last" not in await received(firefox, 1):
            await asyncio.sleep(0.1)
        assert await firefox.run(UNSUBSCRIBE) is True
        while "Unregister" not in server.output:
            await asyncio.sleep(0.1)
    answer = await asyncio.to_thread(_status_of_push, push, subscription)
    assert answer == 410


async def test_firefox_gets_into_a_private_service(
    make_server: Callable[..., Server], site: str, profile: Path
) -> None:
    """``dom.push.serverURL`` holds the access key; with another one it is kept out."""
    key = access_key()
    server = make_server("--debug", "--access_key", key).start()
    sender = VapidSender()
    async with Firefox(profile, **{"dom.push.serverURL": server.ws_url + access_key()}) as firefox:
        await firefox.open(site)
        while "Refused without an access key" not in server.output:
            await asyncio.sleep(0.1)
        assert '"hello"' not in server.output
    async with Firefox(profile, **{"dom.push.serverURL": server.ws_url + key}) as firefox:
        await firefox.open(site)
        subscription = await firefox.run(SUBSCRIBE.replace("KEY", f"'{sender.public_key}'"))
        assert subscription["endpoint"].startswith(server.endpoint_url + "/wpush/v2/")
        answer = await asyncio.to_thread(
            webpush,
            subscription,
            "let in",
            vapid_private_key=sender.rfc8292,
            vapid_claims={"sub": "mailto:ops@example.com"},
            ttl=600,
        )
        assert answer.status_code == 201
        assert await received(firefox, 1) == ["let in"]
    assert key not in server.output


CONNECT = """new Promise(resolve => {
  const socket = new WebSocket('URL');
  socket.onopen = () => resolve('open');
  socket.onerror = () => resolve('refused');
})"""


SANDBOXED = """new Promise(resolve => {
  window.onmessage = event => resolve(event.data);
  const frame = document.createElement('iframe');
  frame.sandbox = 'allow-scripts';
  frame.srcdoc = `<script>
    const socket = new WebSocket('URL');
    socket.onopen = () => parent.postMessage('open', '*');
    socket.onerror = () => parent.postMessage('refused', '*');
  </script>`;
  document.body.append(frame);
})"""


async def test_pages_may_not_open_websockets_while_firefox_itself_may(
    make_server: Callable[..., Server], site: str, profile: Path
) -> None:
    """Of any other origin, in a sandbox or not, unless they are allowed."""
    server = make_server("--debug").start()
    origin = site.rstrip("/")
    friendly = make_server("--allowed_origins", f"https://example.org,{origin}").start()
    async with Firefox(profile, **{"dom.push.serverURL": server.ws_url}) as firefox:
        await firefox.open(site)
        assert await firefox.run(CONNECT.replace("URL", server.ws_url)) == "refused"
        while f'"origin":"{origin}"' not in server.output.replace(": ", ":"):
            await asyncio.sleep(0.1)
        assert await firefox.run(CONNECT.replace("URL", friendly.ws_url)) == "open"
        assert await firefox.run(SANDBOXED.replace("URL", friendly.ws_url)) == "refused"
        # Push itself goes on.
        subscription = await firefox.run(SUBSCRIBE.replace("KEY", f"'{VapidSender().public_key}'"))
        assert subscription["endpoint"].startswith(server.endpoint_url)


async def test_firefox_comes_back(
    make_server: Callable[..., Server], site: str, profile: Path
) -> None:
    """It reconnects, keeps its subscription and gets each message once: after kill -9 of the
    service, after a close by the node, and after the page was closed; also a message without a
    body and one in the older encoding."""
    server = make_server("--debug", router=True).start()
    sender = VapidSender()

    def push(subscription: dict[str, object], text: str | None, encoding: str) -> int:
        answer = webpush(
            subscription,
            text,
            vapid_private_key=sender.rfc8292,
            vapid_claims={"sub": "mailto:ops@example.com"},
            ttl=600,
            content_encoding=encoding,
        )
        return answer.status_code

    async with Firefox(profile, **{"dom.push.serverURL": server.ws_url}) as firefox:
        await firefox.open(site)
        subscription = await firefox.run(SUBSCRIBE.replace("KEY", f"'{sender.public_key}'"))

        async def sent_and_got(texts: list[str | None], encoding: str = "aes128gcm") -> None:
            for text in texts:
                assert await asyncio.to_thread(push, subscription, text, encoding) == 201
            everything.extend(texts)
            assert await received(firefox, len(everything)) == everything

        everything: list[str | None] = []
        await sent_and_got([None, "first"])
        await sent_and_got(["in the older encoding"], "aesgcm")

        killed = len(server.lines)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await connected(server, killed)
        await sent_and_got(["after kill -9"])

        closed = len(server.lines)
        assert await asyncio.to_thread(_close_by_the_node, server) == "Terminated duplicate"
        # Stored, perhaps: the browser is away for a moment.
        await sent_and_got(["after a close"])
        await connected(server, closed)
        await sent_and_got(["connected again"])
        assert await firefox.run(SUBSCRIPTION) == subscription

        # A page that is opened later finds the worker at work.
        await firefox.open(site)
        everything.clear()
        await sent_and_got(["to the page opened again"])
        await asyncio.sleep(QUIET)
        assert await firefox.run("window.received") == everything


def _close_by_the_node(server: Server) -> str:
    """What another node does when the user agent has connected there."""
    with contextlib.closing(sqlite3.connect(server.data_dir / "autopush.sqlite3")) as database:
        ((uaid, record),) = database.execute("SELECT uaid, record FROM users")
    connected_at = json.loads(record)["connected_at"]
    url = f"{server.router_url}/notif/{uaid}/{connected_at}"
    return httpx.delete(url, trust_env=False).text


def _status_of_push(push: Callable[..., int], subscription: dict[str, object]) -> int:
    from pywebpush import WebPushException

    try:
        return push(subscription, "too late")
    except WebPushException as error:
        assert error.response is not None
        return error.response.status_code


POST = """(async () => {
  const body = Uint8Array.from(atob(BODY), letter => letter.charCodeAt(0));
  const answer = await fetch(
    URL, {method: METHOD, headers: HEADERS, body: body.length ? body : null});
  return {status: answer.status, headers: Object.fromEntries(answer.headers),
          text: await answer.text(), origin: location.origin};
})()"""


class Page:
    """A page of another origin, which sends without a server."""

    def __init__(self, firefox: Firefox) -> None:
        self.firefox = firefox

    async def fetch(
        self, url: str, method: str = "POST", body: bytes = b"", **headers: str
    ) -> dict[str, Any]:
        """What the page may know of the answer; underscores in names are dashes."""
        script = POST.replace("BODY", repr(base64.b64encode(body).decode()))
        script = script.replace("URL", json.dumps(url)).replace("METHOD", json.dumps(method))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.firefox.run(script.replace("HEADERS", json.dumps(named)))


@pytest.fixture
def push() -> Iterator[Push]:
    """A service of the test mode that keeps two messages for a browser."""
    with PushService(["--max_stored=2", "--max_stored_share=100"]) as running:
        yield running


async def test_page_of_another_origin_sends(push: Push, site: str, profile: Path) -> None:
    """With every header that RFC 8030, 8291 and 8292 have; it reads what it needs of the answer: of
    a message URL and TTL, of a refusal what is wrong, when to come again, how to sign."""
    sender, browser = VapidSender(), push.browser()
    subscription = browser.subscribe(sender.public_key)
    endpoint, open_to_all = subscription["endpoint"], browser.subscribe()["endpoint"]
    browser.offline()
    signed = sender.rfc8292.sign({"aud": push.url, "sub": "mailto:ops@example.com"})
    headers = {
        "TTL": "600",
        "Topic": "news",
        "Urgency": "high",
        "Prefer": "respond-async",
        "Content_Encoding": "aes128gcm",
        "Content_Type": "application/octet-stream",
        **signed,
    }
    body = http_ece.encrypt(
        "grüezi".encode(),
        private_key=ec.generate_private_key(ec.SECP256R1()),
        dh=b64decode(subscription["keys"]["p256dh"]),
        auth_secret=b64decode(subscription["keys"]["auth"]),
        version="aes128gcm",
    )
    async with Firefox(profile) as firefox:
        page = Page(firefox)
        await firefox.open(site)
        answer = await page.fetch(endpoint, body=body, **headers)
        assert not push.url.startswith(answer["origin"])
        assert answer["status"] == 201
        assert answer["headers"]["ttl"] == "600"
        location = answer["headers"]["location"]
        assert location.startswith(push.url + "/m/")

        stranger = VapidSender().rfc8292.sign({"aud": push.url, "sub": "mailto:x@y.z"})
        refused = {"wrong key": await page.fetch(endpoint, body=body, **{**headers, **stranger})}
        assert "vapid" in refused["wrong key"]["headers"]["www-authenticate"]
        del headers["TTL"]
        refused["no TTL"] = await page.fetch(endpoint, body=body, **headers)
        headers["TTL"] = "600"
        refused["too long"] = await page.fetch(endpoint, body=b"x" * 5000, **headers)
        refused["far too long"] = await page.fetch(endpoint, body=b"x" * 500_000, **headers)
        refused["not our URL"] = await page.fetch(endpoint + "x", body=body, **headers)
        for _ in range(3):
            last = await page.fetch(open_to_all, TTL="60")
        refused["enough is waiting"] = last
        assert int(last["headers"]["retry-after"]) > 0
        found = {
            what: (one["status"], json.loads(one["text"])["errno"]) for what, one in refused.items()
        }
        assert found == {
            "wrong key": (401, 109),
            "no TTL": (400, 111),
            "too long": (413, 104),
            "far too long": (413, 104),
            "not our URL": (404, 102),
            "enough is waiting": (429, 203),
        }
        assert (await page.fetch(location, "DELETE"))["status"] == 204
    assert [request.status for request in push.requests[:2]] == [201, 401]


async def test_firefox_hears_of_broadcasts(
    make_server: Callable[..., Server], site: str, profile: Path
) -> None:
    """It subscribes to the changes of remote settings by itself, is told what it lacks and what
    changes, and asks for the new settings each time (which aren't to be had here)."""

    async def logged(text: str, times: int = 1) -> None:
        while sum(text in line for line in firefox.log) < times:
            await asyncio.sleep(0.1)

    name, asked = "remote-settings/monitor_changes", "Polling for changes failed"
    with Background("megaphone") as mock:
        source = mock["megaphone"]
        options = ["--megaphone_api_url", f"{source.url}/v1/broadcasts"]
        options += ["--megaphone_api_token", source.token, "--megaphone_poll_interval", "1"]
        server = await asyncio.to_thread(make_server(*options).start)
        async with Firefox(profile, **{"dom.push.serverURL": server.ws_url}) as firefox:
            await firefox.open(site)
            await logged("receivedBroadcastMessage:")
            assert any(f'adding listener" "{name}"' in line for line in firefox.log)
            await logged(asked)
            before = sum(asked in line for line in firefox.log)
            source.configure({"broadcasts": {name: '"2"'}})
            await logged('{phase:"broadcast"}')
            await logged(asked, before + 1)
        (told,) = [line for line in firefox.log if '{phase:"broadcast"}' in line]
        assert f'{{\'{name}\':"\\"2\\""}}' in told
