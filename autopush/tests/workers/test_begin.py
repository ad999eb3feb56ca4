"""What a worker is given, and the configuration it makes of that."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from autopush.addresses import is_node_url
from autopush.app.standalone import standalone_config
from autopush.config import AutopushConfig
from autopush.options.commands import STANDALONE
from autopush.tests.e2e.harness import START_WITHIN, eventually
from autopush.workers import begin
from autopush.workers.begin import Begin, worker_config


def given(number: int, *options: str, sockets: bool = True, count: int = 3) -> Begin:
    ns = STANDALONE.parse((), ["--workers", str(count), *options])
    paths = [f"/run/worker-{n}.sock" for n in range(1, count + 1)] if sockets else []
    return Begin(["/x"], number, vars(ns), "key", {"channel": 3}, paths, None)


def test_it_is_the_same_at_the_other_end() -> None:
    sent = given(2, "--crypto_key", "k", "--allowed_origins", "https://a.example")
    assert Begin.load(sent.dump()) == sent
    assert Begin.load(sent.dump()).namespace == STANDALONE.parse(
        (), ["--workers", "3", "--crypto_key", "k", "--allowed_origins", "https://a.example"]
    )


def test_it_does_not_show_its_keys() -> None:
    assert "secret" not in repr(given(1, "--crypto_key", "secret"))


def test_nodes_know_each_other_and_nobody_else() -> None:
    configs = [worker_config(given(n)) for n in (1, 2, 3)]
    urls = [conf.router_url for conf in configs]
    assert len(set(urls)) == 3 and all(map(is_node_url, urls))
    for conf in configs:
        assert {f"http://{host}" for host in conf.worker_sockets} == set(urls)
        assert conf.router_host == f"unix:{conf.worker_sockets[conf.router_hostname or '']}"
        assert conf.has_peers
    # Whose records are whose is the same for the first as for a service of one process.
    one = standalone_config(STANDALONE.parse((), []))
    assert urls[0] == one.router_url


def test_ports_that_each_needs_follow_one_another() -> None:
    options = ("--router_port", "9001", "--memusage_port", "9101")
    configs = [worker_config(given(n, *options, sockets=False)) for n in (1, 2, 3)]
    assert [conf.router_port for conf in configs] == [9001, 9002, 9003]
    assert [conf.memusage_port for conf in configs] == [9101, 9102, 9103]
    assert configs[2].router_url == "http://localhost:9003"
    assert not any(conf.worker_sockets for conf in configs)


@pytest.mark.parametrize(("limit", "share"), [(0, 0), (1, 1), (30, 10), (31, 11)])
def test_each_takes_its_share_of_connections(limit: int, share: int) -> None:
    conf = worker_config(given(1, "--max_connections", str(limit)))
    assert conf.max_connections == share


def test_each_knows_its_number() -> None:
    assert [worker_config(given(n)).worker for n in (1, 2, 3)] == [1, 2, 3]


def test_all_else_is_as_it_was_given() -> None:
    def attributes(conf: AutopushConfig) -> dict[str, Any]:
        mine = [
            "fernet",
            "router_url",
            "router_host",
            "router_hostname",
            "router_ssl",
            "worker",
            "worker_sockets",
        ]
        # Without a key of its own each makes one.
        return {n: v for n, v in vars(conf).items() if n not in (*mine, "_crypto_key")}

    options = ("--port", "1", "--env", "x", "--max_stored", "7", "--router_ssl_key", "")
    expected = standalone_config(STANDALONE.parse((), ["--workers", "3", *options]))
    assert attributes(worker_config(given(2, *options))) == attributes(expected)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that was not told anything yet, where modules of the standard library seem to be."""
    for name in ("json", "signal", "autopush"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('somebody else's module')\n")
    process = subprocess.Popen(
        begin.command("a worker"),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def ignores_sigint(pid: int) -> bool:
    (mask,) = re.findall(
        r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    return bool(int(mask, 16) & 1 << signal.SIGINT - 1)


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_ctrl_c_is_the_supervisors_from_the_beginning(waiting: subprocess.Popen[bytes]) -> None:
    assert eventually(lambda: ignores_sigint(waiting.pid))
    waiting.send_signal(signal.SIGINT)
    assert waiting.communicate(timeout=START_WITHIN) == (None, b"")
    assert waiting.returncode == 1  # the supervisor has gone


def test_modules_are_not_looked_for_where_it_is_started(waiting: subprocess.Popen[bytes]) -> None:
    bad = orjson.dumps({"path": sys.path})
    _, said = waiting.communicate(bad, timeout=START_WITHIN)
    assert b"somebody else" not in said
    assert b"TypeError" in said  # it got as far as to read the rest, which isn't there


def test_nothing_secret_is_on_its_command_line() -> None:
    sent = given(1, "--crypto_key", "secret", "--page_token", "secret", "--auth_key", "secret")
    assert b"secret" in sent.dump()
    assert not any("secret" in word for word in begin.command("a worker"))


def test_the_service_manager_is_the_supervisors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/x")
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.setenv("HOME", "/home/x")
    kept = begin.environment()
    assert kept["HOME"] == "/home/x"
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & kept.keys()
