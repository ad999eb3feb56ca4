"""What a connection has acknowledged a moment ago."""

from __future__ import annotations

from autopush.session.recent import Recent


def test_only_the_connection_that_acknowledged_it_has_it():
    recent = Recent()
    recent.add("version", 1000)
    assert recent.has("version", 1000)
    assert not recent.has("version", 1001)
    assert not recent.has("other", 1000)
    assert not recent.has(None, 1000)


def test_the_latest_connection_counts():
    recent = Recent()
    recent.add("version", 1000)
    recent.add("version", 2000)
    assert recent.has("version", 2000) and not recent.has("version", 1000)


def test_the_oldest_are_forgotten():
    recent = Recent(size=2)
    for version in ("a", "b", "c"):
        recent.add(version, 1000)
    assert [recent.has(version, 1000) for version in ("a", "b", "c")] == [False, True, True]
