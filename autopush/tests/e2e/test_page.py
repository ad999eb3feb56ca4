"""The page for people, in Firefox: it tries push, says why it fails, and keeps nobody out."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from autopush.scripts.autokey import access_key
from autopush.tests.e2e.firefox import PROGRAM, Firefox
from autopush.tests.e2e.harness import Server
from autopush.tests.e2e.test_public_path import PROGRAM as NGINX, below as below
from autopush.tests.senders.programs import Program, built

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Firefox on this machine")

AXE = Program(
    "axe",
    run="",
    tools=("npm",),
    fetch="npm ci --ignore-scripts --no-audit --no-fund",
    home=Path(__file__).parent,
)
"""https://github.com/dequelabs/axe-core"""

NAME = "push.test"
"""Leads to loopback in these browsers, and is none of its names."""

ALLOWED = {
    "network.dns.localDomains": NAME,
    "dom.push.testing.ignorePermission": False,
}
LIGHT, DARK = 1, 0
SCHEME = "layout.css.prefers-color-scheme.content-override"
PHONE, DESK = (360, 740), (1100, 800)
ENTER, TAB = "\ue007", "\ue004"

STEPS = 8
TRY = "document.getElementById('try-start').click()"
READY = "!document.getElementById('try-start').matches(':disabled, [aria-disabled]')"
PATIENT = """if (!window.patient) { window.patient = window.setTimeout;
  window.setTimeout = (call, wait) => patient(call, wait < 5000 ? wait : 20 * wait) }"""
"""The page gives up after so many seconds that a slow machine can do it."""

RESULT = "[...document.querySelectorAll('#try-result p')].map(one => one.textContent)"
STATES = "[...document.querySelectorAll('#try-steps li')].map(one => one.className)"
TIMES = "[...document.querySelectorAll('#try-steps time')].map(one => one.textContent)"
VIOLATIONS = """axe.run(document, {resultTypes: ['violations']}).then(found =>
  found.violations.map(one => [one.id, one.nodes.map(node => node.html)]))"""


@pytest.fixture
def browser(tmp_path: Path) -> Callable[..., Any]:
    """Opens a Firefox of a new profile, which subscribes at a service."""

    @asynccontextmanager
    async def opened(server: str, **preferences: Any) -> AsyncIterator[Firefox]:
        profile = tmp_path / f"profile{len(list(tmp_path.glob('profile*')))}"
        profile.mkdir()
        wanted = {**ALLOWED, "dom.push.serverURL": server, **preferences}
        async with Firefox(profile, **wanted) as firefox:
            yield firefox

    return opened


async def until(firefox: Firefox, expression: str) -> Any:
    """Wait for something true."""
    while True:
        value = await firefox.run(expression)
        if value:
            return value
        await asyncio.sleep(0.1)


async def tried(firefox: Firefox) -> str:
    """Have the page try, and clear away what it made; what it says in the end."""
    await until(firefox, READY)
    await firefox.run(TRY)
    said = " ".join(await until(firefox, RESULT))
    await until(firefox, READY)
    return said


async def worked(firefox: Firefox) -> None:
    """Have the page try, and see that all is well."""
    await firefox.load(PATIENT)
    assert await tried(firefox) == "It works."
    assert await firefox.run(STATES) == ["done"] * STEPS
    times = await firefox.run(TIMES)
    assert all(re.fullmatch(r"\d+ ms", time) for time in times)


def start(server: Server) -> Any:
    return asyncio.to_thread(server.start)


def page_of(server: Server) -> str:
    return f"http://localhost:{server.port}/"


async def test_it_works(make_server: Callable[..., Server], browser: Any) -> None:
    """Twice in a row; nothing stays behind, and the operator sees it in the figures."""
    server = await start(make_server())
    async with browser(server.ws_url) as firefox:
        await firefox.command("script.addPreloadScript", functionDeclaration=KEPT_OUT)
        await firefox.open(page_of(server))
        await worked(firefox)
        await worked(firefox)
        subscription = (
            "navigator.serviceWorker.getRegistration('/page/')"
            ".then(one => one.pushManager.getSubscription())"
        )
        assert await firefox.run(subscription) is None
        assert await firefox.run("navigator.serviceWorker.getRegistration('/')") is None
        await until(firefox, FIGURE.replace("NAME", "Messages since the start") + " === '2'")
        assert await firefox.run(FIGURE.replace("NAME", "Connections")) == "1"
        await until(firefox, FIGURE.replace("NAME", "Store") + " === 'works'")
        assert await firefox.run("window.keptOut") == []
        # It would have been seen:
        await firefox.run("document.body.setAttribute('style', 'color: red')")
        assert await until(firefox, "window.keptOut[0]") == "style-src-attr"


KEPT_OUT = """() => {
  window.keptOut = [];
  addEventListener('securitypolicyviolation', kept => keptOut.push(kept.violatedDirective));
}"""

FIGURE = """[...document.querySelectorAll('#figures-list dt')]
  .find(one => one.textContent === 'NAME')?.nextSibling.textContent"""

REFUSED = """{ const before = window.fetch; window.fetch = (url, options) => before(url, {
  ...options, headers: {...options.headers, Authorization: 'vapid t=x.y.z, k=AA'}}); }"""
HELD = """{ const before = window.fetch; window.fetch = async (url, options) => {
  if (options.method === 'POST') await new Promise(resolve => { window.go = resolve });
  return before(url, options); }; }"""
"""What is sent waits for ``window.go()``."""
SWALLOWED = "window.fetch = async () => new Response(null, {status: 201})"
CUT = "window.fetch = async () => { throw new TypeError('no way') }"


async def test_why_it_does_not(make_server: Callable[..., Server], browser: Any) -> None:
    """Refused by the service; taken and never delivered; not even sent; not over https."""
    server = await start(make_server())
    async with browser(server.ws_url) as firefox:
        for script, reason, steps in (
            (REFUSED, "The answer is 401: Request did not validate", STEPS - 1),
            (SWALLOWED, "Nothing came in 5 seconds", STEPS),
            (CUT, f"This page can't reach {server.endpoint_url}: no way", STEPS - 1),
        ):
            await firefox.open(page_of(server))
            await firefox.load(script)
            said = await tried(firefox)
            assert reason in said
            assert await firefox.run(STATES) == ["done"] * (steps - 1) + ["failed"]
        await firefox.open(f"http://{NAME}:{server.port}/")
        said = await tried(firefox)
        assert "over https and at localhost only" in said
        assert f"this is http://{NAME}:{server.port}" in said


async def test_another_push_server(make_server: Callable[..., Server], browser: Any) -> None:
    server, other = make_server(), make_server()
    await asyncio.gather(start(server), start(other))
    async with browser(other.ws_url) as firefox:
        await firefox.open(page_of(server))
        said = await tried(firefox)
        assert f"It has subscribed at {other.endpoint_url}" in said
        assert f"set dom.push.serverURL to ws://localhost:{server.port}/" in said


async def test_no_push_server(make_server: Callable[..., Server], browser: Any) -> None:
    """A private one that is given no key: the browser tells pages nothing but that it failed."""
    key = access_key()
    server = await start(make_server("--access_key", key))
    async with browser(server.ws_url) as firefox:
        await firefox.open(page_of(server))
        assert "This service is private" in await firefox.run("document.body.textContent")
        await firefox.open(page_of(server) + key)
        shown = await firefox.run("document.getElementById('push-server').textContent")
        assert shown == f"ws://localhost:{server.port}/{key}"
        assert f"dom.push.serverURL has to be {shown}" in await tried(firefox)
    async with browser(server.ws_url + key) as firefox:
        await firefox.open(page_of(server) + key)
        await worked(firefox)


@pytest.mark.parametrize(
    ("preferences", "reason"),
    [
        ({"permissions.default.desktop-notification": 2}, "doesn't allow notifications"),
        ({"dom.serviceWorkers.enabled": False}, "There are no service workers here"),
        ({"dom.push.enabled": False}, "This browser has no Web Push"),
    ],
)
async def test_the_browser_is_not_able_or_not_willing(
    make_server: Callable[..., Server], browser: Any, preferences: Any, reason: str
) -> None:
    server = await start(make_server())
    async with browser(server.ws_url, **preferences) as firefox:
        await firefox.open(page_of(server))
        assert reason in await tried(firefox)


async def test_the_operators_token(make_server: Callable[..., Server], browser: Any) -> None:
    """Elsewhere than on the machine itself; it does not stay in the address."""
    token = access_key()
    server = await start(make_server("--page_token", token))
    site = f"http://{NAME}:{server.port}/"
    hidden = "document.getElementById('figures-part').hidden"
    async with browser(server.ws_url) as firefox:
        await firefox.open(site)
        assert await firefox.run(hidden) is True
        await firefox.open("about:blank")
        await firefox.open(f"{site}#token={token}")
        await until(firefox, FIGURE.replace("NAME", "Version"))
        assert await firefox.run("location.href") == site
        await firefox.open("about:blank")
        await firefox.open(f"{site}#token={access_key()}")
        trouble = "document.getElementById('figures-trouble').textContent"
        assert "not the one" in await until(firefox, trouble)
    assert token not in server.output


@pytest.mark.skipif(not NGINX, reason="nginx is not installed (apt-get install nginx-light)")
async def test_below_a_path(below: tuple[str, Server], browser: Any) -> None:
    """Through a proxy that takes the path off, and through one that doesn't."""
    url, _ = below
    async with browser(f"{url.replace('http', 'ws', 1)}/") as firefox:
        await firefox.open(f"{url}/")
        await worked(firefox)
        scope = "navigator.serviceWorker.getRegistrations().then(all => all.map(one => one.scope))"
        assert await firefox.run(scope) == [f"{url}/page/"]
        assert await firefox.run("document.getElementById('figures-part').hidden") is True


# ------------------------------------------------------------------------------------ for everybody


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
async def test_nothing_keeps_anybody_out(
    make_server: Callable[..., Server], browser: Any, scheme: int
) -> None:
    """axe finds nothing: on a phone and on a desk, before a try, after one, and after a failed one;
    and nothing is wider than the screen."""
    server = await start(make_server())
    axe = (built(AXE) / "node_modules/axe-core/axe.min.js").read_text("utf-8")
    async with browser(server.ws_url, **{SCHEME: scheme}) as firefox:

        async def check() -> None:
            for size in (PHONE, DESK):
                await firefox.resize(*size)
                assert await firefox.run(VIOLATIONS) == []
                wide = "document.documentElement.scrollWidth <= window.innerWidth"
                assert await firefox.run(wide)

        await firefox.open(page_of(server))
        await firefox.load(axe)
        await check()
        await worked(firefox)
        await until(firefox, FIGURE.replace("NAME", "Version"))
        await check()
        await firefox.load(REFUSED)
        await tried(firefox)
        await until(firefox, "document.getElementById('figures-reasons').rows.length")
        await check()
        dark = await firefox.run("matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark is (scheme == DARK)


async def test_a_keyboard_is_enough(make_server: Callable[..., Server], browser: Any) -> None:
    server = await start(make_server())
    async with browser(server.ws_url) as firefox:
        await firefox.open(page_of(server))
        await until(firefox, READY)
        reached: list[str] = []
        focused = "document.activeElement.id || document.activeElement.textContent"
        while "try-start" not in reached:
            await firefox.press(TAB)
            reached.append(await firefox.run(focused))
            assert len(reached) < 20, reached
        assert [one.split()[0] for one in reached] == ["Copy", "Copy", "Copy", "try-start"]
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await firefox.run(outline) == "solid"
        await firefox.load(PATIENT)
        await firefox.load(HELD)
        await firefox.press(ENTER)
        await until(firefox, "typeof window.go === 'function'")
        assert not await firefox.run(READY)
        assert await firefox.run(focused) == "try-start", "it is not taken away during the try"
        await firefox.press(ENTER)
        await firefox.run("window.go()")
        assert await until(firefox, RESULT) == ["It works."]
        assert await firefox.run(focused) == "try-start"
        await until(firefox, READY)
        assert len(await firefox.run(STATES)) == STEPS, "pressed twice, done once"


# ---------------------------------------------------------------------------------------- pictures


USUAL_PORT = """[...document.querySelectorAll('.place, code')]
  .forEach(one => { one.textContent = one.textContent.replace(':PORT', ':8080'); })"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get("SCREENSHOTS") or tmp_path)


@pytest.mark.parametrize(
    ("name", "scheme", "size"),
    [("desk", LIGHT, (760, 800)), ("phone", DARK, PHONE)],
    ids=["desk", "phone"],
)
async def test_pictures(
    make_server: Callable[..., Server],
    browser: Any,
    pictures: Path,
    name: str,
    scheme: int,
    size: tuple[int, int],
) -> None:
    """What the manual shows; they are put into the folder that ``SCREENSHOTS`` names."""
    server = make_server(host="localhost")
    await start(server)
    async with browser(server.ws_url, **{SCHEME: scheme}) as firefox:
        await firefox.resize(*size)
        await firefox.open(page_of(server))
        await worked(firefox)
        await until(firefox, FIGURE.replace("NAME", "Store") + " === 'works'")
        await firefox.run(USUAL_PORT.replace("PORT", str(server.port)))
        picture = await firefox.screenshot()
    assert picture[:4] == b"RIFF" and picture[8:12] == b"WEBP"
    (pictures / f"page-{name}.webp").write_bytes(picture)
