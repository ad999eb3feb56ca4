"""Nothing lost, nothing acknowledged again: a user agent and its senders against a model of what is
due, on the real stores (spec/websocket 5.3, 9, 10, 14, 15).

Hypothesis draws what happens. The model knows three kinds of accepted messages: those that are
*due* must come, those that *may* come were replaced, or had an acknowledgement that was not
processed, and those that must not were acknowledged, have expired, or are of a channel that ended.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from autopush.db.sqlite.store import SqliteStore
from autopush.tests.db.dynamodb.support import new_store
from autopush.tests.session.world import NODES, SOON, Inline, World

CHIDS = tuple(f"{digit * 8}-1111-4111-8111-111111111111" for digit in "123")

FAR = 1e12
"""When the messages of stragglers expire."""


class Sent(NamedTuple):
    """An accepted message."""

    chid: str
    topic: str | None
    expires: float
    life: int
    """Of its channel, which ends and begins."""


class Deliveries(RuleBasedStateMachine):
    """See the module."""

    world: World
    rotates = False

    @initialize(store_direct=st.booleans())
    def begin(self, store_direct: bool) -> None:
        world = self.world
        world.store_direct = store_direct
        for url in NODES:
            world.start(url)
        self.month = 1
        if self.rotates:
            months: Any = world.store.months
            self.month = 0
            months.adopt(months.needed_at_start()[0])
        self.sent: dict[str, Sent] = {}
        self.due: set[str] = set()
        self.acked: set[str] = set()
        self.pending: set[str] = set()
        self.lives = dict.fromkeys(CHIDS, 0)
        self.registered: set[str] = set()
        self.url = NODES[0]
        self.old: list[Any] = []
        self.connect(None)
        world.settle()
        (hello,) = self.wire.take()
        self.uaid = hello["uaid"]
        self.here: set[str] = set()
        self.unacked: dict[str, str] = {}
        for chid in CHIDS[:2]:
            self.register(chid)

    def connect(self, uaid: str | None) -> None:
        self.session = self.world.connect(self.url, uaid)
        self.wire: Any = self.session.wire

    # ---- the model

    def settle(self) -> None:
        self.world.settle()
        self.acked |= self.pending
        self.pending.clear()

    def listen(self) -> list[dict[str, Any]]:
        """Take what has come, and judge it; the other answers."""
        others = []
        for frame in self.wire.take():
            if frame["messageType"] != "notification":
                others.append(frame)
                continue
            version, chid = frame["version"], frame["channelID"]
            sent = self.sent[version]
            assert version not in self.here, "twice on one connection"
            assert version not in self.acked, "acknowledged before"
            assert chid in self.registered, "of an ended channel"
            assert sent.life == self.lives[chid] or self.excused(sent), "of an ended channel"
            assert self.world.now() < sent.expires + 2 * SOON, "expired"
            self.here.add(version)
            self.unacked[version] = chid
        return others

    def excused(self, sent: Sent) -> bool:
        """On DynamoDB a straggler comes when nobody met it before the channel began again."""
        return sent.expires == FAR and not self.world.store.deletes_read

    def not_processed(self) -> None:
        """The acknowledgements on their way may have come to nothing."""
        self.pending.clear()

    def accept(self, version: str, sent: Sent) -> None:
        if sent.topic:
            replaced = {v for v in self.due if self.sent[v][:2] == sent[:2]}
            self.due -= replaced
        self.sent[version] = sent
        self.due.add(version)

    # ---- senders

    @rule(
        chid=st.sampled_from(CHIDS),
        topic=st.sampled_from([None, None, None, "a", "b"]),
        ttl=st.sampled_from([60, 100_000, 100_000]),
        count=st.sampled_from([1, 1, 3, 12]),
    )
    def post(self, chid: str, topic: str | None, ttl: int, count: int) -> None:
        for _ in range(1 if topic else count):
            notification = self.world.message(self.uaid, chid, topic, ttl)
            version = str(notification.version)
            sent = Sent(chid, topic, self.world.now() + ttl, self.lives[chid])
            self.sent[version] = sent
            accepted = self.world.post(notification)
            assert accepted == (chid in self.registered)
            if accepted:
                self.accept(version, sent)
        self.settle()
        self.listen()

    @rule(chid=st.sampled_from(CHIDS))
    def straggler(self, chid: str) -> None:
        """One that had found the channel registered before it ended."""
        if chid not in self.registered:
            notification = self.world.message(self.uaid, chid, None, 100_000)
            record = self.world.wait(self.world.store.get_user(self.uaid))
            self.sent[str(notification.version)] = Sent(chid, None, FAR, self.lives[chid])
            if record:
                self.world.wait(
                    self.world.store.store_message(record["current_month"], notification)
                )
                self.world.nodes[self.url].check(self.uaid)
            self.settle()
            self.listen()

    # ---- the user agent

    @rule(data=st.data(), together=st.booleans(), settled=st.booleans())
    def ack(self, data: Any, together: bool, settled: bool) -> None:
        if not self.unacked:
            return
        order = data.draw(st.permutations(sorted(self.unacked)))
        chosen = order[: data.draw(st.integers(1, len(order)))]
        updates = [{"channelID": self.unacked.pop(v), "version": v} for v in chosen]
        for part in [updates] if together else [[update] for update in updates]:
            self.session.received({"messageType": "ack", "updates": part})
        self.due -= set(chosen)
        self.pending |= set(chosen)
        if settled:
            self.settle()
        self.listen()

    @rule()
    def nack(self) -> None:
        for version in self.unacked:
            self.session.received({"messageType": "nack", "version": version, "code": 301})

    @rule(chid=st.sampled_from(CHIDS))
    def register(self, chid: str) -> None:
        self.session.received({"messageType": "register", "channelID": chid})
        self.settle()
        (answer,) = self.listen()
        assert answer["status"] == 200
        if chid not in self.registered:
            self.lives[chid] += 1
            self.registered.add(chid)

    @rule(chid=st.sampled_from(CHIDS))
    def unregister(self, chid: str) -> None:
        self.listen()
        self.session.received({"messageType": "unregister", "channelID": chid})
        self.registered.discard(chid)
        self.settle()
        (answer,) = self.listen()
        assert answer["status"] == 200
        self.due = {v for v in self.due if self.sent[v].chid != chid}
        self.unacked = {v: c for v, c in self.unacked.items() if c != chid}

    @rule(paused=st.booleans())
    def output(self, paused: bool) -> None:
        """The user agent doesn't read for a while, or does again."""
        self.wire.output_paused = paused
        if not paused:
            self.session.output_resumed()
            self.settle()
            self.listen()

    # ---- ends of a session

    def hello(self, url: str) -> None:
        self.url = url
        self.here.clear()
        self.unacked.clear()
        self.connect(self.uaid)
        self.settle()
        answer, *_ = self.listen()
        assert answer["uaid"] == self.uaid, "lost its identity"

    @rule(url=st.sampled_from(NODES), noticed=st.booleans(), settled=st.booleans())
    def reconnect(self, url: str, noticed: bool, settled: bool) -> None:
        """With the old connection ended before, or while its peer is mute."""
        self.listen()
        if settled:
            self.settle()
        elif url != self.url:
            self.not_processed()
        if noticed:
            self.session.closed()
        else:
            self.old.append(self.session)
        self.hello(url)

    @rule(url=st.sampled_from(NODES))
    def closed_by_the_node(self, url: str) -> None:
        self.listen()
        self.session.close()
        self.old.append(self.session)
        self.settle()
        self.hello(url)

    @rule()
    def old_ones_end(self) -> None:
        while self.old:
            self.old.pop().closed()
        self.settle()
        self.listen()

    @rule()
    def sigterm(self) -> None:
        self.listen()
        done = self.world.nodes[self.url].shutdown()
        self.world.wait(done)
        self.settle()
        self.world.start(self.url)
        self.hello(self.url)

    @rule()
    def kill(self) -> None:
        """Where direct messages are stored as well, not even that loses anything."""
        self.listen()
        session = self.session
        if not self.world.store_direct:
            self.due -= {str(version) for _, version in session.direct or {}}
        self.not_processed()
        self.world.kill(self.url)
        self.hello(self.url)

    # ---- time

    @rule()
    def time_passes(self) -> None:
        self.world.reactor.advance(70)
        self.settle()
        self.listen()

    @precondition(lambda self: self.rotates and not self.month)
    @rule()
    def a_month_begins(self) -> None:
        self.month = 1
        months: Any = self.world.store.months
        months.adopt(months.this_month())

    # ---- the end

    def teardown(self) -> None:
        """Everything that is due comes, and then nothing."""
        if not hasattr(self, "uaid"):
            return
        self.output(False)
        self.old_ones_end()
        for _ in range(2):
            self.session.closed()
            self.settle()
            now = self.world.now() + 30
            due = {version for version in self.due if self.sent[version].expires > now}
            self.hello(NODES[0])
            while self.unacked:
                due -= set(self.unacked)
                self.due -= set(self.unacked)
                updates = [{"channelID": c, "version": v} for v, c in self.unacked.items()]
                self.pending |= set(self.unacked)
                self.unacked.clear()
                self.session.received({"messageType": "ack", "updates": updates})
                self.settle()
                self.listen()
            assert not due, "lost"
        assert self.here == set(), "came again"
        self.session.closed()
        self.settle()


@functools.cache
def sqlite_world() -> World:
    path = Path(tempfile.mkdtemp(prefix="autopush-acks-")) / "autopush.db"
    return World(lambda reactor, now: SqliteStore(str(path), reactor, now=now))


@functools.cache
def dynamodb_world() -> World:
    return World(lambda reactor, now: new_store(reactor=reactor, now=now, threadpool=Inline()))


@pytest.mark.parametrize(
    ("world", "rotates", "examples"),
    [(sqlite_world, False, 60), (dynamodb_world, True, 12)],
    ids=["sqlite", "dynamodb"],
)
def test_what_is_due_comes_and_what_was_acknowledged_does_not(world, rotates, examples):
    machine = type("Machine", (Deliveries,), {"world": world(), "rotates": rotates})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
