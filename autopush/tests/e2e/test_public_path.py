"""The service below a path of somebody else's host, behind nginx.

The tests need nginx (Debian: ``apt-get install nginx-light``; ``.ci/run`` does that).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time

import httpx
import pytest
from websockets.sync.client import connect

from autopush.tests.e2e.clients import PATIENT, VapidSender
from autopush.tests.e2e.harness import START_WITHIN, STOP_WITHIN, Server, free_port
from autopush.tests.e2e.test_proxies import NGINX

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""
CHANNEL = "11111111-2222-4333-8444-555555555555"

pytestmark = pytest.mark.skipif(
    not PROGRAM, reason="nginx is not installed (apt-get install nginx-light)"
)


BELOW_A_PATH = """
server {{
    listen 127.0.0.1:{port};
    location {path}/ {{
        proxy_pass http://127.0.0.1:{service}{passed};
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $http_connection;
    }}
}}
"""


@pytest.fixture(params=["/", ""], ids=["taken off", "left"])
def below(request, tmp_path_factory):
    """The service below a path of nginx, which takes it off or leaves it; yields its URL and the
    service."""
    home = tmp_path_factory.mktemp("nginx")
    port, path = free_port(), "/a/push"
    url = f"http://localhost:{port}{path}"
    with Server(tmp_path_factory.mktemp("service"), "--public_url", url) as server:
        values = {"port": port, "path": path, "service": server.port, "passed": request.param}
        example = BELOW_A_PATH.format(**values)
        (home / "nginx.conf").write_text(NGINX.format(home=home, example=example))
        with running(home, port):
            yield url, server


@contextlib.contextmanager
def running(home, port):
    """nginx with the configuration in its folder."""
    command = [PROGRAM, "-p", str(home), "-c", str(home / "nginx.conf")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait(STOP_WITHIN)


def wait_for(port, process):
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end:
        assert process.poll() is None, process.stderr.read()
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("nginx doesn't listen")


def test_everything_works_below_a_path(below):
    """What the service says of itself has the path; the sender signs for the origin."""
    url, server = below
    origin = url.removesuffix("/a/push")
    sender = VapidSender()
    assert f"dom.push.serverURL = {url.replace('http', 'ws', 1)}/\n" in server.output
    with connect(f"{url.replace('http', 'ws', 1)}/", origin=origin, **PATIENT) as browser:
        browser.send(json.dumps({"messageType": "hello", "use_webpush": True}))
        assert json.loads(browser.recv())["status"] == 200
        register = {"messageType": "register", "channelID": CHANNEL, "key": sender.public_key}
        browser.send(json.dumps(register))
        endpoint = json.loads(browser.recv())["pushEndpoint"]
        assert endpoint.startswith(f"{url}/wpush/v2/")
        with httpx.Client(trust_env=False) as client:
            signed = sender.rfc8292.sign({"aud": origin, "sub": "mailto:a@example.com"})
            answer = client.post(endpoint, headers={"TTL": "60", **signed})
            assert answer.status_code == 201, answer.text
            location = answer.headers["location"]
            assert location.startswith(f"{url}/m/")
            assert "strict-transport-security" not in answer.headers
            assert client.delete(location).status_code == 204
            assert client.get(f"{url}/status").json()["status"] == "OK"
            none = client.get(f"{url}/none")
            assert (none.status_code, none.json()["errno"]) == (404, 102)
            assert "strict-transport-security" not in none.headers
            wrong = sender.rfc8292.sign({"aud": "http://other", "sub": "mailto:a@example.com"})
            refused = client.post(endpoint, headers={"TTL": "60", **wrong})
            assert refused.status_code == 401
            assert f"aud must be {origin}" in refused.json()["message"]
        assert json.loads(browser.recv())["channelID"] == CHANNEL


def test_the_page_is_below_the_path_too(below):
    url, _ = below
    with httpx.Client(trust_env=False) as client:
        page = client.get(f"{url}/")
        assert page.status_code == 200
        assert f"{url.replace('http', 'ws', 1)}/<" in page.text
        found = re.findall(r' (?:src|href)="(/[^"]+)"', page.text)
        assert len(found) >= 5
        for path in found:
            assert client.get(f"{url.removesuffix('/a/push')}{path}").status_code == 200
        without = client.get(url, follow_redirects=True)
        assert (without.status_code, without.text) == (200, page.text)
        # Everybody comes over loopback here: nobody is the operator.
        assert client.get(f"{url}/page/figures").status_code == 401
