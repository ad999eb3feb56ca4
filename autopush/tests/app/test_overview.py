"""What the operator sees, and when the store is asked for it."""

from __future__ import annotations

import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from autopush import __version__
from autopush.app.figures import Figures
from autopush.app.overview import LOOK_INTERVAL, REASONS, SAMPLE_INTERVAL, Overview, Whole
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


def test_where_another_process_counts_nobody_is_asked_to(service):
    service.overview.census = None
    service.overview.show()
    assert service.freshened == 0


# ---------------------------------------------------------------------------- several processes


def part(**more):
    """What a process shows that has done nothing yet, but for this."""
    return {**Service().overview.show(), **more}


def refusals(counts):
    service = Service()
    service.application.refused.update(counts)
    return service.overview.show()["refused"]


COUNTS = st.dictionaries(st.sampled_from([(401, 109), (410, 106), (503, 201)]), st.integers(1, 99))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), COUNTS), min_size=1, max_size=4))
def test_the_whole_is_the_sum(processes):
    parts, expected = {}, Counter()
    for number, (connections, accepted, refused) in enumerate(processes, 1):
        messages = {"minute": accepted, "total": 2 * accepted}
        parts[number] = part(
            connections=connections,
            unacknowledged=2 * connections,
            messages=messages,
            refused=refusals(refused),
        )
        expected.update(refused)
    shown = Whole(4, Clock()).show(parts)
    assert shown["workers"] == {"serving": len(processes), "count": 4}
    assert shown["connections"] == sum(one[0] for one in processes)
    assert shown["unacknowledged"] == 2 * shown["connections"]
    minute = sum(one[1] for one in processes)
    assert shown["messages"] == {"minute": minute, "total": 2 * minute}
    assert {(row["status"], row["errno"]): row["count"] for row in shown["refused"]} == expected
    counts = [row["count"] for row in shown["refused"]]
    assert counts == sorted(counts, reverse=True)
    assert shown.keys() == part().keys() | {"workers"}
    assert json.loads(json.dumps(shown)) == shown


def test_the_first_counts_what_is_stored_for_all():
    stored = {"messages": 8, "bytes": 900}
    parts = {1: part(users=5, channels=7, stored=stored), 2: part(users=4)}
    whole = Whole(2, Clock())
    shown = whole.show(parts)
    assert (shown["users"], shown["channels"], shown["stored"]) == (5, 7, stored)
    assert whole.show({1: None, 2: parts[2]})["users"] is None


@pytest.mark.parametrize(
    ("ups", "expected"),
    [([], None), ([None, None], None), ([True, None], True), ([True, False], False)],
)
def test_the_store_is_well_if_it_is_for_each(ups, expected):
    parts = {n: part(store={"up": up, "waiting": 3}) for n, up in enumerate(ups, 1)}
    waiting = 3 * len(ups) if ups else None
    assert Whole(2, Clock()).show(parts)["store"] == {"up": expected, "waiting": waiting}


def test_the_certificate_that_ends_first():
    parts = {1: part(), 2: part(certificate_days=9.5), 3: part(certificate_days=8.5)}
    assert Whole(3, Clock()).show(parts)["certificate_days"] == 8.5


def test_what_is_counted_since_the_start_never_goes_back():
    clock = Clock()
    whole = Whole(2, clock)

    def counted(total, count):
        return part(messages={"minute": 0, "total": total}, refused=refusals({(401, 109): count}))

    def shown(parts):
        now = whole.show(parts)
        return now["messages"]["total"], now["refused"][0]["count"]

    other = counted(100, 50)
    assert shown({1: counted(10, 5), 2: other}) == (110, 55)
    assert shown({1: None, 2: other}) == (110, 55)  # it hangs
    whole.ended(1)
    assert shown({1: None, 2: other}) == (110, 55)
    assert shown({1: counted(3, 2), 2: other}) == (113, 57)
    whole.ended(1)
    whole.ended(2)
    assert shown({1: counted(0, 1), 2: None}) == (113, 58)
    clock.advance(77)
    assert whole.show({})["uptime"] == 77


def test_each_errno_of_the_manual_has_words():
    text = (TREE / "docs" / "http.rst").read_text()
    (table,) = re.findall(r"^errno   Meaning\n=+ =+\n(.*?)^===", text, re.DOTALL | re.MULTILINE)
    numbers = {int(one) for row in re.findall(r"^([0-9, ]+) ", table, re.MULTILINE)
               for one in row.split(",") if one.strip()}  # fmt: skip
    assert numbers | {0} == set(REASONS)
