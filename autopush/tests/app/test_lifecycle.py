"""The commands as processes, from start to end: spec/configuration 6, 10, 12 and 14."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from types import SimpleNamespace

import httpx
import psutil
import pytest
from cryptography.fernet import Fernet
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock

from autopush.app import lifecycle, service
from autopush.app.lifecycle import Lifecycle, report_file_limit
from autopush.app.process import Listener
from autopush.app.systemd import ServiceManager
from autopush.tests.daemons import daemons
from autopush.tests.e2e.harness import (
    START_WITHIN,
    STOP_WITHIN,
    environment,
    eventually,
    free_port,
)
from autopush.tests.tlsfiles import make_certificate

COMMANDS = ("autopush", "autoendpoint", "autopush_standalone")
KEYS = ("--crypto_key", Fernet.generate_key().decode())
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture
def make():
    with daemons() as make:
        yield make


def options(command, home, port):
    """Options with which a command runs here, quietly."""
    if command == "autopush_standalone":
        return ["--port", str(port), "--data_dir", str(home / "data")]
    common = ["--port", str(port), "--no_aws", "--statsd_host=", "--hostname", "127.0.0.1", *KEYS]
    common += ["--db_dsn", f"sqlite://{home}/db"]
    if command == "autoendpoint":
        return [*common, "--auth_key", "k" * 20]
    return [*common, "--router_port", str(free_port())]


def start(make, home, command, *more, **kwargs):
    port = free_port()
    daemon = make(home, command, *options(command, home, port), *more, **kwargs).listens(port)
    daemon.port = port
    return daemon


def refusal(make, home, command, *more):
    """Start a command that can't; returns the one line it says."""
    port = free_port()
    human = [] if command == "autopush_standalone" else ["--human_logs"]
    daemon = make(home, command, *options(command, home, port), *human, *more)
    assert daemon.wait(START_WITHIN) == 1, daemon.output
    assert "Traceback" not in daemon.output
    errors = [line for line in daemon.lines if "critical" in line or "error:" in line]
    assert len(errors) == 1, daemon.output
    return errors[0], daemon


# ---------------------------------------------------------------------------------- the start


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--crypto_key", "short"], "Invalid crypto_key"),
        (["--apns_creds", "[1]"], "Invalid JSON specified for APNS config options"),
        (["--client_certs", '{"a": 1}'], "Invalid JSON specified for client_certs"),
        (["--ssl_key", "/nowhere/key", "--ssl_cert", "/x"], "TLS key /nowhere/key can't be read"),
        (["--ssl_key", "/dev/null", "--ssl_cert", "/dev/null"], "holds no usable private key"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_errors_before_the_ports_open_are_one_line(make, tmp_path, command, more, text):
    if command == "autopush" and more[0] == "--client_certs":
        more, text = ["--router_ssl_key", "/dev/null"], "no certificate file"
    line, daemon = refusal(make, tmp_path, command, *more)
    assert text in line
    assert "starting on" not in daemon.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_that_fails_keeps_the_ports_closed(make, tmp_path, command):
    """Storage comes before the listeners in the order of spec/configuration 6."""
    (tmp_path / "db").write_bytes(b"no database, but long enough to be one " * 100)
    keys = [] if command == "autopush" else [*KEYS, "--auth_key", "k" * 20]
    line, daemon = refusal(make, tmp_path, command, "--db_dsn", f"sqlite://{tmp_path}/db", *keys)
    assert "is not an SQLite database" in line
    assert "starting on" not in daemon.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_port_in_use(make, tmp_path, command):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        line, _ = refusal(make, tmp_path, command, "--port", str(port))
    assert re.search(rf"Can't listen on \S+:{port}: Address already in use", line)


def test_a_second_port_in_use_ends_the_start_as_well(make, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line, _ = refusal(make, tmp_path, "autoendpoint", "--proxy_protocol_port", str(port))
    assert f":{port}: Address already in use" in line


def test_listeners_in_the_order_of_the_documentation(make, tmp_path):
    """spec/configuration 6, step 9, with the names of its log lines."""
    key, cert, _ = make_certificate(tmp_path)
    tls = ["--ssl_key", key, "--ssl_cert", cert]
    proxy = free_port()
    endpoint = start(
        make, tmp_path, "autoendpoint", "--proxy_protocol_port", str(proxy), *tls
    ).listens(proxy)
    connection = start(make, tmp_path, "autopush", *tls)
    for daemon, names in (
        (endpoint, ["EndpointHTTPFactory (TLS)", "EndpointHTTPFactory (TLS) (PROXY)"]),
        (connection, ["InternalRouterHTTPFactory", "ConnectionWSSite (TLS)"]),
    ):
        daemon.says("starting on", len(names))
        found = [e["message"].partition(" starting on ") for e in daemon.events]
        assert [name for name, says, _ in found if says] == names


def test_a_listener_that_fails_raises_at_the_start():
    def bind():
        raise CannotListenError("", 1, OSError(98, "in use"))

    with pytest.raises(CannotListenError):
        Listener(bind).startService()


# ---------------------------------------------------------------------------- open files


@pytest.mark.parametrize("command", COMMANDS)
def test_the_limit_of_open_files_is_raised_and_reported(make, tmp_path, command):
    prefix = ("sh", "-c", 'ulimit -Sn 256; ulimit -Hn 5000; exec "$@"', "sh")
    daemon = start(make, tmp_path, command, prefix=prefix)
    assert psutil.Process(daemon.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (5000, 5000)
    assert daemon.says("5000 files and connections may be open")


def test_too_few_open_files_are_warned_of(make, tmp_path):
    prefix = ("sh", "-c", 'ulimit -n 300; exec "$@"', "sh")
    daemon = start(make, tmp_path, "autopush", "--max_connections", "1000", prefix=prefix)
    (line,) = daemon.says("Only 300 files and connections may be open, 1200 are wanted")
    assert json.loads(line)["Fields"]["log_level"] == "warn"


@pytest.mark.parametrize(
    ("limit", "most", "level"),
    [(5000, None, "info"), (4000, None, "warn"), (1200, 1000, "info"), (1199, 1000, "warn")],
)
def test_which_limit_is_enough(monkeypatch, limit, most, level):
    said = []

    class Log:
        def info(self, *args, **kwargs):
            said.append("info")

        def warn(self, *args, **kwargs):
            said.append("warn")

    monkeypatch.setattr(lifecycle, "log", Log())
    report_file_limit(limit, most)
    assert said == [level]


# ------------------------------------------------------------------------------------ the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_it_in_order(make, tmp_path, command, number):
    daemon = start(make, tmp_path, command)
    daemon.process.send_signal(number)
    assert daemon.wait() == 0
    assert f"Received {number.name}, shutting down." in daemon.output


@pytest.mark.parametrize("command", ["autopush", "autopush_standalone"])
def test_user_agents_get_a_close_frame_and_a_second_signal_ends_at_once(make, tmp_path, command):
    daemon = start(make, tmp_path, command)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as sock:
        sock.sendall(HANDSHAKE)
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        daemon.process.send_signal(signal.SIGTERM)
        assert sock.recv(100)[:1] == b"\x88"
        # It waits for the end of this connection, which doesn't come.
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait() == 1  # not in order


@pytest.mark.parametrize("command", COMMANDS)
def test_signals_that_come_together_are_one(make, tmp_path, command):
    daemon = start(make, tmp_path, command)
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        daemon.process.send_signal(number)
    assert daemon.wait() == 0
    assert daemon.output.count("shutting down.") == 1
    assert "Traceback" not in daemon.output
    assert "ReactorNotRunning" not in daemon.output


def test_it_ends_within_five_seconds_though_nothing_else_does(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(service, "reactor", clock)

    def never(*_):
        return Deferred()

    application = service.AutopushMultiService.__new__(service.AutopushMultiService)
    service.MultiService.__init__(application)
    application._stopping = None
    application.drain = application.close_routers = never
    application.agent = application.db = SimpleNamespace(close=never)
    application.metrics = SimpleNamespace(stop=never)
    stopped = application.stopService()
    clock.pump([0.1] * 50)
    assert stopped.called


PATIENT = """
import autopush.app.service as service
import autopush.db.groupwriter as groupwriter, autopush.db.sqlite.schema as schema
service.STOP_WITHIN = groupwriter.DEADLINE = schema.WRITE_WAIT = 100.0
"""
"""For a daemon that waits for its store, and for the end of what it does, as long as it takes."""


def test_an_endpoint_answers_what_it_has_begun(make, tmp_path):
    daemon = start(make, tmp_path, "autoendpoint", before=PATIENT)
    with (
        socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as sock,
        contextlib.closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as locker,
    ):
        locker.execute("BEGIN IMMEDIATE")  # so that it can't answer yet
        other = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"
        head = b"POST /v1/webpush/a/registration HTTP/1.1\r\nHost: x\r\nContent-Length: 2"
        # They are read together, so with the answer to one the other has begun.
        sock.sendall(other + head + b"\r\n\r\n{}")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.says("shutting down")
        locker.execute("ROLLBACK")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert daemon.wait() == 0


# ------------------------------------------------------------------------------------- SIGHUP


@pytest.mark.parametrize("command", COMMANDS)
def test_sighup_reopens_the_log_file(make, tmp_path, command):
    log, old = tmp_path / "log", tmp_path / "log.1"
    daemon = start(make, tmp_path, command, "--log_output", str(log))
    log.rename(old)
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: log.exists() and "Received SIGHUP, reloading." in log.read_text())
    before = old.read_text()
    assert "starting on" in before and "SIGHUP" not in before
    assert daemon.stop() == 0
    assert "Received SIGTERM" in log.read_text()
    assert old.read_text() == before


@pytest.mark.parametrize("command", COMMANDS)
def test_sighup_interrupts_nothing(make, tmp_path, command):
    daemon = start(make, tmp_path, command)
    with httpx.Client() as client:
        url = f"http://127.0.0.1:{daemon.port}/status"
        client.get(url)
        for _ in range(3):
            daemon.hang_up()
        assert client.get(url).status_code == 200
    assert daemon.stop() == 0


def test_a_log_file_that_can_not_be_reopened_is_no_reason_to_stop():
    class Reactor:
        pass

    def fails():
        raise OSError(28, "No space left on device", "/log")

    Lifecycle(Reactor(), fails, ServiceManager({})).reload()


def with_terminal(home, command, *more, prefix=()):
    """Start a command in a terminal of its own; returns process, terminal and port."""
    port = free_port()
    names = {"autopush_standalone": "StandaloneApplication"}
    script = f"import sys, autopush.main as m; sys.exit(m.{names[command]}.main())"
    master, slave = pty.openpty()

    def take_terminal():
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", script, *options(command, home, port), *more],
        cwd=home,
        env=environment(home),
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=take_terminal,  # noqa: PLW1509 (no other thread runs here)
    )
    os.close(slave)
    return process, master, port


@contextlib.contextmanager
def ending(process):
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def listens(port):
    def check():
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return True
        return False

    eventually(check, 60)


def test_it_ends_with_the_terminal_it_was_started_from(tmp_path):
    process, master, port = with_terminal(tmp_path, "autopush_standalone")
    with ending(process):
        listens(port)
        process.send_signal(signal.SIGHUP)  # the terminal is still there: a reload
        while b"Received SIGHUP, reloading." not in (line := process.stdout.readline()):
            assert line, "it has ended"
        os.close(master)
        assert b"The terminal was closed, shutting down." in process.stdout.read()
        assert process.wait(STOP_WITHIN) == 0


def test_with_nohup_it_outlives_its_terminal(tmp_path):
    process, master, port = with_terminal(tmp_path, "autopush_standalone", prefix=("nohup",))
    with ending(process):
        listens(port)
        os.close(master)
        time.sleep(0.5)
        assert httpx.get(f"http://127.0.0.1:{port}/status").status_code == 200
        process.terminate()
        output = process.communicate(timeout=STOP_WITHIN)[0].decode()
        assert process.returncode == 0
        assert "terminal was closed" not in output


# -------------------------------------------------------------------------- service manager


@pytest.mark.parametrize("command", COMMANDS)
def test_the_service_manager_is_told(make, tmp_path, command):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(START_WITHIN)
        port = free_port()
        daemon = make(
            tmp_path,
            command,
            *options(command, tmp_path, port),
            # The kernel keeps ten messages. Signs of life that come too fast for a busy machine
            # would leave no room for others.
            env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000"},
        )

        def told(name):
            while True:
                lines = sock.recv(4096).decode().split("\n")
                if lines[0] != "WATCHDOG=1" or name == "WATCHDOG=1":
                    assert lines[0] == name
                    return

        told("READY=1")
        socket.create_connection(("127.0.0.1", port)).close()  # it is the truth
        for _ in range(3):
            told("WATCHDOG=1")
        daemon.process.send_signal(signal.SIGHUP)
        told("RELOADING=1")
        told("READY=1")
        daemon.process.send_signal(signal.SIGTERM)
        told("STOPPING=1")
        assert daemon.wait() == 0


def test_the_service_manager_is_not_told_ready_if_the_start_fails(make, tmp_path):
    path = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        sock.bind(path)
        port = taken.getsockname()[1]
        daemon = make(
            tmp_path,
            "autopush_standalone",
            *options("autopush_standalone", tmp_path, port),
            env={"NOTIFY_SOCKET": path},
        )
        assert daemon.wait(START_WITHIN) == 1
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            assert b"READY" not in sock.recv(4096)


# ------------------------------------------------------------------------------------- health


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Both daemons on one file, and the standalone service; with their HTTP origins."""
    home = tmp_path_factory.mktemp("nodes")
    with daemons() as make:
        endpoint, connection = start(make, home, "autoendpoint"), start(make, home, "autopush")
        router = int(connection.process.args[connection.process.args.index("--router_port") + 1])
        standalone = start(make, home, "autopush_standalone")
        yield (
            home,
            {
                "endpoint": f"http://127.0.0.1:{endpoint.port}",
                "router": f"http://127.0.0.1:{router}",
                "standalone": f"http://127.0.0.1:{standalone.port}",
                "websocket": f"http://127.0.0.1:{connection.port}",
            },
        )


@pytest.mark.parametrize("node", ["endpoint", "router", "standalone"])
def test_health_routes(nodes, node):
    """spec/configuration 10."""
    origin = nodes[1][node]
    # On a busy machine a write may take longer than the service calls healthy.
    eventually(lambda: httpx.get(f"{origin}/health").status_code == 200)
    status = httpx.get(f"{origin}/status")
    assert (status.status_code, status.json()["status"]) == (200, "OK")
    assert httpx.get(f"{origin}/__heartbeat__").json() == status.json()
    balancer = httpx.get(f"{origin}/__lbheartbeat__")
    assert (balancer.status_code, balancer.content) == (200, b"")
    assert balancer.headers["content-type"] == "text/html; charset=UTF-8"
    assert httpx.get(f"{origin}/__version__").headers["content-type"] == "application/json"
    health = httpx.get(f"{origin}/health")
    assert (health.status_code, health.json()["status"]) == (200, "OK")
    for path in ("/status", "/health", "/__version__", "/__heartbeat__", "/__lbheartbeat__"):
        assert httpx.get(f"{origin}{path}?x=1").status_code == 200
        for method in ("HEAD", "OPTIONS"):
            answer = httpx.request(method, f"{origin}{path}")
            assert (answer.status_code, answer.content) == (200, b"")
        answer = httpx.post(f"{origin}{path}")
        assert (answer.status_code, answer.json()["code"]) == (405, 405)
        assert httpx.get(f"{origin}{path}x").status_code == 404


@pytest.mark.parametrize("node", ["endpoint", "standalone"])
def test_log_check_route(nodes, node):
    assert httpx.get(f"{nodes[1][node]}/v1/err/error").status_code == 418


def test_there_is_no_log_check_on_the_connection_node(nodes):
    assert httpx.get(f"{nodes[1]['router']}/v1/err").status_code == 404


def test_status_on_the_websocket_port(nodes):
    origin = nodes[1]["websocket"]
    for path in ("/status", "/status/x"):
        for method in ("GET", "POST", "DELETE"):
            answer = httpx.request(method, f"{origin}{path}")
            assert (answer.status_code, answer.json()["status"]) == (200, "OK")


@pytest.mark.parametrize(
    ("node", "file"),
    [
        ("endpoint", "db"),
        ("router", "db"),
        ("standalone", "data/autopush.sqlite3"),
    ],
)
def test_health_of_a_locked_database(nodes, node, file):
    home, origins = nodes
    url = f"{origins[node]}/health"

    def health():
        answer = httpx.get(url)
        return answer.status_code, answer.json()["storage"]

    eventually(lambda: health() == (200, {"status": "OK"}))
    with contextlib.closing(sqlite3.connect(home / file, isolation_level=None)) as locker:
        locker.execute("BEGIN IMMEDIATE")
        eventually(lambda: health()[0] == 503)
        assert health()[1]["status"] == "NOT OK"
        locker.execute("ROLLBACK")
    eventually(lambda: health() == (200, {"status": "OK"}))


@pytest.mark.parametrize("node", ["endpoint", "router"])
def test_health_of_a_missing_table(nodes, node):
    home, origins = nodes
    with contextlib.closing(sqlite3.connect(home / "db")) as connection:
        connection.execute("ALTER TABLE users RENAME TO lost")

        def whose_storage_is_well():
            answer = httpx.get(f"{origins[node]}/health")
            return answer if answer.json()["storage"] == {"status": "OK"} else None

        try:
            answer = eventually(whose_storage_is_well)
        finally:
            connection.execute("ALTER TABLE lost RENAME TO users")
    assert answer.status_code == 503
    body = answer.json()
    assert body["status"] == "NOT OK"
    assert body["router"] == {"status": "NOT OK", "error": "Nonexistent table"}
