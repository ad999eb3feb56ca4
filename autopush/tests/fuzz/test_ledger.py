"""The books of the loops in fuzz/: they see what is wrong, and nothing else."""

from __future__ import annotations

import pytest

from fuzz.ledger import Channel, Ledger, Mailbox, Message
from fuzz.running import log_faults


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def mailbox(ledger: Ledger) -> Mailbox:
    box = Mailbox(ledger, "user")
    box.channels.append(Channel("channel", "http://endpoint"))
    return box


def post(mailbox: Mailbox, text: str, slot: str = "", mortal: bool = False) -> Message:
    message = Message(text, mailbox.channels[0], slot or text, mortal)
    mailbox.posted(message)
    return message


def accepted(mailbox: Mailbox, text: str, slot: str = "", mortal: bool = False) -> Message:
    message = post(mailbox, text, slot, mortal)
    mailbox.accepted(message)
    return message


def test_what_was_accepted_must_come(mailbox, ledger):
    accepted(mailbox, "1")
    mailbox.drained()
    assert ledger.broken == {"lost": 1}
    assert "1 (user" in ledger.summary()


def test_what_came_and_was_not_acknowledged_must_come_again(mailbox, ledger):
    accepted(mailbox, "1")
    mailbox.arrived("1", "channel")
    mailbox.drained()
    assert ledger.broken == {"lost": 1}


def test_what_was_acknowledged_need_not_come(mailbox, ledger):
    message = accepted(mailbox, "1")
    mailbox.acking(message, 0)
    mailbox.arrived("1", "channel")
    assert ledger.kept


@pytest.mark.parametrize("first", ["acking", "accepted"])
def test_an_acknowledgement_that_was_processed(mailbox, ledger, first):
    message = post(mailbox, "1")
    steps = {"acking": lambda: mailbox.acking(message, 0), "accepted": lambda: None}
    steps[first]()
    mailbox.accepted(message)
    mailbox.acking(message, 0)
    mailbox.proven([message])
    mailbox.arrived("1", "channel")
    mailbox.drained()
    assert ledger.broken == {"again": 1}


def test_an_acknowledgement_in_the_memory_of_a_node_that_died(mailbox, ledger):
    for text, node in (("1", 0), ("2", 1)):
        message = accepted(mailbox, text)
        mailbox.acking(message, node)
        mailbox.proven([message], shaky=True)
    mailbox.node_died(0)
    mailbox.arrived("1", "channel")
    assert ledger.kept
    mailbox.arrived("2", "channel")
    assert ledger.broken == {"again": 1}


def test_an_acknowledgement_that_has_been_written_since(mailbox, ledger):
    message = accepted(mailbox, "1")
    mailbox.acking(message, 0)
    mailbox.proven([message], shaky=True)
    mailbox.storage_is_well()
    mailbox.node_died(0)
    mailbox.arrived("1", "channel")
    assert ledger.broken == {"again": 1}


@pytest.mark.parametrize("moves", [False, True])
def test_acknowledged_while_it_moved(mailbox, ledger, moves):
    mailbox.moves = moves
    message = accepted(mailbox, "1")
    mailbox.left([message])
    mailbox.acking(message, 0)
    mailbox.proven([message])
    mailbox.arrived("1", "channel")
    assert ledger.kept is moves


def test_a_topic_keeps_the_last(mailbox, ledger):
    accepted(mailbox, "1", "topic")
    last = accepted(mailbox, "2", "topic")
    assert mailbox.due == {"topic": last}


def test_what_may_have_been_replaced_need_not_come(mailbox, ledger):
    accepted(mailbox, "1", "topic")
    mailbox.unknown(post(mailbox, "2", "topic"))
    mailbox.drained()
    assert ledger.kept


def test_a_ttl_that_is_over(mailbox, ledger):
    accepted(mailbox, "1", mortal=True)
    mailbox.drained()
    assert ledger.kept


def test_an_ended_channel(mailbox, ledger):
    message, under_way = accepted(mailbox, "1"), post(mailbox, "2")
    channel = message.channel
    mailbox.ending(channel)
    mailbox.arrived("1", "channel")  # was on its way
    mailbox.ended(channel)
    mailbox.accepted(under_way)
    mailbox.arrived("2", "channel")
    mailbox.drained()
    assert ledger.kept and not mailbox.channels
    mailbox.arrived("1", "channel")
    assert ledger.broken == {"ended channel": 1}


def test_a_look_at_a_log():
    log = ["well", "[x] Traceback (most recent call last):", "  frame", "Unhandled Error", "well"]
    (story,) = log_faults(log)
    assert story.splitlines()[0] == log[1]
    assert not list(log_faults(["well", "well"]))
