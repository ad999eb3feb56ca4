"""Copies between stores of all kinds: docs/moving."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings

from autopush.db.copying import Copy, figures, is_sampled, verify
from autopush.db.interface import StoreUnusable
from autopush.db.transfer import Mark
from autopush.exceptions import StoreError
from autopush.tests.db.transfer_support import SIDES, held, message, stores, user

PAIRS = [*itertools.permutations(SIDES, 2), ("sqlite", "sqlite")]
pairs = pytest.mark.parametrize("pair", PAIRS, ids="-".join)


@pytest.fixture
def sides(pair, tmp_path):
    made = [SIDES[name](tmp_path) for name in pair]
    yield made
    for side in made:
        side.close()


def fill(side, *users):
    side.replace(users, {})
    return {user.key: user for user in users}


@pairs
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(users=stores)
def test_there_and_back_is_the_same(pair, users):
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        first, second, third = (SIDES[side](home) for side in (*pair, pair[0]))
        expected = fill(first, *users)
        assert held(first) == expected
        Copy(first, second, batch=3).run()
        assert held(second) == expected
        Copy(second, third, batch=2).run()
        assert held(third) == expected
        assert verify(first, third, 0).alike
        for side in (first, second, third):
            side.close()


@pairs
def test_another_pass_brings_what_has_changed(sides):
    source, target = sides
    fill(source, *map(user, range(5)))
    assert Copy(source, target).run().written == 5
    done = Copy(source, target).run()
    assert (done.written, done.removed, done.resumed) == (0, 0, False)
    # Acknowledged, one more message, a new channel, a new user, and one who has gone.
    chid = "00000000-0000-4000-8000-000000000001"
    changed = [
        user(0, messages=[]),
        user(1, messages=[message(1, chid), message(2, chid)]),
        user(2, channels=["00000000-0000-4000-8000-00000000000a"], messages=[]),
        user(9),
    ]
    source.replace(changed, source.load([one.key for one in changed]))
    source.remove([user(3).key])
    done = Copy(source, target).run()
    assert (done.written, done.removed) == (4, 1)
    assert held(target) == held(source) == {
        one.key: one for one in (*changed, user(4))
    }  # fmt: skip


class Cut(StoreError):
    """On purpose."""


@pairs
@pytest.mark.parametrize("method", ["replace", "remove", "set_mark"])
def test_an_interrupted_copy_goes_on(sides, method, monkeypatch):
    """Wherever it was interrupted, the same command leads to the same end."""
    source, target = sides
    fill(source, *map(user, range(4)))
    Copy(source, target, batch=1).run()
    fill(source, *(user(number, messages=[]) for number in range(4)), user(8))
    source.remove([user(0).key, user(1).key])
    for calls in range(1, 30):
        counter = itertools.count(1)
        plain = getattr(type(target), method)

        def cut(*args, plain=plain, counter=counter, calls=calls):
            if next(counter) == calls:
                raise Cut("on purpose")
            plain(target, *args)

        monkeypatch.setattr(target, method, cut)
        try:
            Copy(source, target, batch=1).run()
            break
        except Cut:
            pass
    monkeypatch.undo()
    Copy(source, target).run()
    assert held(target) == held(source)
    assert target.get_mark() == Mark(source.described, "done", "")


def test_a_copy_goes_on_where_it_was(tmp_path):
    source, target = SIDES["sqlite"](tmp_path), SIDES["sqlite"](tmp_path)
    fill(source, *map(user, range(4)))
    target.set_mark(Mark(source.described, "copy", user(1).key))
    done = Copy(source, target).run()
    assert done.resumed
    assert held(target).keys() == {user(2).key, user(3).key}


@pairs
def test_a_dry_run_changes_nothing(sides):
    source, target = sides
    fill(source, user(1), user(2))
    Copy(source, target).run()
    fill(source, user(3))
    source.remove([user(2).key])
    mark, before = target.get_mark(), held(target)
    done = Copy(source, target, dry=True).run()
    assert (done.written, done.removed) == (1, 1)
    assert (target.get_mark(), held(target)) == (mark, before)


UNREADABLE = {"sqlite": ["{broken", "[1]", "3", "null", ""], "postgresql": ["[1]", "3", "null"]}


@pytest.mark.parametrize("name", [name for name in SIDES if name in UNREADABLE])
def test_an_unreadable_record_is_named_and_left_out(name, tmp_path):
    """What an earlier copy has brought of that user stays."""
    source, target = SIDES[name](tmp_path), SIDES["sqlite"](tmp_path)
    texts = UNREADABLE[name]
    broken = [user(number) for number in range(len(texts))]
    fill(source, *broken, user(8), user(9))
    Copy(source, target).run()
    before = held(target)

    def damage(run):
        for one, text in zip(broken, texts, strict=True):
            run("UPDATE users SET record = ? WHERE uaid = ?", text, one.key)
        run("DELETE FROM messages WHERE uaid = ?", user(8).key)

    source.together(damage, write=True)
    done = Copy(source, target, batch=2).run()
    assert (done.written, done.removed, done.seen.users, done.seen.left) == (1, 0, 2, 0)
    assert sorted(done.seen.unreadable) == [one.key for one in broken]
    assert held(target) == {**before, user(8).key: user(8, messages=[])}
    # A target that has such users gets sound ones.
    Copy(target, source, replace=True).run()
    assert held(source) == held(target)
    source.close()
    target.close()


@pairs
def test_users_of_others_are_not_overwritten(sides):
    source, target = sides
    fill(source, user(1))
    fill(target, user(2))
    with pytest.raises(StoreUnusable, match="--replace"):
        Copy(source, target).run()
    assert held(target).keys() == {user(2).key}
    assert Copy(source, target, replace=True).run().removed == 1
    assert held(target) == held(source)


@pairs
def test_a_target_that_serves_is_left_alone(sides):
    """To copy again once users are at the new place would undo what they did there."""
    source, target = sides
    fill(source, user(1))
    Copy(source, target).run()
    serving = attrs.evolve(user(5))
    serving.record["node_id"] = "http://127.0.0.1:8081"
    target.replace([serving], {})
    with pytest.raises(StoreUnusable, match="has been served"):
        Copy(source, target).run()
    Copy(source, target, replace=True).run()
    assert held(target) == held(source)


@pairs
def test_differences_are_named(sides):
    source, target = sides
    fill(source, user(1), user(2), user(3))
    Copy(source, target).run()
    assert verify(source, target, 0).alike
    fill(target, user(1, messages=[]), user(4))
    target.remove([user(3).key])
    found = verify(source, target, 0)
    assert not found.alike
    assert found.checksums[0] != found.checksums[1]
    assert (found.source.users, found.target.users, found.sample) == (3, 3, 3)
    (row,) = user(1).messages
    assert sorted(found.differing) == [
        f"{user(1).key}: message {row.sort_key} is missing",
        f"{user(3).key}: is missing",
    ]


def test_a_sample_is_the_same_every_time_and_about_as_large_as_asked_for():
    keys = [user(number).key for number in range(2000)]
    chosen = [key for key in keys if is_sampled(key, 0.1)]
    assert 100 < len(chosen) < 300
    assert chosen == [key for key in keys if is_sampled(key, 0.1)]
    assert all(is_sampled(key, 1.0) for key in keys)


@pytest.mark.parametrize("name", SIDES)
def test_figures(name, tmp_path):
    side = SIDES[name](tmp_path)
    fill(side, user(1), user(2, messages=[]), user(3, channels=None, expiry=0, messages=[]))
    shown = []
    totals = figures(side, shown.append)
    (row,) = user(1).messages
    size = len(row.data) + len(row.headers)
    assert (totals.users, totals.channels, totals.messages, totals.size) == (3, 2, 1, size)
    assert totals.oldest == row.timestamp
    assert shown[-1] == 3
    side.close()
