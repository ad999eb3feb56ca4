"""The browser itself: Firefox subscribes, receives, stays subscribed (websocket.md 23.6)."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pywebpush import webpush

from autopush.tests.e2e.clients import VapidSender
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


def _status_of_push(push: Callable[..., int], subscription: dict[str, object]) -> int:
    from pywebpush import WebPushException

    try:
        return push(subscription, "too late")
    except WebPushException as error:
        assert error.response is not None
        return error.response.status_code
