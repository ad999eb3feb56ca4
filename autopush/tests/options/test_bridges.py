"""A further bridge is one module and one line of ``autopush.options.bridges.DECLARATIONS``."""

from __future__ import annotations

import ast
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from autopush import router
from autopush.config import AutopushConfig
from autopush.doctor.bridges import bridges
from autopush.exceptions import InvalidConfig
from autopush.options.bridges import BRIDGES, DECLARATIONS, declared
from autopush.options.commands import COMMANDS
from autopush.options.tables import OBSOLETE
from autopush.session.records import is_bridge
from autopush.tests import TREE
from autopush.tests.web.support import CHID, Endpoint, field_errors, refused

TOY = "autopush.tests.options.toy_bridge"
SETTINGS: dict[str, Any] = {"toy": {"boxes": {"red": {}, "blue": {}}}}
REGISTRATION = "/v1/toy/red/registration"


@pytest.fixture
def toy(monkeypatch):
    """As if the module were in the list."""
    for router_type, bridge in declared((*DECLARATIONS, TOY)).items():
        monkeypatch.setitem(BRIDGES, router_type, bridge)
    return BRIDGES["toy"]


@pytest.fixture
def endpoint(toy):
    return Endpoint(router_conf={toy.router_type: SETTINGS["toy"]})


def register(endpoint: Endpoint, **body: Any) -> Any:
    answer = endpoint.request("POST", REGISTRATION, {"token": "y" * 8, "channelID": CHID, **body})
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


@pytest.fixture
def configured(toy, monkeypatch):
    """What becomes of the options of each command."""
    monkeypatch.delenv("TOY_BOXES", raising=False)

    def configure(command: str, *args: str) -> AutopushConfig:
        ns = COMMANDS[command].parse((), args)
        ns.no_aws = True
        return AutopushConfig.from_argparse(ns)

    return configure


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("command", COMMANDS)
def test_its_options_are_in_the_help(command, capsys):
    with pytest.raises(SystemExit):
        COMMANDS[command].parse((), ["--help"])
    text = capsys.readouterr().out
    part = " ".join(text[text.index("\ntoys:") :].split("\n\n")[0].split())
    assert part == (
        'toys: --toy_boxes JSON JSON: {"<box>": {}}; switches toys on [env var: TOY_BOXES]'
        " --toy_room N boxes that fit in (default: 3) [env var: TOY_ROOM]"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_its_options_become_settings(command, configured, monkeypatch, tmp_path):
    boxes = {"boxes": {"red": {}}, "room": 3}
    assert "toy" not in configured(command).router_conf
    assert configured(command, "--toy_boxes", '{"red": {}}').router_conf["toy"] == boxes
    monkeypatch.setenv("TOY_BOXES", '{"red": {}}')
    conf = configured(command, "--toy_room=4")
    assert conf.router_conf["toy"] == {**boxes, "room": 4}
    assert set(router.routers_from_config(conf, None, None)) == {"webpush", "toy"}


@pytest.mark.parametrize(
    ("boxes", "error"),
    [
        ("{", "Invalid JSON in toy_boxes"),
        ('{"red": 1}', "Invalid JSON in toy_boxes"),
        ('{"a": {}, "b": {}, "c": {}, "d": {}}', "There is no room for these boxes"),
    ],
)
def test_it_says_what_is_wrong_with_its_options(boxes, error, configured):
    with pytest.raises(InvalidConfig, match=error):
        configured("autoendpoint", "--toy_boxes", boxes)


def test_its_own_checks_come_after_those_of_other_options(configured):
    boxes = '{"a": {}, "b": {}, "c": {}, "d": {}}'
    with pytest.raises(InvalidConfig, match="client_certs"):
        configured("autoendpoint", "--toy_boxes", boxes, "--client_certs", "{")


def test_connection_nodes_leave_its_records_alone(toy):
    assert is_bridge({"router_type": toy.router_type})
    assert not is_bridge({"router_type": "webpush"}) and not is_bridge({})


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


def words(path):
    """All names and texts in a module, but for those that only explain."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
        for value in ast.iter_fields(node):
            yield from (part for part in value[1:] if isinstance(part, str))


@pytest.mark.parametrize("router_type", BRIDGES)
def test_nobody_else_knows_a_bridge_by_its_name(router_type):
    package = TREE / "autopush"
    own = [package / "options/bridges", package / "router", package / "tests"]
    for path in package.rglob("*.py"):
        if not any(map(path.is_relative_to, own)):
            text = " ".join(words(path)).replace(" ".join(OBSOLETE), "")
            assert not re.search(rf"(?<![a-z0-9]){router_type}(?![a-z])", text), path
