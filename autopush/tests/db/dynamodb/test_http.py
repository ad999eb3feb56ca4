"""The thin ways of requests to DynamoDB: autopush/db/dynamodb_http.py, dynamodb_direct.py."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
import time

import pytest
from botocore import exceptions as boto
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from autopush.db.dynamodb.client import (
    ConditionFailed,
    DynamoError,
    TableMissing,
    Throttled,
    Unavailable,
    caller,
    make_client,
)
from autopush.db.dynamodb.direct import Learned, Signer
from autopush.db.dynamodb.http import Limits, address_of, use_thin_transport
from autopush.tests.db.dynamodb.support import PATIENCE
from autopush.tests.tlsfiles import make_certificate

KEY = {"uaid": {"S": "x"}}


def answer(body, status="200 OK", extra=""):
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{extra}\r\n"
    return head.encode() + data


FOUND = answer({"Item": {"uaid": {"S": "x"}}})


class Server:
    """Answers each request with what the test has prepared; None closes the connection instead."""

    def __init__(self, tls=None):
        self.answers = []
        self.requests = []
        self.connections = 0
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = sock.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(data) < length:
                    data += sock.recv(65536)
                self.requests.append((head.decode(), data[:length]))
                data = data[length:]
                reply = self.answers.pop(0)
                for part in reply if isinstance(reply, list) else [reply]:
                    if part is None:
                        sock.close()
                        return
                    if isinstance(part, float):
                        time.sleep(part)
                    elif isinstance(part, threading.Event):
                        part.wait()
                    else:
                        sock.sendall(part)
        except OSError:
            pass

    def drop(self):
        """Close all connections."""
        for sock in self._open:
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._open.clear()

    def close(self):
        self._listener.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def patience(monkeypatch):
    """Nobody gives up because the machine is busy."""
    monkeypatch.setattr("autopush.db.dynamodb.client.READ_TIMEOUT", PATIENCE)


@pytest.fixture
def server(patience):
    made = Server()
    yield made
    made.close()


@pytest.fixture(params=["with botocore", "direct"])
def way(request):
    return request.param


@pytest.fixture
def get(server, way):
    return getter(f"http://127.0.0.1:{server.port}", way)


def getter(url, way):
    return get_with(prepared(url, way))


def get_with(client):
    call = caller(client)
    return lambda: call("get_item", TableName="t", Key=KEY)


def prepared(url, way):
    client = make_client(thin=True, endpoint_url=url)
    if way == "direct":
        learned = Learned(
            address_of(url), url, "us-east-1", "dynamodb", "application/x-amz-json-1.0", "test"
        )
        client._signer = Signer(learned, Credentials("Bogus", "Bogus"))
    else:
        client._credentials = None  # so that nothing is learned
    return client


def parse(request):
    """Line, headers and body of a request."""
    head, body = request
    line, *headers = head.split("\r\n")
    values = {name.lower(): value for name, _, value in (h.partition(": ") for h in headers)}
    assert len(values) == len(headers), "a header is there twice"
    return line, values, body


def test_request(server, get):
    server.answers.append(FOUND)
    assert get()["Item"] == {"uaid": {"S": "x"}}
    line, values, body = parse(server.requests[0])
    assert line == "POST / HTTP/1.1"
    assert values["host"] == f"127.0.0.1:{server.port}"
    assert values["x-amz-target"] == "DynamoDB_20120810.GetItem"
    assert values["content-type"] == "application/x-amz-json-1.0"
    assert "host;" in values["authorization"]
    assert json.loads(body) == {"TableName": "t", "Key": KEY}


def test_connection_is_kept(server, get):
    server.answers += [FOUND] * 5
    for _ in range(5):
        get()
    assert (server.connections, len(server.requests)) == (1, 5)


def test_each_thread_has_its_own(server, get):
    server.answers += [FOUND] * 4
    get()
    other = threading.Thread(target=get)
    other.start()
    other.join()
    get()
    assert server.connections == 2


def test_connection_the_server_closed_meanwhile_is_not_used(server, way):
    client = prepared(f"http://127.0.0.1:{server.port}", way)
    get = get_with(client)
    server.answers += [FOUND, FOUND]
    get()
    _, connection = client._transport._kept.connection
    server.drop()
    assert select.select([connection._sock], [], [], PATIENCE)[0], "its end never came"
    get()
    assert server.connections == 2


def test_old_connection_is_not_used(server, get, monkeypatch):
    server.answers += [FOUND, FOUND]
    get()
    monkeypatch.setattr("autopush.db.dynamodb.http.UNUSED", 0)
    get()
    assert server.connections == 2


def test_connection_close_is_obeyed(server, get):
    server.answers += [answer({}, extra="Connection: close\r\n"), FOUND]
    assert "Item" not in get()
    get()
    assert server.connections == 2


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([FOUND[:10], 0.02, FOUND[10:60], 0.02, FOUND[60:]], True),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", FOUND], True),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"], False),
    ],
)
def test_answers_in_parts(server, get, parts, found):
    server.answers += [parts, FOUND]
    assert ("Item" in get()) is found
    get()
    assert server.connections == 1


@pytest.mark.parametrize("name", ["message", "Message"])
@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("com.amazonaws#ResourceNotFoundException", "400 Bad Request", TableMissing),
        ("ConditionalCheckFailedException", "400 Bad Request", ConditionFailed),
        ("com.amazon.coral.service#ThrottlingException", "400 Bad Request", Throttled),
        ("com.amazonaws#InternalServerError", "500 Internal Server Error", Unavailable),
        ("com.amazonaws#ValidationException", "400 Bad Request", DynamoError),
    ],
)
def test_errors_of_dynamodb(server, get, code, status, kind, name):
    server.answers.append(answer({"__type": code, name: "why"}, status))
    with pytest.raises(kind, match=f"get_item on t: {code.rpartition('#')[2]} why") as caught:
        get()
    assert type(caught.value) is kind
    assert getattr(caught.value, "maybe_done", None) == {Throttled: False, Unavailable: True}.get(
        kind
    )


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("503 Service Unavailable", b"<html>", Unavailable),
        ("503 Service Unavailable", b"", Unavailable),
        ("413 Too Large", b"<html>", DynamoError),
    ],
)
def test_answers_that_are_not_dynamodbs(server, get, status, body, kind):
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n"
    server.answers += [head.encode() + body, FOUND]
    with pytest.raises(kind) as caught:
        get()
    assert type(caught.value) is kind
    assert get()["Item"]


@pytest.mark.parametrize(
    "reply", [None, [FOUND[:10], None], [FOUND[:-1], None], b"nonsense\r\n\r\n"]
)
def test_interrupted_answer_may_have_been_carried_out(server, get, reply):
    """And is not tried again here: that is for the caller, who knows what it means."""
    server.answers += [reply, FOUND]
    with pytest.raises(Unavailable) as caught:
        get()
    assert caught.value.maybe_done
    assert len(server.requests) == 1
    get()
    assert server.connections == 2


def test_no_answer_in_time(server, monkeypatch, way):
    monkeypatch.setattr("autopush.db.dynamodb.client.READ_TIMEOUT", 0.1)
    client = prepared(f"http://127.0.0.1:{server.port}", way)
    get = get_with(client)
    late = threading.Event()
    server.answers += [[late, FOUND], FOUND]
    with pytest.raises(Unavailable, match="ReadTimeoutError") as caught:
        get()
    late.set()
    assert caught.value.maybe_done
    client._transport._limits = Limits(PATIENCE, PATIENCE)
    assert get()["Item"]
    assert server.connections == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid:8000"])
def test_not_sent(url, way):
    with pytest.raises(Unavailable, match="EndpointConnectionError") as caught:
        getter(url, way)()
    assert not caught.value.maybe_done


def test_no_connection_in_time(monkeypatch, way):
    def connect(address, timeout):
        assert timeout == 2
        raise TimeoutError

    monkeypatch.setattr("autopush.db.dynamodb.http.socket.create_connection", connect)
    with pytest.raises(Unavailable, match="ConnectTimeoutError") as caught:
        getter("http://127.0.0.1:1", way)()
    assert not caught.value.maybe_done


def test_tls(tmp_path, monkeypatch, patience, way):
    key, cert, _ = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    server = Server(context)
    try:
        url = f"https://localhost:{server.port}"
        with pytest.raises(Unavailable, match="SSLError"):
            getter(url, way)()
        monkeypatch.setenv("AWS_CA_BUNDLE", cert)
        server.answers += [FOUND, FOUND]
        get = getter(url, way)
        before = server.connections
        assert get()["Item"] and get()["Item"]
        assert server.connections == before + 1
        other_name = f"https://127.0.0.2:{server.port}"
        with pytest.raises(Unavailable):
            getter(other_name, way)()
    finally:
        server.close()


def test_proxies_are_left_to_botocore(server, monkeypatch):
    client = make_client(endpoint_url="http://dynamodb.example:8000")
    assert use_thin_transport(client) is not None
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    client = make_client(endpoint_url="http://dynamodb.example:8000")
    assert use_thin_transport(client) is None
    server.answers.append(FOUND)
    client.get_item(TableName="t", Key=KEY)
    assert server.requests[0][0].startswith("POST http://dynamodb.example:8000/ HTTP/1.1")


def test_limits_are_those_of_the_client():
    client = make_client(endpoint_url="http://127.0.0.1:1")
    config = client.meta.config
    assert Limits(config.connect_timeout, config.read_timeout) == (2, 5)


def test_errors_are_botocores_own():
    client = make_client(thin=True, endpoint_url="http://127.0.0.1:1")
    with pytest.raises(boto.EndpointConnectionError):
        client.get_item(TableName="t", Key=KEY)


# ------------------------------------------------------------------------ past botocore


@pytest.mark.parametrize("body", [b"{", b"", b"[]"])
def test_broken_answer_is_no_success(server, body):
    """botocore takes it for an empty one."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
    server.answers.append(head.encode() + body)
    with pytest.raises(Unavailable) as caught:
        getter(f"http://127.0.0.1:{server.port}", "direct")()
    assert caught.value.maybe_done


TEMPORARY = {
    "aws_access_key_id": "AKID",
    "aws_secret_access_key": "secret",
    "aws_session_token": "token/of+some=",
}
BOTH = pytest.mark.parametrize("keys", [{}, TEMPORARY], ids=["lasting", "temporary"])


def direct(server, **kwargs):
    return make_client(thin=True, endpoint_url=f"http://127.0.0.1:{server.port}", **kwargs)


def is_botocores(request):
    return "amz-sdk-request" in parse(request)[1]


@BOTH
def test_botocore_makes_the_first_request_and_we_the_others(server, keys):
    server.answers += [FOUND] * 3
    client = direct(server, **keys)
    for _ in range(3):
        client.call("get_item", {"TableName": "t", "Key": KEY})
    assert [is_botocores(request) for request in server.requests] == [True, False, False]
    first, second = (parse(request) for request in server.requests[:2])
    changing = {"x-amz-date", "authorization", "amz-sdk-invocation-id", "amz-sdk-request"}
    assert first[0] == second[0]
    assert first[2] == second[2].replace(b":", b": ").replace(b",", b", ")
    assert {k: v for k, v in first[1].items() if k not in {*changing, "content-length"}} == {
        k: v for k, v in second[1].items() if k not in {*changing, "content-length"}
    }


@BOTH
def test_signature_is_what_botocore_would_write(server, keys):
    server.answers += [FOUND] * 2
    client = direct(server, **keys)
    for _ in range(2):
        client.call("get_item", {"TableName": "t", "Key": KEY})
    _, headers, body = parse(server.requests[1])
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    same = AWSRequest("POST", client.meta.endpoint_url, {n: headers[n] for n in signed}, body)
    same.context["timestamp"] = headers["x-amz-date"]
    values = [keys.get(name, "Bogus") for name in list(TEMPORARY)[:2]]
    auth = SigV4Auth(Credentials(*values), "dynamodb", "us-east-1")
    signature = auth.signature(auth.string_to_sign(same, auth.canonical_request(same)), same)
    assert headers["authorization"].endswith(f"Signature={signature}")
    assert {"content-type", "host", "x-amz-date", "x-amz-target"} <= set(signed)
    assert ("x-amz-security-token" in signed) is bool(keys)


def add_header(request, **kwargs):
    request.headers["X-Amz-Something-New"] = "1"


def sign_otherwise(request, **kwargs):
    request.headers["Authorization"] = "Bearer token"


def sign_wrongly(request, **kwargs):
    request.headers["Authorization"] = request.headers["Authorization"][:-4] + b"0000"


@pytest.mark.parametrize(
    ("event", "handler"),
    [
        ("before-sign", add_header),
        ("before-send", sign_otherwise),
        ("before-send", sign_wrongly),
    ],
)
def test_what_we_would_not_do_the_same_way_is_left_to_botocore(server, event, handler):
    server.answers += [FOUND] * 3
    client = direct(server)
    client.meta.events.register_first(event, handler)
    for _ in range(3):
        client.call("get_item", {"TableName": "t", "Key": KEY})
    assert all(is_botocores(request) for request in server.requests)


def test_other_credentials_are_used_as_soon_as_botocore_has_them(server):
    server.answers += [FOUND] * 3
    client = direct(server)
    for _ in range(2):
        client.call("get_item", {"TableName": "t", "Key": KEY})
    client._credentials.access_key, client._credentials.token = "NEW", "t"
    client.call("get_item", {"TableName": "t", "Key": KEY})
    headers = parse(server.requests[2])[1]
    assert "Credential=NEW/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "t"


@pytest.mark.parametrize("code", ["ExpiredTokenException", "InvalidSignatureException"])
def test_refused_signature_is_for_botocore_to_judge(server, code):
    refusal = answer({"__type": f"com.amazon.coral.service#{code}"}, "400 Bad Request")
    server.answers += [FOUND, refusal, FOUND, FOUND]
    client = direct(server)
    for _ in range(3):
        assert client.call("get_item", {"TableName": "t", "Key": KEY})["Item"]
    assert [is_botocores(request) for request in server.requests] == [True, False, True, False]


def test_binary_values(server):
    record = {"Item": {"B": {"S": "x"}, "b": {"B": "AP8="}, "m": {"M": {"B": {"BS": ["AA=="]}}}}}
    server.answers += [FOUND, answer({}), answer(record)]
    client = direct(server)
    client.call("get_item", {"TableName": "t", "Key": KEY})
    client.call("put_item", {"TableName": "t", "Item": {**KEY, "b": {"B": b"\0\xff"}}})
    assert json.loads(server.requests[1][1])["Item"]["b"] == {"B": "AP8="}
    found = client.call("get_item", {"TableName": "t", "Key": KEY})
    assert not is_botocores(server.requests[2])
    assert found["Item"] == {
        "B": {"S": "x"},
        "b": {"B": b"\0\xff"},
        "m": {"M": {"B": {"BS": [b"\0"]}}},
    }


def test_other_operations_are_botocores(server):
    server.answers += [FOUND, answer({"TableNames": ["t"]})]
    client = direct(server)
    client.call("get_item", {"TableName": "t", "Key": KEY})
    assert client.call("list_tables", {})["TableNames"] == ["t"]
    assert is_botocores(server.requests[1])
