"""What the operator sees, and when the store is asked for it."""

from __future__ import annotations

import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from autopush import __version__
from autopush.app.figures import Figures
from autopush.app.overview import LOOK_INTERVAL, REASONS, SAMPLE_INTERVAL, Overview
from autopush.db.interface import Stock
from autopush.session.background import Background
from autopush.tests import TREE


class Store:
    def __init__(self):
        self.asked = []

    def health(self):
        self.asked.append(Deferred())
        return self.asked[-1]

    def writes_waiting(self):
        return 4


class Service:
    """An overview, and what it looks at."""

    def __init__(self):
        self.clock = Clock()
        self.store = Store()
        self.node = SimpleNamespace(
            clients={},
            users=None,
            stock=None,
            background=Background(self.clock),
        )
        self.application = SimpleNamespace(accepted=0, refused=Counter())
        self.freshened = 0
        census = SimpleNamespace(freshen=self._freshen)
        figures = Figures(self.store, [], self.node, self.clock)
        self.overview = Overview(figures, self.node, census, self.application, self.clock)

    def _freshen(self):
        self.freshened += 1

    def pass_time(self, seconds):
        """Let samples be taken, as the service does."""
        for _ in range(seconds // SAMPLE_INTERVAL):
            self.clock.advance(SAMPLE_INTERVAL)
            self.overview.sample()


@pytest.fixture
def service():
    return Service()


def test_a_service_that_has_just_started(service):
    assert service.overview.show() == {
        "version": __version__,
        "uptime": 0,
        "connections": 0,
        "unacknowledged": 0,
        "users": None,
        "channels": None,
        "messages": {"minute": 0, "total": 0},
        "stored": None,
        "store": {"up": None, "waiting": 4},
        "certificate_days": None,
        "refused": [],
    }


def test_one_at_work(service):
    node = service.node
    node.clients.update(a=SimpleNamespace(direct={1: 1, 2: 2}), b=SimpleNamespace(direct=None))
    node.users, node.stock = 5, Stock(7, 8, 900, None)
    service.application.refused.update({(401, 109): 2, (410, 106): 3})
    service.pass_time(100)
    shown = service.overview.show()
    assert (shown["connections"], shown["unacknowledged"], shown["users"]) == (2, 2, 5)
    assert (shown["channels"], shown["stored"]) == (7, {"messages": 8, "bytes": 900})
    assert shown["uptime"] == 100
    assert [(one["status"], one["count"]) for one in shown["refused"]] == [(410, 3), (401, 2)]
    assert shown["refused"][1]["reason"] == "not signed, or not rightly (VAPID)"
    service.application.refused[403, 0] = 9
    assert service.overview.show()["refused"][0]["reason"].startswith(
        "a web page of another origin"
    )
    assert json.loads(json.dumps(shown)) == shown


def test_messages_of_the_last_minute(service):
    def minute():
        return service.overview.show()["messages"]

    service.application.accepted = 10
    assert minute() == {"minute": 10, "total": 10}
    service.pass_time(30)
    service.application.accepted = 25
    assert minute() == {"minute": 25, "total": 25}
    service.pass_time(35)
    assert minute() == {"minute": 15, "total": 25}
    service.pass_time(65)
    assert minute() == {"minute": 0, "total": 25}


def test_the_store_is_looked_at_for_who_looks_and_not_each_time(service):
    service.pass_time(600)
    assert service.store.asked == []
    for _ in range(3):
        service.overview.show()
    (asked,) = service.store.asked
    asked.callback({"storage": None})
    assert service.overview.show()["store"]["up"] is True
    service.clock.advance(LOOK_INTERVAL)
    service.overview.show()
    service.store.asked[1].callback({"storage": "broken"})
    assert service.overview.show()["store"]["up"] is False
    assert service.freshened == 6


def test_each_errno_of_the_manual_has_words():
    text = (TREE / "docs" / "http.rst").read_text()
    (table,) = re.findall(r"^errno   Meaning\n=+ =+\n(.*?)^===", text, re.DOTALL | re.MULTILINE)
    numbers = {int(one) for row in re.findall(r"^([0-9, ]+) ", table, re.MULTILINE)
               for one in row.split(",") if one.strip()}  # fmt: skip
    assert numbers | {0} == set(REASONS)
