"""The test mode of a service, and the service without it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

from twisted.internet.task import Clock

from autopush.config import AutopushConfig
from autopush.control.control import Control
from autopush.control.observed import ObservedEndpoint, ObservedStandalone
from autopush.testing import PushService
from autopush.tests import TREE
from autopush.web.page.document import INBOX
from autopush.web.page.handlers import Page


def test_each_has_a_token_of_its_own():
    tokens = {Control(None, Clock()).url(1).rpartition("/")[2] for _ in range(3)}
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32


def test_its_parts():
    control = Control(None, Clock())
    conf = SimpleNamespace(max_data=4096, access_keys=["K"])
    server = control.serve(conf, SimpleNamespace(by_message={}), SimpleNamespace(conf=conf))
    control.started(7)
    assert server.rig is control.rig
    assert control.preferences()["dom.push.serverURL"] == "ws://127.0.0.1:7/K"
    assert control.url(8).startswith("http://127.0.0.1:8/")


def made(shown, **options):
    """The HTTP API of the test mode."""
    control, clock = Control(None, Clock()), Clock()
    conf = AutopushConfig(hostname="push.example", endpoint_port=8082, **options)
    endpoint = control.endpoint(shown, conf, None, {}, clock=clock)
    control.serve(conf, endpoint, SimpleNamespace(conf=conf))
    return endpoint


def test_the_page_is_an_inbox():
    for how, has_data in (("full", True), ("info", False)):
        endpoint = made(Page(), page=how)
        assert type(endpoint) is ObservedStandalone
        assert endpoint.page.document is INBOX
        assert (endpoint.page.figures is not None) is has_data


def test_without_a_page():
    assert type(made(None, page="off")) is ObservedEndpoint


def test_without_it_nothing_of_it_is_there():
    """Not even imported: the service pays nothing for it."""
    code = (
        "import sys, autopush.main as m; assert m.StandaloneApplication;"
        "print([n for n in sys.modules if n.startswith(('autopush.control', 'autopush.testing'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_private_service():
    """Agents and real browsers get the key they need."""
    key = "k" * 30
    with PushService(["--access_key", key]) as push:
        assert push.websocket_url.endswith(f"/{key}")
        assert push.browser().subscribe()["endpoint"]


def test_a_port_of_its_own_for_senders():
    with PushService(["--endpoint_port", "0"]) as push:
        assert push.browser().subscribe()["endpoint"].startswith(push.url)
