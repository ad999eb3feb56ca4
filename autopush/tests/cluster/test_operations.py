"""What an operator's tools get from real processes: metrics, failures, log files, memory."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from automock.running import Background
from autopush import __version__
from autopush.tests.cluster.harness import Daemon, SqliteStorage
from autopush.tests.e2e.clients import UserAgent, send
from autopush.tests.e2e.harness import Server, eventually, free_port


class Tools(NamedTuple):
    """A connection node and an endpoint node on one store, and the tools they report to."""

    mock: Any
    node: Daemon
    endpoint: Daemon
    prometheus: dict[str, str]
    memusage: dict[str, str]
    logs: dict[str, Path]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    home = tmp_path_factory.mktemp("operations")
    storage = SqliteStorage(home)
    names = {"autoendpoint": "endpoint", "autopush": "node"}
    metrics_ports = {name: free_port() for name in names.values()}
    memory_ports = {name: free_port() for name in names.values()}
    logs = {name: home / f"{name}.log" for name in names.values()}
    daemons: dict[str, Daemon] = {}
    with Background("sentry", "statsd") as mock:
        env = {"SENTRY_DSN": mock["sentry"].dsn}
        statsd = mock["statsd"].options()
        for command, name in names.items():
            daemon = daemons[name] = Daemon(command, home / name, env=env)
            daemon.words += [
                *("--hostname", "127.0.0.1", "--no_aws", "--debug"),
                *("--crypto_key", "0" * 43 + "="),
                *("--endpoint_port", str(daemons["endpoint"].port)),
                *("--statsd_host", statsd["statsd_host"]),
                *("--statsd_port", str(statsd["statsd_port"])),
                *("--prometheus_port", str(metrics_ports[name])),
                *("--memusage_port", str(memory_ports[name])),
                *("--log_output", str(logs[name])),
                *storage.options,
            ]
        try:
            for daemon in daemons.values():
                daemon.start()
            yield Tools(
                mock,
                daemons["node"],
                daemons["endpoint"],
                {name: f"http://127.0.0.1:{p}/metrics" for name, p in metrics_ports.items()},
                {name: f"http://127.0.0.1:{p}/_memusage" for name, p in memory_ports.items()},
                logs,
            )
        finally:
            for daemon in daemons.values():
                daemon.close()


def seen(tools: Tools) -> dict[str, set[tuple[str, ...]]]:
    """Tags by ``<name>|<type>`` of all statsd lines so far."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for line in list(tools.mock["statsd"].script.requests):
        assert "name" in line, line
        name = f"{line['name']}|{line['type']}"
        found.setdefault(name, set()).add(tuple(line["tags"]))
    return found


async def deliver(tools: Tools) -> None:
    """One message each way."""
    agent = await UserAgent.open(tools.node.ws_url)
    subscription = await agent.register()
    assert (await send(subscription, b"direct")).status_code == 201
    await agent.ack_and_wait(*await agent.receive_all(1))
    await agent.close()

    def stored() -> bool:
        return "autopush.ua.connection.lifespan|ms" in seen(tools)

    await asyncio.to_thread(eventually, stored)
    assert (await send(subscription, b"stored")).status_code == 201


async def test_statsd_gets_the_documented_metrics(tools: Tools) -> None:
    tools.mock["statsd"].reset()
    await deliver(tools)
    await asyncio.to_thread(
        eventually,
        lambda: len(seen(tools).get("autopush.notification.message.success|c", ())) == 2,
    )
    found = seen(tools)
    for name, tags in {
        "autopush.ua.command.hello|c": (),
        "autopush.ua.command.register|c": (),
        "autopush.ua.command.ack|c": (),
        "autopush.ua.message_data|c": ("source:Direct",),
        "autopush.updates.notification.encoding.aes128gcm|c": (),
        "autopush.notification.request_time|ms": (),
        "autopush.notification.message_data|c": ("destination:Stored",),
        "autopush.notification.message.success|c": (
            "destination:Stored",
            "router:webpush",
            "vapid:False",
        ),
    }.items():
        assert tags in found[name], name
    (lifespan,) = found["autopush.ua.connection.lifespan|ms"]
    assert lifespan[-2:] == ("host:127.0.0.1", "use_webpush:True")


def test_gauges_have_the_nodes_prefix(tools: Tools) -> None:
    def gauges() -> set[str]:
        return {name for name in seen(tools) if name.endswith("|g")}

    # They come every 15 seconds.
    assert eventually(lambda: len(gauges()) == 6 and gauges(), timeout=120) == {
        f"autopush.{prefix}twisted.threadpool.{name}|g"
        for prefix in ("", "autoendpoint.")
        for name in ("idleWorkerCount", "busyWorkerCount", "backloggedWorkCount")
    }


async def test_prometheus_fetches_the_same(tools: Tools) -> None:
    await deliver(tools)
    async with httpx.AsyncClient(trust_env=False) as client:
        node = (await client.get(tools.prometheus["node"])).text
        endpoint = (await client.get(tools.prometheus["endpoint"])).text
    assert re.search(r"^autopush_ua_command_hello_total \d", node, re.MULTILINE)
    assert re.search(r"^autopush_notification_age_seconds_count [1-9]", node, re.MULTILINE)
    for name in "request_time", "route_time":
        line = rf"^autopush_notification_{name}_seconds_count [1-9]"
        assert re.search(line, endpoint, re.MULTILINE), name
    success = (
        'autopush_notification_message_success_total{destination="Direct",router="webpush",'
        'vapid="False"}'
    )
    assert success in endpoint


def test_failure_reaches_sentry(tools: Tools) -> None:
    tools.mock["sentry"].reset()
    url = f"{tools.endpoint.url}/v1/err/crit"
    headers = {"Authorization": "Bearer hunter2hunter2"}
    assert httpx.get(url, headers=headers, trust_env=False).status_code == 418
    (event,) = eventually(lambda: tools.mock["sentry"].events)
    assert event["release"] == __version__
    assert event["exception"]["values"][-1]["value"]
    whole = json.dumps(event)
    assert "hunter2" not in whole
    assert "000000000" not in whole, "the command line has the key"


def test_memory_api(tools: Tools) -> None:
    for name, url in tools.memusage.items():
        response = httpx.get(url, timeout=60, trust_env=False)
        assert response.status_code == 200, name
        assert response.headers["Content-Type"] == "text/html; charset=UTF-8"
        for part in "ru_maxrss=", "<malloc ", "gc generation":
            assert part in response.text, (name, part)
        assert re.search(r"^Logger \d+$", response.text, re.MULTILINE), name
        short = httpx.get(url, params={"objgraph": "FALSE"}, timeout=60, trust_env=False).text
        assert not re.search(r"^Logger \d+$", short, re.MULTILINE), name
        other = httpx.get(url.replace("_memusage", "status"), trust_env=False)
        assert other.status_code == 404
        assert other.text.startswith("<html><title>404: Not Found")


def tells_of_405(path: Path) -> bool:
    return "Request refused: 405" in path.read_text()


def test_sighup_goes_on_in_a_new_log_file(tools: Tools) -> None:
    for daemon, name in ((tools.endpoint, "endpoint"), (tools.node, "node")):
        path = tools.logs[name]
        old = path.with_suffix(".1")
        path.rename(old)
        daemon._popen.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        eventually(path.exists)
        before = old.stat().st_size
        internal = daemon.router_port if name == "node" else daemon.port
        bad = f"http://127.0.0.1:{internal}/health"
        assert httpx.request("PATCH", bad, trust_env=False).status_code == 405
        eventually(partial(tells_of_405, path))
        assert old.stat().st_size == before
        for line in old.read_text().splitlines():
            json.loads(line)


def test_standalone_has_them_as_well(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    with Background("sentry", "statsd") as mock:
        server = Server(
            tmp_path,
            *("--prometheus_port", str(ports[0]), "--memusage_port", str(ports[1])),
            *("--statsd_host", "localhost", "--statsd_port", str(mock["statsd"].port)),
            env={"SENTRY_DSN": mock["sentry"].dsn},
        )
        with server:
            text = httpx.get(f"http://127.0.0.1:{ports[0]}/metrics", trust_env=False).text
            assert "process_resident_memory_bytes" in text
            url = f"http://127.0.0.1:{ports[1]}/_memusage"
            assert "ru_maxrss=" in httpx.get(url, timeout=60, trust_env=False).text
            httpx.get(f"{server.endpoint_url}/v1/err/crit", trust_env=False)
            assert eventually(lambda: mock["sentry"].events)
            assert eventually(lambda: mock["statsd"].lines)


def test_bad_sentry_dsn_is_one_line_and_status_1(tmp_path: Path) -> None:
    daemon = Daemon("autoendpoint", tmp_path / "home", "--no_aws", env={"SENTRY_DSN": "http://key"})
    daemon.spawn()
    assert daemon.wait() == 1
    assert "Invalid SENTRY_DSN" in daemon.output
    assert "Traceback" not in daemon.output
