"""Which fault meets which request."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from autopush.control.faults import BY_STATUS, KINDS, Faults, name_of
from autopush.control.observed import ACTIONS


def request(endpoint="https://push/1", channel="1", senders=("10.0.0.1",)):
    return SimpleNamespace(endpoint=endpoint, channel=channel, senders=set(senders))


@pytest.mark.parametrize("name", KINDS)
def test_each_does_something(name):
    """Either it has a status, or more is done."""
    assert (KINDS[name].status is None) <= (name in ACTIONS)


def test_names_and_statuses():
    assert name_of("gone") == name_of(410) == name_of("410") == "gone"
    assert set(BY_STATUS) == {404, 410, 413, 429, 500, 502, 503}
    for nonsense in ("nonsense", 418, "", "²"):
        with pytest.raises(ValueError, match="there is no fault"):
            name_of(nonsense)


def test_the_first_that_fits():
    faults = Faults()
    faults.add("gone", subscription="2")
    faults.add("lost", times=1)
    faults.add("error")
    assert [faults.take(request()).name for _ in range(3)] == ["lost", "error", "error"]
    assert faults.take(request(channel="2")).name == "gone"


def test_times():
    faults = Faults()
    faults.add("gone", times=2)
    taken = [faults.take(request()) for _ in range(3)]
    assert [fault and fault.name for fault in taken] == ["gone", "gone", None]
    assert not list(faults)


@pytest.mark.parametrize("by", ["https://push/1", "1"])
def test_one_subscription(by):
    faults = Faults()
    faults.add("gone", subscription=by)
    assert faults.take(request()) is not None
    assert faults.take(request("https://push/2", "2")) is None


def test_one_sender():
    faults = Faults()
    faults.add("gone", sender="mailto:a@b")
    assert faults.take(request()) is None
    assert faults.take(request(senders=("10.0.0.1", "mailto:a@b"))) is not None


def test_taken_back():
    faults = Faults()
    one, other = faults.add("gone"), faults.add("lost", delay=None)
    assert faults.remove(one.number)
    assert not faults.remove(one.number)
    assert list(faults) == [other]
    faults.clear()
    assert faults.take(request()) is None


def test_as_json():
    shown = Faults().add(429, times=2, retry_after=7).to_json()
    assert shown == {
        "id": 1,
        "fault": "too-many",
        "subscription": None,
        "sender": None,
        "times": 2,
        "delay": 5.0,
        "retry_after": 7,
    }
