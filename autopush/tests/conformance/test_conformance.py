"""The recorded exchanges of the original, against the started command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from automock.running import Background
from autopush.tests.conformance import bridges, dynamodb
from autopush.tests.conformance.bridges import BridgeEnvironment
from autopush.tests.conformance.deviations import DEVIATIONS
from autopush.tests.conformance.driver import Environment, Run
from autopush.tests.conformance.dynamodb import Daemons, DynamoEnvironment
from autopush.tests.conformance.labels import Labels, Mismatch
from autopush.tests.e2e.harness import Server

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("cases.json").read_bytes())[
    "cases"
]
AS_RECORDED = ["--no_require_ttl"]
"""Options with which the standalone service takes what the daemons take."""

ALONE = {"restart", "serial"}
"""Cases with these needs get a service of their own."""


def _parameter(case: dict[str, Any]) -> Any:
    needs = set(case.get("needs", ()))
    missing = needs - (BridgeEnvironment.provides | DynamoEnvironment.provides)
    marks = []
    if missing:
        marks.append(pytest.mark.skip(reason=f"needs {', '.join(sorted(missing))}"))
    if "slow" in needs:
        marks.append(pytest.mark.slow)
    return pytest.param(case, id=case["id"], marks=marks)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("conformance")
    with Server(home, *AS_RECORDED, separate=True, router=True) as server:
        yield server


@pytest.fixture(scope="module")
def mock() -> Iterator[Background]:
    with Background() as started:
        yield started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    with Daemons(tmp_path_factory.mktemp("cluster")) as daemons:
        yield daemons


@pytest.fixture
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Environment]:
    needs = set(request.node.callspec.params["case"].get("needs", ()))
    if needs & bridges.NEEDS:
        mock: Background = request.getfixturevalue("mock")
        legacy = "fcm0" in needs
        options = [*AS_RECORDED, *bridges.options(mock, legacy)]
        with Server(tmp_path, *options, separate=True, router=True) as server:
            yield BridgeEnvironment(server, mock, legacy)
    elif needs & dynamodb.NEEDS:
        yield DynamoEnvironment(request.getfixturevalue("cluster"))
    elif ALONE & needs:
        with Server(tmp_path, *AS_RECORDED, separate=True, router=True) as server:
            yield Environment(server)
    else:
        yield Environment(request.getfixturevalue("shared"))


@pytest.mark.parametrize("case", [_parameter(case) for case in CASES])
def test_case(case: dict[str, Any], environment: Environment) -> None:
    asyncio.run(Run(bridges.with_whole_bodies(case), environment).run())


def test_every_deviation_belongs_to_a_case() -> None:
    steps = {case["id"]: len(case["steps"]) for case in CASES}
    for name, deviation in DEVIATIONS.items():
        assert deviation.step < steps[name]


# ------------------------------------------------------------------ the driver would notice


def _labels() -> Labels:
    return Labels(lambda label: "made", {"endpoint": "http://x"})


@pytest.mark.parametrize(
    ("template", "actual"),
    [
        ("<uaid>", "A" * 32),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": True}),
        ([1], [1, 2]),
        (["<uaid>", "<uaid>"], ["a" * 32, "b" * 32]),
        (["<uaid>", "<newuaid>"], ["a" * 32, "a" * 32]),
        ("{endpoint}/m/<msg1>", "http://y/m/abc"),
        ("<fernet:140>", "a" * 141),
    ],
)
def test_differences_are_noticed(template: Any, actual: Any) -> None:
    with pytest.raises(Mismatch):
        _labels().match(template, actual)


def test_labels_bind_once_and_fill_requests() -> None:
    labels = _labels()
    labels.match({"u": "{endpoint}/m/<msg1>"}, {"u": "http://x/m/gAAA-_="})
    assert labels.fill({"p": ["/m/<msg1>", "<other>"]}) == {"p": ["/m/gAAA-_=", "made"]}
