"""TLS as other people's clients see it: spec/configuration 7 with fix C21, spec/http-endpoint 9."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from websockets.asyncio.client import connect

from autopush.config import AutopushConfig
from autopush.http import EndpointHTTPFactory
from autopush.httpserver.connection import IDLE_TIMEOUT
from autopush.ssl import AutopushSSLContextFactory
from autopush.tests.daemons import daemons, negotiated, s_client
from autopush.tests.e2e.clients import PATIENT
from autopush.tests.e2e.harness import eventually, free_port
from autopush.tests.httpserver.support import advance
from autopush.tests.tlsfiles import make_certificate

HELLO = json.dumps({"messageType": "hello", "use_webpush": True})
PROXY = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n"
CHALLENGE = 'Transport mode="tls-client-certificate"'

LISTENERS = ("websocket", "router", "endpoint", "shared")
"""The listeners ``openssl s_client`` can talk to; it knows no PROXY headers."""

ECDSA_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
)
OLD_SUITES = (
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-CAMELLIA128-SHA256",
)

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl command")


class Cluster:
    """Both nodes and a standalone service, all with TLS; its files may be exchanged."""

    def __init__(self, home: Path, make) -> None:
        self.home = home
        self.key, self.cert = str(home / "tls.key"), str(home / "tls.crt")
        self.client = make_certificate(home, "client")
        self.stranger = make_certificate(home, "stranger")
        self.exchange("localhost")
        self.ports = SimpleNamespace(
            websocket=free_port(),
            router=free_port(),
            endpoint=free_port(),
            proxy=free_port(),
            shared=free_port(),
        )
        ports, common = self.ports, self.common()
        self.connection = make(
            *(home, "autopush", *common),
            *("--port", str(ports.websocket), "--router_port", str(ports.router)),
            *("--router_ssl_key", self.key, "--router_ssl_cert", self.cert),
        ).listens(ports.websocket)
        self.endpoint = make(
            *(home, "autoendpoint", *common),
            *("--port", str(ports.endpoint), "--proxy_protocol_port", str(ports.proxy)),
            *("--client_certs", json.dumps({"partner": [self.client[2]]})),
        ).listens(ports.proxy)
        self.standalone = make(
            *(home, "autopush_standalone", "--port", str(ports.shared)),
            *("--ssl_key", self.key, "--ssl_cert", self.cert),
        ).listens(ports.shared)

    def common(self) -> list[str]:
        return [
            *("--no_aws", "--statsd_host=", "--hostname", "127.0.0.1"),
            *("--db_dsn", f"sqlite://{self.home}/db", "--ssl_key", self.key),
            *("--ssl_cert", self.cert, "--endpoint_scheme", "https"),
        ]

    def exchange(self, name: str, key=None) -> int:
        """Put a new certificate in place; returns its serial number."""
        files = make_certificate(self.home, name, key)
        certificate = x509.load_pem_x509_certificate(Path(files[1]).read_bytes())
        os.replace(files[0], self.key)
        os.replace(files[1], self.cert)
        self.trust = str(self.home / f"{name}.trusted")
        shutil.copy(self.cert, self.trust)
        return certificate.serial_number

    def context(self, identity=None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.trust)
        context.check_hostname = False
        if identity:
            context.load_cert_chain(identity[1], identity[0])
        return context

    def get(self, path, identity=None, **kwargs):
        url = f"https://127.0.0.1:{self.ports.endpoint}{path}"
        with httpx.Client(verify=self.context(identity), trust_env=False) as client:
            return client.request(kwargs.pop("method", "GET"), url, **kwargs)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with daemons() as make:
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), make)
        yield cluster
        for daemon in (cluster.connection, cluster.endpoint, cluster.standalone):
            assert "Traceback" not in daemon.output
            assert daemon.stop() == 0


# ----------------------------------------------------------------------- versions and suites


@pytest.mark.parametrize("listener", LISTENERS)
def test_tls_12_and_13_are_spoken(cluster, listener):
    port = getattr(cluster.ports, listener)
    assert negotiated(s_client(port, "-tls1_3")) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    protocol, suite = negotiated(s_client(port, "-tls1_2"))
    assert (protocol, suite in ECDSA_SUITES) == ("TLSv1.2", True)


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
@pytest.mark.parametrize("listener", LISTENERS)
def test_older_versions_are_refused(cluster, listener, version):
    port = getattr(cluster.ports, listener)
    output = s_client(port, version, "-cipher", "ALL:@SECLEVEL=0")
    assert negotiated(output) is None
    assert "alert protocol version" in output  # by the server, not by this openssl


@pytest.mark.parametrize("suite", ECDSA_SUITES)
def test_modern_suites(cluster, suite):
    output = s_client(cluster.ports.endpoint, "-tls1_2", "-cipher", suite)
    assert negotiated(output) == ("TLSv1.2", suite)


@pytest.mark.parametrize("suite", OLD_SUITES)
@pytest.mark.parametrize("listener", LISTENERS)
def test_old_suites_are_refused(cluster, listener, suite):
    port = getattr(cluster.ports, listener)
    output = s_client(port, "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
    assert negotiated(output) is None
    assert "alert handshake failure" in output


def test_the_server_chooses_the_suite(cluster):
    order = ":".join(reversed(ECDSA_SUITES))
    output = s_client(cluster.ports.endpoint, "-tls1_2", "-cipher", order)
    assert negotiated(output) == ("TLSv1.2", ECDSA_SUITES[0])


def test_no_compression(cluster):
    assert "Compression: NONE" in s_client(cluster.ports.endpoint, "-tls1_2", "-comp")


def test_renegotiation_is_refused(cluster):
    output = s_client(cluster.ports.endpoint, "-tls1_2", send="R\n")
    assert negotiated(output)
    assert "no renegotiation" in output


def test_dh_parameters(tmp_path):
    """With an RSA certificate; the suites themselves are tested in test_ssl."""
    key, cert, _ = make_certificate(tmp_path, key=rsa.generate_private_key(65537, 2048))
    from autopush.tests.test_ssl import FFDHE2048

    dh_file = tmp_path / "dh.pem"
    dh_file.write_text(FFDHE2048)
    port = free_port()
    with daemons() as make:
        make(
            *(tmp_path, "autopush_standalone", "--port", str(port), "--ssl_key", key),
            *("--ssl_cert", cert, "--ssl_dh_param", str(dh_file)),
        ).listens(port)
        output = s_client(port, "-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256")
        assert negotiated(output) == ("TLSv1.2", "DHE-RSA-AES128-GCM-SHA256")
        assert "Server Temp Key: DH, 2048 bits" in output


# ------------------------------------------------------------------------------- what is served


def test_websocket_over_tls(cluster):
    async def hello(port):
        url = f"wss://127.0.0.1:{port}/"
        async with connect(url, ssl=cluster.context(), **PATIENT) as browser:
            await browser.send(HELLO)
            return json.loads(await browser.recv())["status"]

    for port in (cluster.ports.websocket, cluster.ports.shared):
        assert asyncio.run(hello(port)) == 200


def test_status_on_every_listener(cluster):
    for listener in LISTENERS:
        url = f"https://127.0.0.1:{getattr(cluster.ports, listener)}/status"
        answer = httpx.get(url, verify=cluster.context(), trust_env=False)
        assert (answer.status_code, answer.json()["status"]) == (200, "OK")


def test_hsts(cluster):
    header = "max-age=31536000;includeSubDomains"
    for path in ("/status", "/health"):
        answer = cluster.get(path)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == header
    assert cluster.get("/nowhere").headers["strict-transport-security"] == "max-age=31536000"


def test_a_client_that_never_shakes_hands_is_cut(tmp_path):
    clock = Clock()
    conf = AutopushConfig(hostname="localhost", statsd_host=None)
    app = EndpointHTTPFactory(conf, None, {}, clock=clock)
    app.startFactory()
    key, cert, _ = make_certificate(tmp_path)
    factory = TLSMemoryBIOFactory(AutopushSSLContextFactory(key, cert), False, app, clock)
    transport = StringTransport()
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"\x16\x03\x01")  # the first bytes of a handshake
    advance(app, IDLE_TIMEOUT - 2)
    assert not transport.disconnected
    advance(app, 4)
    assert transport.disconnected or transport.disconnecting


# --------------------------------------------------------------------- client certificates


def test_a_known_client_passes(cluster):
    assert cluster.get("/m/x", cluster.client, method="DELETE").status_code == 400
    answer = cluster.get("/v1/webpush/a/registration", cluster.client, method="POST", json={})
    assert answer.status_code == 200


@pytest.mark.parametrize("identity", ["stranger", None])
def test_others_are_refused(cluster, identity):
    answer = cluster.get("/m/x", identity and cluster.stranger, method="DELETE")
    assert (answer.status_code, answer.json()["errno"]) == (401, 109)
    assert answer.json()["message"] == "A TLS client certificate is missing or not known"
    assert answer.headers["www-authenticate"] == CHALLENGE
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/wpush/v1/x", "/v1/webpush/a/registration"])
def test_all_methods_of_the_api_ask(cluster, path, method):
    assert cluster.get(path, method=method).status_code == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/status", 200),
        ("/health", 200),
        ("/__version__", 200),
        ("/__heartbeat__", 200),
        ("/__lbheartbeat__", 200),
        ("/v1/err/error", 418),
        ("/nowhere", 404),
    ],
)
def test_exempt_routes(cluster, path, status):
    assert cluster.get(path).status_code == status


def test_log_fields(cluster):
    cluster.get("/m/unknown", cluster.stranger, method="DELETE")
    cluster.get("/m/known", cluster.client, method="DELETE")

    def event(name, value):
        return [e for e in cluster.endpoint.events if e.get(name) == value]

    failed = eventually(lambda: event("tls_failed_sha256", cluster.stranger[2]))
    assert {e["message"] for e in failed} == {"Failed TLS auth"}
    assert {e["log_level"] for e in failed} == {"warn"}
    assert {e["tls_failed_cn"] for e in failed} == {"stranger"}
    passed = eventually(lambda: event("tls_auth_sha256", cluster.client[2]))
    assert {(e["tls_auth"], e["tls_auth_cn"]) for e in passed} == {("partner", "client")}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_is_still_the_clients(cluster, version):
    request = b"DELETE /m/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    def exchange(context, session):
        sock = socket.create_connection(("127.0.0.1", cluster.ports.endpoint), timeout=60)
        with context.wrap_socket(sock, session=session) as tls:
            tls.sendall(request)
            data = b""
            while chunk := tls.recv(65536):
                data += chunk
            return data.split()[1], tls.session, tls.session_reused

    for identity, status in ((cluster.client, b"400"), (cluster.stranger, b"401"), (None, b"401")):
        context = cluster.context(identity)
        context.minimum_version = context.maximum_version = version
        first, session, reused = exchange(context, None)
        assert (first, reused) == (status, False)
        assert exchange(context, session)[::2] == (status, True)


def test_client_certificates_behind_the_proxy_protocol(cluster):
    def status(identity):
        context = cluster.context(identity)
        sock = socket.create_connection(("127.0.0.1", cluster.ports.proxy), timeout=60)
        sock.sendall(PROXY)
        with context.wrap_socket(sock) as tls:
            tls.sendall(b"DELETE /m/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return tls.recv(65536).split()[1]

    assert [status(i) for i in (cluster.client, cluster.stranger, None)] == [b"400", b"401", b"401"]
    refused = eventually(
        lambda: [e for e in cluster.endpoint.events if e.get("remote_ip") == "192.0.2.7"]
    )
    assert refused


# --------------------------------------------------------------------------------- reload


def serial(port, send=b""):
    """Serial number of the certificate a listener shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(send)
        with context.wrap_socket(sock) as tls:
            shown = tls.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number


def test_reload_while_a_websocket_stays_connected(cluster):
    new = cluster.exchange("second")

    async def run():
        context = cluster.context()
        context.verify_mode = ssl.CERT_NONE
        ports = cluster.ports
        url = f"wss://127.0.0.1:{ports.websocket}/"
        async with connect(url, ssl=context, **PATIENT) as browser:
            await browser.send(HELLO)
            uaid = json.loads(await browser.recv())["uaid"]
            for daemon in (cluster.connection, cluster.endpoint, cluster.standalone):
                await asyncio.to_thread(daemon.hang_up)
            for port in (ports.websocket, ports.router, ports.endpoint, ports.shared):
                assert await asyncio.to_thread(serial, port) == new
            assert await asyncio.to_thread(serial, ports.proxy, PROXY) == new
            channel = "11111111-2222-4333-8444-555555555555"
            await browser.send(json.dumps({"messageType": "register", "channelID": channel}))
            assert json.loads(await browser.recv())["status"] == 200
            # A new connection, which trusts the new certificate only, with the same user.
            async with connect(url, ssl=cluster.context(), **PATIENT) as other:
                await other.send(json.dumps({**json.loads(HELLO), "uaid": uaid}))
                assert json.loads(await other.recv())["uaid"] == uaid

    asyncio.run(run())
    assert len(cluster.connection.says("Reloaded TLS certificate", 2)) == 2  # its two listeners


def test_a_broken_file_keeps_the_old_certificate_and_is_logged(cluster):
    port = cluster.ports.endpoint
    good = serial(port)
    Path(cluster.cert).write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
    cluster.endpoint.hang_up()
    (line,) = cluster.endpoint.says("TLS certificate not reloaded")
    event = json.loads(line)["Fields"]
    assert event["log_level"] == "error"
    assert cluster.cert in event["message"]
    assert serial(port) == good
    assert cluster.endpoint.process.poll() is None
    # Only one of the two files is there yet, as in the middle of a renewal.
    key = Path(cluster.key).read_bytes()
    new = cluster.exchange("third")
    Path(cluster.key).write_bytes(key)
    cluster.endpoint.hang_up()
    assert "is not the key of" in cluster.endpoint.says("TLS certificate not reloaded", 2)[-1]
    assert serial(port) == good
    # The next time all is well.
    new = cluster.exchange("fourth")
    cluster.endpoint.hang_up()
    eventually(lambda: serial(port) == new)


def test_a_reload_between_handshake_and_request(cluster):
    """Connections keep the context they began with."""
    context = cluster.context()
    context.verify_mode = ssl.CERT_NONE
    sock = socket.create_connection(("127.0.0.1", cluster.ports.endpoint), timeout=60)
    with context.wrap_socket(sock) as tls:
        cluster.exchange("fifth")
        cluster.endpoint.hang_up()
        tls.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert tls.recv(65536).startswith(b"HTTP/1.1 200 ")
