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


def test_half_as_many_as_may_be_kept_always_are():
    recent = Recent(size=10)
    for number in range(100):
        recent.add(f"version {number}", number)
        assert len(recent) <= 10
        latest = range(max(0, number - 4), number + 1)
        assert all(recent.has(f"version {one}", one) for one in latest)


def test_one_acknowledged_again_after_others_is_of_the_later_connection():
    recent = Recent(size=4)
    for connected_at in (1000, 2000):
        for version in ("a", "b"):
            recent.add(version, connected_at)
    assert recent.has("a", 2000) and not recent.has("a", 1000)


def test_no_text_is_kept():
    """A version has some 200 characters, and there are many."""
    recent = Recent()
    recent.add("version", 1000)
    assert all(type(key) is int for key in recent._young)
