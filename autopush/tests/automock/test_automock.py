"""The stand-ins: their control API, their command, and that they behave as documented.

Spoken to with other people's clients (``httpx``).
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import ssl
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import automock
from automock import certs
from automock.control import all_options
from automock.running import Background
from automock.standin import Answer, Script
from automock.web import Reply, Request, Server, scripted
from autopush.tests import TREE
from autopush.tests.e2e.harness import START_WITHIN, eventually

DEVICE = "0a" * 32
APS = {"aps": {"alert": "hi"}}
TOPIC = {"apns-topic": "com.mozilla.org.firefox"}


# ------------------------------------------------------------------------------ scripts


def test_answers_come_in_order_as_often_as_they_say():
    script = Script()
    script.add([{"status": 500, "times": 2}, {"status": 503}])
    assert script.waiting == 3
    taken = [script.next() for _ in range(4)]
    assert [answer and answer.status for answer in taken] == [500, 500, 503, None]


def test_members_of_other_names_are_the_stand_ins():
    assert Answer.parse({"status": 410, "reason": "Unregistered"}).more == {
        "reason": "Unregistered"
    }


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "500"},
        {"status": True},
        {"headers": []},
        {"times": 0},
        {"delay": -1},
        {"action": "explode"},
        "text",
        5,
        [5],
    ],
)
def test_unusable_answers_are_refused(answer):
    script = Script()
    with pytest.raises((ValueError, TypeError)):
        script.add([{"status": 500}, answer])
    assert script.next() is None


def test_reset_forgets_answers_and_requests():
    script = Script()
    script.add({"status": 500})
    script.saw({"a": 1})
    script.reset()
    assert (script.next(), list(script.requests)) == (None, [])


def test_a_reply_with_a_script():
    reply = scripted(Reply(200, json={"a": 1}), Answer.parse({"status": 503, "json": {"b": 2}}))
    assert (reply.status, reply.json) == (503, {"b": 2})
    reply = scripted(Reply(200, json={"a": 1}), Answer.parse({"body": "x", "headers": {"A": "b"}}))
    assert (reply.body, reply.json, reply.headers) == (b"x", None, {"A": "b"})
    assert scripted(Reply(200, json={"a": 1}), None).json == {"a": 1}


def test_options_of_several_stand_ins_are_merged():
    class One:
        def __init__(self, options):
            self.options = lambda: options

    merged = all_options({"a": One({"x": {"m": 1}, "y": 1}), "b": One({"x": {"n": 2}})})
    assert merged == {"x": {"m": 1, "n": 2}, "y": 1}


# ------------------------------------------------------------------------------ certificates


def test_certificates_and_keys(tmp_path):
    authority = certs.Authority(tmp_path)
    cert_file, key_file = authority.server("srv")
    assert stat.S_IMODE(os.stat(key_file).st_mode) == 0o600
    certificate = x509.load_pem_x509_certificate(cert_file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    ca = x509.load_pem_x509_certificate(authority.ca_file.read_bytes())
    certificate.verify_directly_issued_by(ca)
    load_pem_private_key(key_file.read_bytes(), None)
    key = certs.new_p8(tmp_path / "k.p8")
    again = load_pem_private_key((tmp_path / "k.p8").read_bytes(), None)
    assert isinstance(again, ec.EllipticCurvePrivateKey)
    assert again.private_numbers() == key.private_numbers()


# ------------------------------------------------------------------------------ HTTP/1.1 server


@pytest.fixture(scope="module")
def mock():
    with Background("apns") as running:
        yield running


@pytest.fixture
def web(mock):
    """A server that answers with what it was asked; ``answers`` script it."""
    script = Script()

    def handle(request: Request) -> tuple[Reply, Answer | None]:
        if request.path == "/fail":
            raise KeyError("x")
        reply = Reply(
            json={
                "method": request.method,
                "path": request.path,
                "query": request.query,
                "form": request.form,
                "agent": request.headers.get("user-agent"),
            }
        )
        return reply, script.next()

    server = Server(handle)
    mock.run(server.start())
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client, script
    mock.run(server.stop())


def test_web_server_keeps_connections_and_decodes(web):
    client, _ = web
    for _ in range(3):
        answer = client.post("/a%20b?x=1", data={"k": "v w"}, headers={"User-Agent": "me"})
        assert answer.json() == {
            "method": "POST",
            "path": "/a b",
            "query": {"x": "1"},
            "form": {"k": "v w"},
            "agent": "me",
        }


def test_web_server_reports_exceptions(web):
    client, _ = web
    assert client.get("/fail").status_code == 500


def test_web_server_scripts(web):
    client, script = web
    script.add({"status": 599, "body": "no", "headers": {"Retry-After": "5"}})
    answer = client.get("/")
    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (599, "no", "5")
    script.add({"delay": 0.2})
    assert client.get("/").elapsed.total_seconds() >= 0.2


@pytest.mark.parametrize("action", ["reset", "close", "close_mid_body", "garbage"])
def test_web_server_misbehaves(web, action):
    client, script = web
    script.add({"action": action})
    with pytest.raises(httpx.TransportError):
        client.get("/")
    assert client.get("/").status_code == 200


def test_web_server_hangs(web):
    client, script = web
    script.add({"action": "hang"})
    with pytest.raises(httpx.ReadTimeout):
        client.get("/", timeout=httpx.Timeout(60, read=0.3))


# ------------------------------------------------------------------------------ control API


@pytest.fixture
def control(mock):
    url = mock.automock.control.url
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        yield client
        client.post("/apns/reset")


def test_control_lists_the_stand_ins(mock, control):
    answer = control.get("/").json()
    assert answer == {"apns": {"url": mock["apns"].url, "requests": 0, "scripted": 0}}


def test_control_tells_the_options(control):
    creds = control.get("/options").json()["apns_creds"]
    assert set(creds) == {"firefox", "token"}
    assert creds["firefox"]["host"] == "127.0.0.1"


def test_control_scripts_and_resets(mock, control):
    assert control.post("/apns/next", json={"status": 500, "times": 3}).json()["scripted"] == 3
    assert control.post("/apns/next", json=[{"delay": 1}]).json()["scripted"] == 4
    assert control.post("/apns/settings", json={"unregistered": [DEVICE]}).status_code == 200
    assert mock["apns"].settings["unregistered"] == [DEVICE]
    assert control.post("/apns/reset").json()["scripted"] == 0
    assert mock["apns"].settings["unregistered"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/apns/next", b"junk", 400),
        ("POST", "/apns/next", b"5", 400),
        ("POST", "/apns/next", b'{"action": "explode"}', 400),
        ("POST", "/apns/settings", b"[]", 400),
        ("POST", "/apns/settings", b'{"unknown": 1}', 400),
        ("POST", "/apns/settings", b'{"unregistered": 1}', 400),
        ("POST", "/nobody/next", b"{}", 404),
        ("POST", "/apns/else", b"{}", 404),
        ("GET", "/apns/next", b"", 404),
        ("DELETE", "/", b"", 404),
    ],
)
def test_control_refuses(control, method, path, body, status):
    assert control.request(method, path, content=body).status_code == status


# ------------------------------------------------------------------------------ APNs


@pytest.fixture
def apns(mock):
    yield mock["apns"]
    mock["apns"].reset()


def connect(apns, certificate=True) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(apns.authority.ca_file))
    if certificate:
        context.load_cert_chain(str(apns.cert_file), str(apns.key_file))
    return httpx.Client(
        http1=False, http2=True, verify=context, base_url=apns.url, trust_env=False, timeout=60
    )


@pytest.fixture
def client(apns):
    with connect(apns) as one:
        yield one


def refusal(answer):
    return answer.status_code, answer.json()["reason"]


def post(client, device=DEVICE, payload: Any = APS, **headers):
    given = {**TOPIC, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.post(f"/3/device/{device}", json=payload, headers=given)


def test_apns_accepts(apns, client):
    apns_id = str(uuid.uuid4())
    answer = post(client, apns_id=apns_id)
    assert (answer.status_code, answer.http_version, answer.content) == (200, "HTTP/2", b"")
    assert answer.headers["apns-id"] == apns_id
    (request,) = apns.script.requests
    assert request["payload"] == APS
    assert request["path"] == f"/3/device/{DEVICE}"


def test_apns_makes_an_id_where_there_is_none(client):
    assert uuid.UUID(post(client).headers["apns-id"])


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"apns_topic": ""}, "MissingTopic"),
        ({"apns_topic": "other"}, "TopicDisallowed"),
        ({"apns_id": "x"}, "BadMessageId"),
        ({"apns_expiration": "soon"}, "BadExpirationDate"),
        ({"apns_priority": "7"}, "BadPriority"),
        ({"apns_priority": "10", "apns_push_type": "background"}, "BadPriority"),
        ({"apns_push_type": "loud"}, "InvalidPushType"),
        ({"apns_collapse_id": "x" * 65}, "BadCollapseId"),
    ],
)
def test_apns_checks_headers(client, headers, reason):
    assert refusal(post(client, **headers)) == (400, reason)


def test_apns_checks_method_path_token_and_payload(apns, client):
    assert refusal(client.get(f"/3/device/{DEVICE}")) == (405, "MethodNotAllowed")
    assert refusal(client.post("/2/device/x")) == (404, "BadPath")
    assert refusal(client.post("/3/device/")) == (400, "MissingDeviceToken")
    assert refusal(post(client, device="xyz")) == (400, "BadDeviceToken")
    assert refusal(post(client, payload={"no": "aps"})) == (400, "PayloadEmpty")
    assert refusal(post(client, payload={"aps": "x" * 4096})) == (413, "PayloadTooLarge")
    twice = [*TOPIC.items(), *TOPIC.items()]
    answer = client.post(f"/3/device/{DEVICE}", json=APS, headers=twice)
    assert refusal(answer) == (400, "DuplicateHeaders")


def test_apns_unregistered_devices(apns, client):
    apns.configure({"unregistered": [DEVICE]})
    answer = post(client)
    assert refusal(answer) == (410, "Unregistered")
    assert abs(answer.json()["timestamp"] - time.time() * 1000) < 60_000


def jwt(apns, iat=None, kid=None, iss=None):
    key = load_pem_private_key(apns.p8_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)

    def b64(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = {"alg": "ES256", "kid": kid or apns.key_id}
    claims = {"iss": iss or apns.team_id, "iat": int(time.time()) if iat is None else iat}
    text = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"bearer {text}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def test_apns_checks_provider_tokens(apns):
    with connect(apns, certificate=False) as client:
        assert refusal(post(client)) == (403, "MissingProviderToken")
        for bad in ("bearer x.y.z", "basic x", jwt(apns, kid="K"), jwt(apns, iss="T")):
            assert refusal(post(client, authorization=bad)) == (403, "InvalidProviderToken")
        old = jwt(apns, iat=int(time.time()) - 3700)
        assert refusal(post(client, authorization=old)) == (403, "ExpiredProviderToken")
        good = jwt(apns, iat=int(time.time()) - 100)
        assert post(client, authorization=good).status_code == 200
        assert post(client, authorization=good).status_code == 200
        assert refusal(post(client, authorization=jwt(apns))) == (
            429,
            "TooManyProviderTokenUpdates",
        )


def test_apns_scripts(apns, client):
    apns.script.add({"status": 429, "reason": "TooManyRequests", "headers": {"Retry-After": "3"}})
    answer = post(client)
    assert refusal(answer) == (429, "TooManyRequests")
    assert answer.headers["retry-after"] == "3"
    apns.script.add({"reason": "Shutdown"})
    assert refusal(post(client)) == (503, "Shutdown")
    apns.script.add({"status": 500, "body": "<html>"})
    assert post(client).text == "<html>"


@pytest.mark.parametrize(
    "action",
    ["reset", "close", "close_mid_body", "garbage", "rst_stream", "goaway", "hang", "freeze"],
)
def test_apns_misbehaves(apns, action):
    apns.script.add({"action": action})
    with connect(apns) as client:
        if action in ("hang", "freeze"):
            client.timeout = httpx.Timeout(60, read=0.5)
        with pytest.raises(httpx.TransportError):
            post(client)
        # On a slow machine it may be given up before it has come.
        eventually(lambda: apns.script.waiting == 0)
    with connect(apns) as client:
        assert post(client).status_code == 200


def test_apns_speaks_nothing_but_http2(apns):
    context = ssl.create_default_context(cafile=str(apns.authority.ca_file))
    with httpx.Client(verify=context, trust_env=False) as client, pytest.raises(httpx.HTTPError):
        client.get(apns.url)


# ------------------------------------------------------------------------------ the command


def run_command(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "automock", *args],
        cwd=TREE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_start(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("automock is ready"):
            return lines
    raise AssertionError("\n".join(lines))


def test_command_starts_all_prints_the_options_and_cleans_up(tmp_path):
    ini = tmp_path / "mock.ini"
    process = run_command("--ini", str(ini))
    try:
        lines = read_start(process)
        started = {line.split(":")[0] for line in lines}
        assert set(automock.STAND_INS) <= started
        (url,) = [line.split(" ")[1] for line in lines if line.startswith("control: ")]
        described = httpx.get(url, trust_env=False).json()
        assert set(described) == set(automock.STAND_INS)
        options = dict(
            shlex.split(line)[0].removeprefix("--").split("=", 1)
            for line in lines
            if line.startswith("  --")
        )
        creds = json.loads(options["apns_creds"])
        assert f"apns_creds = {options['apns_creds']}" in ini.read_text()
        key_file = Path(creds["firefox"]["key"])
        assert key_file.exists()
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=START_WITHIN)
    assert (process.returncode, rest) == (0, "")
    assert not key_file.exists()


def test_command_starts_one():
    process = run_command("apns")
    try:
        lines = read_start(process)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=START_WITHIN)
    started = [line for line in lines if re.match(r"\w+: https?:", line)]
    assert [line.partition(":")[0] for line in started] == ["apns", "control"]
    assert process.returncode == 0


def test_command_knows_its_names():
    process = run_command("nobody")
    output, _ = process.communicate(timeout=START_WITHIN)
    assert process.returncode == 2
    assert "no such stand-in: nobody" in output


def test_stand_ins_import_nothing_of_autopush():
    for path in (TREE / "automock").glob("*.py"):
        assert not re.search(r"^\s*(from|import) autopush", path.read_text(), re.MULTILINE), path
