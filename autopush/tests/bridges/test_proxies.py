"""Bridges whose vendors are reached through a proxy, and trusted by the environment's word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import crypto

from automock.running import Background
from autopush.tests.bridges.support import BRIDGES, Bridge, Device, Node, Statsd
from autopush.tests.daemons import daemons
from autopush.tests.e2e.clients import push
from autopush.tests.e2e.harness import eventually, free_port

PASSWORD = "correct-horse"
AUTHORIZATION = "Basic dXNlcjpjb3JyZWN0LWhvcnNl"


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Background, Statsd, Any]]:
    statsd = Statsd()
    with Background() as mock, daemons() as make:
        yield mock, statsd, make
    statsd.close()


def environment(mock: Background, **more: str) -> dict[str, str]:
    return {"REQUESTS_CA_BUNDLE": str(mock.automock.authority.ca_file), **more}


@pytest.fixture(scope="module")
def node(started: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Behind a proxy that asks who we are."""
    mock, statsd, make = started
    with_password = mock["proxy"].url.replace("//", f"//user:{PASSWORD}@")
    env = environment(mock, HTTPS_PROXY=with_password)
    found = Node(tmp_path_factory.mktemp("proxied"), mock, statsd, make, env)
    yield found
    for daemon in found.daemons.values():
        assert daemon.process.poll() is None, daemon.output
        assert PASSWORD not in daemon.output and AUTHORIZATION not in daemon.output


@pytest.fixture(autouse=True)
def proxy(started: Any) -> Any:
    found = started[0]["proxy"]
    found.reset()
    found.configure({"credentials": f"user:{PASSWORD}"})
    return found


@pytest.fixture(params=BRIDGES)
def bridge(request: pytest.FixtureRequest, started: Any) -> Bridge:
    found = BRIDGES[request.param]
    started[0][found.stand_in].reset()
    return found


def hashed_directory(mock: Background, directory: Path) -> Path:
    """A directory of authorities as OpenSSL has them."""
    directory.mkdir()
    pem = mock.automock.authority.ca_file.read_bytes()
    name = crypto.load_certificate(crypto.FILETYPE_PEM, pem).subject_name_hash()
    (directory / f"{name:08x}.0").write_bytes(pem)
    (directory / "README").write_text("not one of them")
    (directory / "more").mkdir()
    (directory / "expired.pem").symlink_to("nowhere")
    return directory


def arrives(device: Device) -> None:
    """Messages get through; not at once perhaps, as vendors have no more than three seconds."""

    def arrived() -> bool:
        before = len(device.seen())
        answer = push(device.subscription, b"to be or not")
        assert answer.status_code in (201, 502), answer.text
        return answer.status_code == 201 and len(device.seen()) == before + 1

    eventually(arrived)


def test_messages_go_through_the_proxy(node: Node, bridge: Bridge, proxy: Any) -> None:
    device = node.register(bridge)
    arrives(device)
    node.mock.run(proxy.cut())
    arrives(device)
    assert f"127.0.0.1:{node.stand_in(bridge).port}" in proxy.targets
    for request in proxy.script.requests:
        assert request["headers"]["proxy-authorization"] == AUTHORIZATION


REFUSALS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("fcm_legacy", {"status": 407}, " answered CONNECT with 407"),
    ("apns", {"status": 407}, " answered CONNECT with 407"),
    ("fcm", {"status": 502, "body": "secret words"}, " answered CONNECT with 502"),
    ("adm", {"action": "close"}, " closed the connection without an answer"),
    ("gcm", {"action": "garbage"}, " doesn't speak HTTP"),
    ("gcm", {"status": 200, "headers": {"X-Long": "x" * 20_000}}, " answered too much"),
    ("adm", {"action": "hang"}, ""),
)


@pytest.mark.parametrize(("name", "script", "reason"), REFUSALS)
def test_a_proxy_that_refuses_is_like_a_bridge_out_of_reach(
    node: Node, proxy: Any, name: str, script: dict[str, Any], reason: str
) -> None:
    bridge = BRIDGES[name]
    device = node.register(bridge)
    arrives(device)  # there is a token, where one is needed
    proxy.script.add({**script, "times": 1000})
    node.mock.run(proxy.cut())
    daemon = node.daemons[bridge.version]
    before = len(daemon.lines)

    def refused() -> bool:
        answer = device.post(b"x")
        assert answer.status_code == 502, answer.text
        return f"the proxy {proxy.url}{reason}" in "\n".join(daemon.lines[before:])

    eventually(refused)
    assert "secret words" not in daemon.output
    proxy.script.reset()
    assert device.get().status_code == 200
    arrives(device)


def test_wrong_credentials(started: Any, tmp_path: Path, proxy: Any) -> None:
    mock, statsd, make = started
    env = environment(mock, HTTPS_PROXY=proxy.url.replace("//", "//user:wrong-staple@"))
    node = Node(tmp_path, mock, statsd, make, env, versions=(1,))
    for bridge in BRIDGES.values():
        if bridge.version == 1:
            assert node.register(bridge).post(b"x").status_code == 502, bridge
    assert "wrong-staple" not in node.daemons[1].output


def test_one_with_tls(started: Any, tmp_path: Path, proxy: Any) -> None:
    mock, statsd, make = started
    proxy.configure({"credentials": ""})
    env = environment(mock, https_proxy=mock["proxy"].tls_url)
    node = Node(tmp_path, mock, statsd, make, env, versions=(1,))
    for bridge in BRIDGES.values():
        if bridge.version == 1:
            arrives(node.register(bridge))
            assert f"127.0.0.1:{node.stand_in(bridge).port}" in proxy.targets


def test_exceptions(started: Any, tmp_path: Path, proxy: Any) -> None:
    mock, statsd, make = started
    env = {
        "ALL_PROXY": f"http://127.0.0.1:{free_port()}",
        "NO_PROXY": "localhost,127.0.0.0/8",
        "CURL_CA_BUNDLE": str(hashed_directory(mock, tmp_path / "authorities")),
    }
    node = Node(tmp_path, mock, statsd, make, env, versions=(1,))
    for bridge in BRIDGES.values():
        if bridge.version == 1:
            arrives(node.register(bridge))
    assert proxy.targets == []


def test_without_the_bundle_the_vendor_is_not_trusted(started: Any, tmp_path: Path) -> None:
    mock, statsd, make = started
    node = Node(tmp_path, mock, statsd, make, {}, versions=(1,))
    for bridge in BRIDGES.values():
        if bridge.version == 1:
            device = node.register(bridge)
            assert device.post(b"x").status_code == 502, bridge
            assert device.seen() == []
