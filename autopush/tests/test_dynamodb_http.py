"""The thin way of requests to DynamoDB: autopush/db/dynamodb_http.py."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time

import pytest
from botocore import exceptions as boto

from autopush.db.dynamodb_client import Unavailable, caller, make_client
from autopush.db.dynamodb_http import Limits, use_thin_transport
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
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def get(server):
    return getter(f"http://127.0.0.1:{server.port}")


def getter(url):
    call = caller(make_client(thin=True, endpoint_url=url))
    return lambda: call("get_item", TableName="t", Key=KEY)


def test_request_is_the_one_botocore_has_signed(server, get):
    server.answers.append(FOUND)
    assert get()["Item"] == {"uaid": {"S": "x"}}
    head, body = server.requests[0]
    line, *headers = head.split("\r\n")
    values = {name.lower(): value for name, _, value in (h.partition(": ") for h in headers)}
    assert line == "POST / HTTP/1.1"
    assert len(values) == len(headers), "a header is there twice"
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


def test_connection_the_server_closed_meanwhile_is_not_used(server, get):
    server.answers += [FOUND, FOUND]
    get()
    server.drop()
    time.sleep(0.05)
    get()
    assert server.connections == 2


def test_old_connection_is_not_used(server, get, monkeypatch):
    server.answers += [FOUND, FOUND]
    get()
    monkeypatch.setattr("autopush.db.dynamodb_http.UNUSED", 0)
    get()
    assert server.connections == 2


def test_connection_close_is_obeyed(server, get):
    server.answers += [answer({}, extra="Connection: close\r\n"), FOUND]
    assert "Item" not in get()
    get()
    assert server.connections == 2


@pytest.mark.parametrize(
    "parts",
    [
        [FOUND[:10], 0.02, FOUND[10:60], 0.02, FOUND[60:]],
        [b"HTTP/1.1 100 Continue\r\n\r\n", FOUND],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
    ],
)
def test_answers_in_parts(server, get, parts):
    server.answers += [parts, FOUND]
    assert "ResponseMetadata" in get()
    get()
    assert server.connections == 1


def test_errors_of_dynamodb_are_read_by_botocore(server, get):
    error = {"__type": "com.amazonaws#ResourceNotFoundException", "message": "no table"}
    server.answers.append(answer(error, "400 Bad Request"))
    with pytest.raises(Exception, match="ResourceNotFoundException no table"):
        get()


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


def test_no_answer_in_time(server, monkeypatch):
    # As long as a busy machine may need for the second answer.
    monkeypatch.setattr("autopush.db.dynamodb_client.READ_TIMEOUT", 1)
    get = getter(f"http://127.0.0.1:{server.port}")
    late = threading.Event()
    server.answers += [[late, FOUND], FOUND]
    with pytest.raises(Unavailable, match="ReadTimeoutError") as caught:
        get()
    late.set()
    assert caught.value.maybe_done
    assert get()["Item"]
    assert server.connections == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid:8000"])
def test_not_sent(url):
    with pytest.raises(Unavailable, match="EndpointConnectionError") as caught:
        getter(url)()
    assert not caught.value.maybe_done


def test_no_connection_in_time(monkeypatch):
    def connect(address, timeout):
        assert timeout == 2
        raise TimeoutError

    monkeypatch.setattr("autopush.db.dynamodb_http.socket.create_connection", connect)
    with pytest.raises(Unavailable, match="ConnectTimeoutError") as caught:
        getter("http://127.0.0.1:1")()
    assert not caught.value.maybe_done


def test_tls(tmp_path, monkeypatch):
    key, cert, _ = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    server = Server(context)
    try:
        url = f"https://localhost:{server.port}"
        with pytest.raises(Unavailable, match="SSLError"):
            getter(url)()
        monkeypatch.setenv("AWS_CA_BUNDLE", cert)
        server.answers += [FOUND, FOUND]
        get = getter(url)
        before = server.connections
        assert get()["Item"] and get()["Item"]
        assert server.connections == before + 1
        other_name = f"https://127.0.0.2:{server.port}"
        with pytest.raises(Unavailable):
            getter(other_name)()
    finally:
        server.close()


def test_proxies_are_left_to_botocore(server, monkeypatch):
    client = make_client(endpoint_url="http://dynamodb.example:8000")
    assert use_thin_transport(client) is True
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    client = make_client(endpoint_url="http://dynamodb.example:8000")
    assert use_thin_transport(client) is False
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
