"""A further bridge is one module and one line of :data:`autopush.router.DECLARATIONS`."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from autopush import router
from autopush.config import AutopushConfig
from autopush.doctor.bridges import bridges
from autopush.router import DECLARATIONS, declared
from autopush.tests.web.support import CHID, Endpoint, field_errors, refused

TOY = "autopush.tests.router.toy_bridge"
SETTINGS: dict[str, Any] = {"toy": {"boxes": {"red": {}, "blue": {}}}}
REGISTRATION = "/v1/toy/red/registration"


@pytest.fixture
def toy(monkeypatch):
    """As if the module were in the list."""
    for router_type, bridge in declared((*DECLARATIONS, TOY)).items():
        monkeypatch.setitem(router.BRIDGES, router_type, bridge)
    return router.BRIDGES["toy"]


@pytest.fixture
def endpoint(toy):
    return Endpoint(router_conf={toy.router_type: SETTINGS["toy"]})


def register(endpoint: Endpoint, **body: Any) -> Any:
    answer = endpoint.request("POST", REGISTRATION, {"token": "y" * 8, "channelID": CHID, **body})
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


@pytest.mark.usefixtures("toy")
def test_its_class_is_a_name_of_the_package():
    assert router.ToyRouter.platform == "toy"


@pytest.mark.usefixtures("toy")
def test_without_settings_there_is_none():
    assert list(Endpoint().routers) == ["webpush"]
    assert list(Endpoint(router_conf={"toy": {"other": 1}}).routers) == ["webpush"]


def test_it_takes_registrations(endpoint):
    register(endpoint, colour="green", shape="round")
    (record,) = endpoint.store.users.values()
    assert record["router_type"] == "toy"
    data = record["router_data"]
    assert {name: data[name] for name in ("token", "colour", "box")} == {
        "token": "y" * 8,
        "colour": "green",
        "box": "red",
    }
    assert "shape" not in data


def test_it_says_what_a_registration_must_have(endpoint):
    answer = endpoint.request("POST", REGISTRATION, {"token": "short", "colour": 7})
    assert set(field_errors(answer)["body"]) == {"token", "colour"}
    answer = endpoint.request("POST", "/v1/toy/green/registration", {"token": "y" * 8})
    assert refused(answer) == (400, 105, "No such box")


def test_messages_go_there(endpoint):
    body = register(endpoint)
    path = body["endpoint"][len(endpoint.conf.endpoint_url) :]
    answer = endpoint.push(path=path)
    assert (answer.status, answer.headers["ttl"]) == (201, "60")
    assert endpoint.routers["toy"].sent == [("red", None)]


def test_a_device_that_is_gone_is_dropped(endpoint):
    body = register(endpoint, token="x" * 8)
    path = body["endpoint"][len(endpoint.conf.endpoint_url) :]
    assert endpoint.push(path=path).status == 410
    assert endpoint.store.users == {}


def test_a_record_it_can_not_use_is_refused(endpoint):
    endpoint.add_user(router_type="toy", router_data={"token": "y" * 8})
    assert refused(endpoint.push())[:2] == (410, 105)


@pytest.mark.usefixtures("toy")
def test_the_doctor_looks_at_it():
    conf = AutopushConfig(hostname="h", router_conf=SETTINGS)
    (result,) = bridges(SimpleNamespace(has_api=True, conf=conf))
    assert result.line == "ok    toy: credentials of 2 crates are well-formed"


def test_without_the_line_there_is_no_such_type():
    endpoint = Endpoint()
    answer = endpoint.request("POST", REGISTRATION, {"token": "y" * 8})
    assert refused(answer) == (400, 108, "Invalid router")
