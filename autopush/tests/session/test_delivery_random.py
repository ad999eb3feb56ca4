"""Nothing accepted is lost, and nothing comes twice on one connection, whatever happens when."""

from __future__ import annotations

import random

import pytest

from autopush.session import Delivery
from autopush.tests.session.support import CHID, MONTH, UAID, Rig, message

HELD = ("fetch_topics", "fetch_since", "delete_message", "set_pointer", "store_message")

STEPS = (
    # weight, step, arguments to choose from
    (5, "direct", (False, False, True)),
    (4, "store", (False, False, True)),
    (4, "ack_stored", range(1, 13)),
    (3, "ack_direct", range(6)),
    (2, "hold", HELD),
    (4, "release", HELD),
    (1, "pause", (True, False, False)),
    (1, "wait", (0.0, 1.0)),
    (1, "reconnect", (True, False)),
)
"""Drawn at random rather than by hypothesis, whose short lists rarely hold a whole accident."""


class UserAgent:
    """Acknowledges direct notifications in any order, stored ones in that of their arrival."""

    def __init__(self, rig):
        self.rig = rig
        self.accepted = set()
        self.acked = set()
        self.topics = 0
        rig.user()
        rig.store.add_channel(MONTH, UAID, CHID)
        self.connect()

    def connect(self):
        self.session = self.rig.hello(UAID)
        self.wire = self.session.wire
        self.here = set()
        self.stored = []
        self.direct_ones = []

    def listen(self):
        for frame in self.wire.take():
            if frame.get("messageType") == "notification":
                version = frame["version"]
                assert version not in self.here, "came twice"
                self.here.add(version)
                key = (frame["channelID"], version)
                kind = self.direct_ones if key in (self.session.direct or {}) else self.stored
                kind.append({"channelID": frame["channelID"], "version": version})

    def new(self, topic):
        self.topics += 1
        return message(topic=f"t{self.topics}" if topic else None)

    def direct(self, topic):
        notification = self.new(topic)
        self.accepted.add(notification.version)
        if self.rig.deliver(notification) in (Delivery.BUSY, Delivery.NOT_CONNECTED):
            self.keep(notification)

    def store(self, topic):
        notification = self.new(topic)
        self.accepted.add(notification.version)
        self.keep(notification)

    def keep(self, notification):
        self.rig.store.store_message(MONTH, notification)
        self.rig.node.check(UAID)

    def ack_stored(self, count):
        updates, self.stored = self.stored[:count], self.stored[count:]
        self.ack(updates)

    def ack_direct(self, index):
        self.ack([self.direct_ones.pop(index)] if index < len(self.direct_ones) else [])

    def ack(self, updates):
        self.acked.update(update["version"] for update in updates)
        self.session.received({"messageType": "ack", "updates": updates})

    def hold(self, name):
        self.rig.store.hold(name)

    def release(self, name):
        if name in self.rig.store._held:
            self.rig.store.release(name)

    def pause(self, paused):
        self.wire.output_paused = paused
        if not paused:
            self.session.output_resumed()

    def wait(self, seconds):
        self.rig.clock.advance(seconds)

    def reconnect(self, before):
        """The old connection's end is noticed before or after the new one begins."""
        self.listen()
        old = self.session
        if before:
            old.closed()
        self.connect()
        if not before:
            old.closed()

    def finish(self):
        """Let everything come to its end."""
        for name in HELD:
            self.release(name)
        self.pause(False)
        for _ in range(200):
            self.listen()
            updates = self.stored + self.direct_ones
            if not updates and not self.rig.clock.getDelayedCalls():
                break
            self.stored, self.direct_ones = [], []
            self.ack(updates)
            self.wait(1.0)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("seed", range(150))
def test_delivery(seed, durable):
    draw = random.Random(seed)
    rig = Rig(store_direct=durable)
    agent = UserAgent(rig)
    weights = [weight for weight, *_ in STEPS]
    for _, name, choices in draw.choices(STEPS, weights, k=draw.randrange(5, 80)):
        getattr(agent, name)(draw.choice(choices))
        agent.listen()
    agent.finish()
    assert agent.accepted == agent.acked
    session = agent.session
    assert session.wire.closes == [] and session.wire.reading
    assert not session.direct and not session.leaving and not session.stored
    assert session.row_operations == 0 and rig.node.background._running == 0
    # What was acknowledged does not come again.
    agent.reconnect(True)
    agent.listen()
    assert agent.here == set()
