"""The command from start to end: spec/configuration 6, 7, 8 and 12."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from autopush import __version__
from autopush.app.process import surviving, within
from autopush.tests.e2e.clients import PATIENCE, BlockingClient
from autopush.tests.e2e.harness import Server, eventually, free_port, run
from autopush.tests.tlsfiles import make_certificate

HELLO = json.dumps({"messageType": "hello", "use_webpush": True})


@pytest.fixture
def make(tmp_path):
    """Makes servers of this test's own."""
    with contextlib.ExitStack() as stack:

        def start(*options, **kwargs):
            home = kwargs.pop("home", tmp_path / f"home{len(os.listdir(tmp_path))}")
            home.mkdir(exist_ok=True)
            return stack.enter_context(Server(home, *options, **kwargs))

        yield start


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def refused(home, *args):
    """Run a command that can't start; returns its one line."""
    if "--port" not in args:
        args = ("--port", "0", *args)
    done = run(*args, home=home)
    assert done.returncode == 1, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("autopush_standalone: error: ")
    assert "autopush is ready" not in done.stdout
    return lines[0].removeprefix("autopush_standalone: error: ")


# ------------------------------------------------------------------------------ a good start


def test_start_up_lines(make):
    server = make()
    lines = server.lines
    ready = lines.index("autopush is ready")
    text = "\n".join(line for line in lines[:ready] if not line.startswith("{"))
    assert f"autopush {__version__}" in text
    assert server.ws_url in text
    assert server.endpoint_url in text
    assert str(server.data_dir) in text
    assert f"dom.push.serverURL = {server.ws_url}" in text
    assert "dom.push.testing.allowInsecureServerURL = true" in text


def test_logs_are_json_when_standard_output_is_no_terminal(make):
    events = [json.loads(line) for line in make().lines if line.startswith("{")]
    assert any(e["Fields"]["message"].startswith("StandaloneHTTPFactory starting") for e in events)


def test_human_logs(make):
    lines = make("--human_logs").lines
    assert any(re.match(r"\d{4}-.*StandaloneHTTPFactory starting on", line) for line in lines)


def test_port_0_takes_any_free_port_and_urls_say_which(tmp_path):
    server = Server(tmp_path)
    server.port = 0
    with server:
        url = re.search(r"ws://127\.0\.0\.1:(\d+)/", server.output)
        assert url and url[1] != "0"
        server.port = int(url[1])
        assert endpoint_of(server).startswith(f"http://127.0.0.1:{url[1]}/wpush/v1/")


def endpoint_of(server, url=None, **kwargs):
    with BlockingClient(url or server.ws_url, **kwargs) as browser:
        browser.send(HELLO)
        browser.recv()
        channel = "11111111-2222-4333-8444-555555555555"
        browser.send(json.dumps({"messageType": "register", "channelID": channel}))
        return json.loads(browser.recv())["pushEndpoint"]


def test_one_port_serves_both(make):
    server = make()
    assert httpx.get(f"{server.endpoint_url}/status").status_code == 200
    assert endpoint_of(server).startswith(server.endpoint_url)


def test_endpoint_port_puts_the_api_on_its_own(make):
    server = make(separate=True)
    assert endpoint_of(server).startswith(server.endpoint_url)
    assert httpx.post(f"{server.endpoint_url}/wpush/v1/x").status_code == 404
    public = f"http://127.0.0.1:{server.port}"
    assert httpx.get(f"{public}/status").status_code == 200
    assert httpx.post(f"{public}/wpush/v1/x").status_code != 404


def test_router_port_is_off_unless_given(make):
    server = make(router=True)
    path = "/push/deadbeef0000000000000000deadbeef"
    assert httpx.put(f"{server.router_url}{path}", json={}).status_code == 404
    refusal = httpx.put(f"{server.endpoint_url}{path}", json={})
    assert refusal.headers["content-type"] == "application/json"  # the public API's own 404
    assert refusal.status_code == 404


def test_public_url_is_in_endpoints_and_start_up_lines(make):
    server = make("--public_url", "https://push.example.org/")
    assert endpoint_of(server).startswith("https://push.example.org/wpush/")
    assert "dom.push.serverURL = wss://push.example.org/" in server.output
    assert "allowInsecure" not in server.output


def test_public_url_with_a_path(make):
    server = make("--public_url", "https://example.org/push/")
    assert endpoint_of(server).startswith("https://example.org/push/wpush/")
    assert "dom.push.serverURL = wss://example.org/push/\n" in server.output
    assert "page:       https://example.org/push/\n" in server.output


def page_and_figures(server):
    with httpx.Client(base_url=server.endpoint_url, trust_env=False) as client:
        return [client.get(path).status_code for path in ("/", "/page/figures")]


def test_the_page_is_there_unless_it_is_not_wanted(make):
    server = make()
    assert f"page:       {server.endpoint_url}/\n" in server.output
    assert page_and_figures(server) == [200, 200]
    server = make("--page", "off")
    assert "page:" not in server.output
    assert page_and_figures(server) == [404, 404]


def test_the_page_without_figures(make):
    server = make("--page", "info")
    assert "page:" in server.output
    assert page_and_figures(server) == [200, 404]


def test_the_page_is_where_the_http_api_is(make):
    server = make(separate=True)
    assert f"page:       {server.endpoint_url}/\n" in server.output
    assert page_and_figures(server) == [200, 200]
    page = httpx.get(server.endpoint_url, trust_env=False).text
    assert f">{server.ws_url}<" in page


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_all_addresses(make):
    port = free_port("::")
    server = make("--host", "::", "--port", str(port), "--hostname", "localhost")
    for host in ("127.0.0.1", "[::1]"):
        assert endpoint_of(server, f"ws://{host}:{port}/").startswith(f"http://localhost:{port}/")
    assert "--public_url" in server.output


def test_internal_port_has_an_address_of_its_own(make):
    internal = free_port("127.0.0.2")
    server = make("--router_host", "127.0.0.2", "--router_port", str(internal))
    assert f"  other nodes: 127.0.0.2:{internal}" in server.output
    assert httpx.get(f"http://127.0.0.2:{internal}/status").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{internal}/status")


def test_unix_socket(make, tmp_path):
    path = str(tmp_path / "s")
    server = make(host=f"unix:{path}")
    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
        assert client.get("http://localhost/status").status_code == 200
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        assert endpoint_of(server, "ws://localhost/", sock=sock).startswith("http://localhost/")
    server.kill()
    server.start()  # a socket left by a crash is no obstacle
    assert server.stop() == 0
    assert not os.path.exists(path)


def test_open_file_limit_is_raised():
    script = (
        "import resource as r; from autopush.app.process import raise_file_limit as raise_\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, 128)); raise_(); print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "(128, 128)\n", done.stderr


def test_options_from_file_and_environment(make, tmp_path):
    config = tmp_path / "x.ini"
    config.write_text("public_url = https://from.file\n")
    server = make("--config", str(config), env={"HUMAN_LOGS": "true"})
    assert "https://from.file" in server.output
    assert not any(line.startswith("{") for line in server.lines)


# ------------------------------------------------------------------------------------- TLS


def test_tls(make, tls):
    server = make(tls=tls[:2])
    context = ssl.create_default_context(cafile=tls[1])
    assert httpx.get(f"{server.endpoint_url}/status", verify=context).status_code == 200
    assert endpoint_of(server, ssl=context).startswith(server.endpoint_url)


def test_client_certificates(make, tls, tmp_path):
    client = make_certificate(tmp_path, "client")
    certs = json.dumps({"partner": [client[2]]})
    server = make("--client_certs", certs, tls=tls[:2])
    context = ssl.create_default_context(cafile=tls[1])
    url = f"{server.endpoint_url}/wpush/v1/x"
    answer = httpx.post(url, verify=context)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Transport mode="tls-client-certificate"'
    context.load_cert_chain(client[1], client[0])
    assert httpx.post(url, verify=context).status_code == 404


# ------------------------------------------------------------------------- 8 PROXY protocol

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
    + socket.inet_aton("192.0.2.7")
    + socket.inet_aton("192.0.2.8")
    + b"\x04\xd2\x00\x50"
)
REQUEST = b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def exchange(port, *chunks, context=None):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        if context is not None:
            sock.sendall(chunks[0])
            sock = context.wrap_socket(sock, server_hostname="localhost")
            chunks = chunks[1:]
        answer = b""
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                sock.sendall(chunk)
            while data := sock.recv(65536):
                answer += data
        return answer


def test_proxy_protocol_port(make):
    port = free_port()
    server = make("--proxy_protocol_port", str(port), "--log_level", "debug")
    for header in (V1, V2):
        assert exchange(port, header + REQUEST).startswith(b"HTTP/1.1 200 ")
    bad = b"GET /v1/err/crit HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert exchange(port, V1 + bad).startswith(b"HTTP/1.1 418 ")
    eventually(lambda: '"remote_ip":"192.0.2.7"' in server.output)
    # The ordinary port doesn't understand it.
    assert exchange(server.port, V1 + REQUEST).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "header",
    [
        b"GET /",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 many 80\r\n",
        b"PROXY TCP4 \xff 192.0.2.8 1 80\r\n",
        b"PROXY TCP9 a b 1 2\r\n",
        b"PROXY " + b"x" * 200,
        b"\r\n\r\n\x00\r\nQUIT\n\x2f\x99\x00\x00",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x01x",
    ],
)
def test_bad_proxy_headers_close_without_a_byte(proxied, header):
    server, port = proxied
    assert exchange(port, header + REQUEST) == b""
    assert "Traceback" not in server.output
    assert exchange(port, V1 + REQUEST).startswith(b"HTTP/1.1 200 ")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory, tls):
    port = free_port()
    home = tmp_path_factory.mktemp("proxied")
    with Server(home, "--proxy_protocol_port", str(port), "--human_logs") as server:
        yield server, port


def test_tls_follows_the_proxy_header(make, tls):
    port = free_port()
    make("--proxy_protocol_port", str(port), tls=tls[:2])
    context = ssl.create_default_context(cafile=tls[1])
    assert exchange(port, V1, REQUEST, context=context).startswith(b"HTTP/1.1 200 ")


# ----------------------------------------------------------------------------- start errors


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(tmp_path, "--port", str(port))
    assert text == f"Can't listen on 127.0.0.1:{port}: Address already in use (port, command line)"


def test_address_that_is_not_ours(tmp_path):
    assert "Can't listen on 192.0.2.1:0" in refused(tmp_path, "--host", "192.0.2.1")


def test_host_that_does_not_exist(tmp_path):
    assert "Can't listen on nowhere.invalid:0" in refused(tmp_path, "--host", "nowhere.invalid")


def test_unix_socket_in_use(make, tmp_path):
    path = str(tmp_path / "s")
    make(host=f"unix:{path}")
    text = refused(tmp_path, "--host", f"unix:{path}", "--data_dir", str(tmp_path / "other"))
    assert text == f"Can't listen on unix:{path}: in use by another process (host, command line)"


def test_second_process_on_the_same_directory(make, tmp_path):
    server = make()
    text = refused(tmp_path, "--data_dir", str(server.data_dir))
    assert "is in use by another autopush process" in text
    assert endpoint_of(server)


def test_unwritable_data_dir(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "is not a directory" in refused(tmp_path, "--data_dir", "file")
    assert "data_dir" in refused(tmp_path, "--data_dir", "/proc/nowhere")


def test_bad_key_file(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "crypto_key").write_text("nonsense")
    assert "Bad key file" in refused(tmp_path, "--data_dir", "data")
    assert (tmp_path / "data" / "crypto_key").read_text() == "nonsense"
    assert not (tmp_path / "data" / "autopush.sqlite3").exists()


@pytest.fixture
def stopped(make):
    server = make()
    assert server.stop() == 0
    return server


def test_corrupt_database(stopped, tmp_path):
    database = stopped.data_dir / "autopush.sqlite3"
    database.write_bytes(b"SQLite format 2 or so " * 1000)
    before = database.read_bytes()
    text = refused(tmp_path, "--data_dir", str(stopped.data_dir))
    assert str(database) in text
    assert database.read_bytes() == before


def test_database_of_a_newer_schema(stopped, tmp_path):
    database = stopped.data_dir / "autopush.sqlite3"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 9999")
    before = database.read_bytes()
    assert "newer" in refused(tmp_path, "--data_dir", str(stopped.data_dir))
    assert database.read_bytes() == before


def test_lost_key_file(stopped, tmp_path):
    (stopped.data_dir / "crypto_key").unlink()
    text = refused(tmp_path, "--data_dir", str(stopped.data_dir))
    assert "is missing although there is a database" in text


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--log_output", "/nowhere/log"], "Can't use /nowhere/log: No such file or directory"),
        (["--public_url", "nonsense"], "Invalid public_url"),
        (["--public_url", "https://example.org/v1"], "/v1 is a path of the service itself"),
        (["--page_token", "short"], "Invalid page_token"),
        (["--crypto_key", "short"], "Invalid crypto_key"),
        (
            ["--ssl_key", "/nowhere/key"],
            "There is a TLS key, /nowhere/key, but no certificate file",
        ),
        (["--client_certs", '{"a": []}'], "client_certs specified without SSL enabled"),
        (["--host", "unix:"], "host unix:<path> needs a path"),
        (["--router_host", "unix:"], "router_host unix:<path> needs a path"),
        (["--host", "unix:/x", "--router_port", "1"], "needs a router_host beside router_port"),
        (["--db_dsn", "mongo:x"], "db_dsn"),
        (["--data_dir", ""], "data_dir must name a directory"),
    ],
)
def test_bad_options(tmp_path, args, text):
    assert text in refused(tmp_path, *args)
    if args[0] not in ("--ssl_key", "--db_dsn"):
        assert not (tmp_path / "autopush-data").exists()


def test_parser_errors_have_status_2(tmp_path):
    done = run("--nonsense", home=tmp_path)
    assert done.returncode == 2
    assert "autopush_standalone: error: unrecognized arguments: --nonsense" in done.stderr


# ---------------------------------------------------------------------------------- the end


def handshake(server):
    """Open a WebSocket by hand, so that nothing answers a close."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert b" 101 " in sock.recv(65536)
    return sock


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_service_with_a_close_frame(make, number):
    server = make()
    with connect(server.ws_url, open_timeout=PATIENCE) as browser:
        browser.send(HELLO)
        browser.recv()
        assert server.stop(number) == 0
        with pytest.raises(ConnectionClosed) as caught:
            browser.recv()
        assert caught.value.rcvd is not None, "no close frame"
    name = signal.Signals(number).name
    assert f"Received {name}, shutting down." in server.output


def test_exit_though_a_peer_never_closes(make):
    """How soon: test_lifecycle.py, by a clock of its own."""
    server = make()
    with handshake(server) as sock:
        assert server.stop() == 0
        assert sock.recv(100)[:1] == b"\x88"


UNHURRIED = """
import sys, autopush.app.service as service, autopush.websocket.factory as factory
service.STOP_WITHIN = factory.NUKE_DELAY = 600
import autopush.__main__ as commands; sys.exit(commands.main())
"""


class Unhurried(Server):
    """Its shutdown takes as long as its peers do, and so longer than any test."""

    @property
    def command(self):
        words = super().command
        at = words.index("-m")
        words[at : at + 2] = ["-c", UNHURRIED]
        return words


def test_second_signal_ends_at_once(tmp_path):
    with Unhurried(tmp_path) as server, handshake(server) as sock:
        server.process.send_signal(signal.SIGTERM)
        assert sock.recv(100)[:1] == b"\x88"  # it is shutting down
        assert server.stop() == 1  # not in order


def test_nothing_is_accepted_while_stopping(make):
    server = make()
    with handshake(server) as sock:
        server.process.send_signal(signal.SIGTERM)
        assert sock.recv(100)[:1] == b"\x88"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))


def test_restart_keeps_endpoints(make):
    server = make()
    endpoint = endpoint_of(server)
    server.restart()
    # With other keys the token would not decrypt: 404.
    assert httpx.post(endpoint, headers={"TTL": "60"}).status_code == 201


# -------------------------------------------------------------------------------- --backup


def test_backup_while_running(make, tmp_path):
    server = make()
    endpoint = endpoint_of(server)
    target = tmp_path / "copy.sqlite3"
    done = run("--data_dir", str(server.data_dir), "--backup", str(target), home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"to {target}" in done.stdout
    with contextlib.closing(sqlite3.connect(target)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert httpx.post(endpoint, headers={"TTL": "60"}).status_code == 201
    before = target.read_bytes()
    text = refused(tmp_path, "--data_dir", str(server.data_dir), "--backup", str(target))
    assert "exists already" in text
    assert target.read_bytes() == before


def test_backup_of_nothing(tmp_path):
    text = refused(tmp_path, "--backup", "copy")
    assert "doesn't exist" in text
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------- small parts


def test_timers_survive_errors():
    """Fix C16."""
    calls = []

    def job(value):
        calls.append(value)
        raise RuntimeError("once more")

    again = surviving(job, 1)
    for _ in range(2):
        assert again().result is None
    assert calls == [1, 1]
    later: Deferred[None] = Deferred()
    waiting = surviving(lambda: later)()
    later.errback(RuntimeError("later"))
    assert waiting.result is None


def test_shutdown_steps_are_limited():
    clock = Clock()
    never: Deferred[None] = Deferred()
    step = Deferred.fromCoroutine(within(2, clock, never, "nobody"))
    clock.advance(1.9)
    assert not step.called
    clock.advance(0.2)
    assert step.called

    async def fail():
        raise RuntimeError("in the shutdown")

    assert Deferred.fromCoroutine(within(2, clock, fail(), "x")).called
    assert clock.getDelayedCalls() == []


def test_shutdown_step_of_several_parts_that_takes_too_long_is_no_error():
    clock = Clock()
    parts: Deferred[Any] = gatherResults([Deferred(), succeed(None)])
    with capturedLogs() as events:
        step = Deferred.fromCoroutine(within(2, clock, parts, "connections"))
        clock.advance(2)
    assert step.called
    # Others may log meanwhile: what earlier tests left behind, for example.
    (event,) = [event for event in events if "what" in event]
    assert (event["log_level"].name, event["what"]) == ("warn", "connections")

    with capturedLogs() as events:
        parts = gatherResults([fail(RuntimeError("x"))], consumeErrors=True)
        Deferred.fromCoroutine(within(2, clock, parts, "connections"))
    assert RuntimeError in [event["log_failure"].type for event in events if "log_failure" in event]


def test_namespace_of_another_kind_makes_an_application():
    from autopush.main import StandaloneApplication
    from autopush.options.parser import parse_standalone

    ns = SimpleNamespace(**vars(parse_standalone([], ["--port", "0"])))
    app = StandaloneApplication.from_argparse(ns)
    assert app.clients is app.node.clients
    assert set(app.routers) == {"webpush"}


def test_start_says_where_the_database_is(tmp_path):
    from autopush.main import StandaloneApplication
    from autopush.options.parser import parse_standalone

    def said(*words):
        ns = parse_standalone([], ["--data_dir", str(tmp_path), *words])
        return StandaloneApplication.from_argparse(ns).start_text()

    assert f"\n  data:       {tmp_path}\n" in said()
    assert "database:" not in said()
    assert f"\n  database:   sqlite://{tmp_path}/db\n" in said(
        "--db_dsn", f"sqlite://{tmp_path}/db"
    )


def set_up(kind, tmp_path, *words):
    """An application of this kind with all its services."""
    from autopush import main
    from autopush.options import parser as main_argparse
    from autopush.ssl import undo_monkey_patch_ssl_wrap_socket

    application = getattr(main, f"{kind.capitalize()}Application")
    words = ["--db_dsn", f"sqlite://{tmp_path}/file", "--statsd_host", "", *words]
    ns = getattr(main_argparse, f"parse_{kind}")([], words)
    app = application.from_argparse(SimpleNamespace(**{**vars(ns), "no_aws": True}))
    app.setup()
    undo_monkey_patch_ssl_wrap_socket()
    return app


@pytest.mark.parametrize("kind", ["connection", "standalone"])
def test_broadcasts_are_fetched_where_there_is_a_source(kind, tmp_path):
    from autopush.app.megaphone import Megaphone

    def fetching(*words):
        return [part for part in set_up(kind, tmp_path, *words) if isinstance(part, Megaphone)]

    assert fetching() == []
    (one,) = fetching(
        *("--megaphone_api_url", "http://127.0.0.1:1/", "--megaphone_poll_interval", "7")
    )
    assert one.step == 7


@pytest.mark.parametrize("kind", ["connection", "standalone"])
def test_connections_that_stay_are_looked_after(kind, tmp_path, monkeypatch):
    from autopush.app.process import Timer
    from autopush.session.upkeep import STEP, Upkeep

    steps: list[Upkeep] = []
    monkeypatch.setattr(Upkeep, "step", lambda upkeep: steps.append(upkeep))
    app = set_up(kind, tmp_path)
    (timer,) = [part for part in app if isinstance(part, Timer) and part.step == STEP]
    function, args, kwargs = timer.call
    function(*args, **kwargs)
    assert steps == [app.node.upkeep]
