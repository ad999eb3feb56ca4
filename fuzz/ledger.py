"""The books: what a service has promised, and which promises it broke.

The rules, for one user agent:

* A message that was answered 2xx with a TTL comes, unless it was acknowledged, its channel was
  unregistered, or a later one with its topic was accepted. It comes again at the next connection
  until then.
* A message does not come after its acknowledgement *was processed*. An acknowledgement isn't
  answered, so that is known only where something that was answered proves it: see
  :meth:`fuzz.people.Person.prove`. If the server dies before, the message may come or not.
* On DynamoDB one may come again that was acknowledged in the instant in which it moved to a later
  place in the table, which happens when a connection ends (docs/architecture.rst). These are only
  counted.
* Nothing comes for a channel after ``unregister`` was answered, and senders get 410 from then on.
* A UAID and a registration that were answered are there for good.

What the server did not answer, because it died, may have happened or not.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

KINDS = (
    "lost",
    "again",
    "registration lost",
    "ended channel",
    "unexpected answer",
    "traceback",
    "exit",
)
"""Of broken promises. ``lost``: an accepted message did not come; ``again``: one came after its
acknowledgement was processed; ``ended channel``: something came from, or was accepted for, a
channel that had been unregistered; ``exit``: SIGTERM ended with another status than 0."""

MOVES = 5.0
"""Seconds after the end of a connection in which what it had un-acknowledged is moving."""

TOLD = 20
"""Broken promises of each kind that are printed with their story."""


class Ledger:
    """The books of a whole run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.stories: list[str] = []

    def count(self, what: str, number: int = 1) -> None:
        """Add to a figure of the summary."""
        self.counts[what] += number

    def breach(self, kind: str, story: str) -> None:
        """Write down a broken promise; ``kind`` is one of :data:`KINDS`."""
        assert kind in KINDS, kind
        self.broken[kind] += 1
        if self.broken[kind] <= TOLD:
            self.stories.append(f"{kind.upper()}: {story}")

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken

    def summary(self) -> str:
        """All figures, then the stories."""
        lines = [f"{number:9}  {what}" for what, number in self.counts.items()]
        lines += [f"{self.broken[kind]:9}  {kind.upper()}" for kind in KINDS]
        return "\n".join([*lines, *self.stories])


@dataclass(eq=False)
class Channel:
    """A subscription of one user."""

    id: str
    endpoint: str
    topics: int = 0
    """Its messages have one of so many topics; 0: none has a topic."""
    ending: bool = False
    """``unregister`` was sent."""
    ended: bool = False
    """It was answered."""


@dataclass(eq=False)
class Message:
    """One POST."""

    text: str
    channel: Channel
    slot: str
    """Those of the same slot replace each other: channel and topic, or the message itself."""
    mortal: bool = False
    """Its TTL is over before anybody looks: it need not come."""
    accepted: bool = False
    acked: bool = False
    """The acknowledgement is on its way."""
    proven: bool = False
    """It was processed."""
    shaky: bool = False
    """It was processed while storage was failing, so that it may be waiting in memory."""
    node: int = 0
    """Where it was acknowledged."""
    left: float = -math.inf
    """When a connection ended that had it un-acknowledged; :func:`time.monotonic`."""
    moving: bool = False
    """It was acknowledged so soon after that that it may just have been moving."""
    ended: bool = False
    """It was accepted before its channel's ``unregister`` was answered."""


@dataclass(eq=False)
class Mailbox:
    """What is known of one user's messages."""

    ledger: Ledger
    name: str
    moves: bool = False
    """Messages have two rows for a moment while they move to a later place: DynamoDB."""
    messages: dict[str, Message] = field(default_factory=dict)
    due: dict[str, Message] = field(default_factory=dict)
    """Promised and not acknowledged, by slot."""
    channels: list[Channel] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    # ---- application servers

    def posted(self, message: Message) -> None:
        """A POST begins."""
        self.messages[message.text] = message

    def accepted(self, message: Message) -> None:
        """It was answered 2xx."""
        message.accepted = True
        self.ledger.count("messages accepted")
        self.due.pop(message.slot, None)  # of a topic: it has replaced the one before
        if not (message.acked or message.mortal or message.channel.ending):
            self.due[message.slot] = message

    def unknown(self, message: Message) -> None:
        """It was not answered, or with a 503: it may be there, and may have replaced another."""
        self.due.pop(message.slot, None)

    # ---- the user agent

    def arrived(self, text: str, channel_id: str) -> Message:
        """A notification came; returns what it is."""
        message = self.messages[text]
        assert message.channel.id == channel_id, (text, channel_id)
        self.tell(f"got {text}{' again' if message.acked else ''}")
        if message.ended:
            self.breach("ended channel", message, "came after unregister was answered")
        elif message.proven and message.moving and self.moves:
            self.ledger.count("came again, having been acknowledged while they moved")
        elif message.proven:
            self.breach("again", message, "came after its acknowledgement was processed")
        return message

    def acking(self, message: Message, node: int) -> None:
        """An acknowledgement is sent."""
        message.acked, message.node = True, node
        message.moving = message.moving or time.monotonic() - message.left < MOVES
        if self.due.get(message.slot) is message:
            del self.due[message.slot]

    def left(self, messages: Iterable[Message]) -> None:
        """The connection has ended, and with it these were not acknowledged."""
        for message in messages:
            message.left = time.monotonic()

    def proven(self, messages: list[Message], shaky: bool = False) -> None:
        """The acknowledgements of these were processed."""
        for message in messages:
            if not message.proven:
                message.proven, message.shaky = True, shaky
                self.ledger.count("acknowledgements proven")

    def node_died(self, node: int) -> None:
        """A node has ended: acknowledgements that storage had refused were in its memory only."""
        for message in self.messages.values():
            if message.shaky and message.node == node:
                message.proven = message.shaky = False

    def storage_is_well(self) -> None:
        """What was waiting in memory has been written since."""
        for message in self.messages.values():
            message.shaky = False

    def ending(self, channel: Channel) -> None:
        """``unregister`` is sent: what waits for the channel isn't due any more."""
        channel.ending = True
        self.channels.remove(channel)
        for slot, message in list(self.due.items()):
            if message.channel is channel:
                del self.due[slot]

    def ended(self, channel: Channel) -> None:
        """It was answered."""
        channel.ended = True
        for message in self.messages.values():
            if message.channel is channel:
                message.ended = message.accepted
        self.ledger.count("channels unregistered")

    def drained(self) -> None:
        """All came that will, and it was acknowledged provably. What is not due and did not come
        now, having been acknowledged, is gone; the rest of the books is closed."""
        for message in list(self.due.values()):
            self.breach("lost", message, "was accepted and never came")
        self.due.clear()
        for message in self.messages.values():
            message.proven = message.proven or message.acked

    # ---- stories

    def tell(self, what: str) -> None:
        """Note what happened, for the story of a broken promise."""
        self.story.append(what)

    def breach(self, kind: str, message: Message, what: str) -> None:
        """Write down what happened to a message, with all that the user has seen of it."""
        tale = [
            line
            for line in self.story[-400:]
            if message.text in line.split() or line.startswith(("-", message.channel.id[:8]))
        ]
        where = f"{self.name}, channel {message.channel.id[:8]}, {message.slot}"
        self.ledger.breach(kind, "\n    ".join([f"{message.text} ({where}) {what}", *tale[-30:]]))
