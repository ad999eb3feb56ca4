"""What of a store can be taken to another one: whole users, in a form all stores share.

A user is its record, its channels, its read pointer and the messages that wait for it. The UAID is
the one that is stored, so both sides need the same ``key_hash``. What belongs to one place stays
there: the node of a connection that is open, and the name of a month.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import attrs

from autopush.db.interface import MOVING_FROM
from autopush.db.rows import (
    AFTER_TIMESTAMPED,
    TIMESTAMPED,
    MessageRow,
    channel_ids,
    key_timestamp,
    load_json,
)

MONTH = "current_month"
ANY_MONTH = ""
"""Stands for the month of a user that has one."""

STAYS = frozenset({"uaid", "node_id", MOVING_FROM})
"""Attributes of a record that mean nothing elsewhere."""

DAY = 86_400


@attrs.frozen
class Portable:
    """One user.

    :ivar key: the UAID as stored, which may be its hash
    :ivar record: the other attributes, as JSON has them
    :ivar channels: None: it has no channel row
    :ivar pointer: sort-key timestamp (microseconds) up to which it has read
    :ivar expiry: of the channel row (s)
    :ivar messages: those that wait, in their order
    """

    key: str
    record: dict[str, Any]
    channels: frozenset[str] | None = None
    pointer: int | None = None
    expiry: int = 0
    messages: tuple[MessageRow, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of payloads and headers."""
        return sum(len(m.data or "") + len(m.headers or "") for m in self.messages)

    @property
    def has_month(self) -> bool:
        """Whether it connects; users of bridges don't."""
        return MONTH in self.record

    def record_in(self, month: str) -> dict[str, Any]:
        """Return the record for a store in which users have this month."""
        return {**self.record, MONTH: month} if self.has_month else dict(self.record)


class Mark(NamedTuple):
    """How far a copy is, kept in its target.

    :ivar source: where it comes from, for people
    :ivar phase: ``copy``, ``remove`` or ``done``
    :ivar after: where this phase goes on
    """

    source: str
    phase: str = "copy"
    after: str = ""


class Page(NamedTuple):
    """Some users.

    :ivar after: where the next page begins; None: there is none
    :ivar left: users who can't be taken: their month has gone, or nothing is known of them
    :ivar unreadable: keys of those whose record is none; nodes can't do anything with it, either
    """

    users: list[Portable]
    after: str | None
    left: int = 0
    unreadable: tuple[str, ...] = ()


class Transfer(Protocol):
    """One side. All methods block, and raise :class:`~autopush.exceptions.StoreError`."""

    described: str
    """The store, for people."""

    def exists(self) -> bool:
        """Whether there is such a store."""

    def prepare(self) -> None:
        """Make what isn't there yet, and check what is."""

    def count(self) -> int | None:
        """About how many users there are; None: nobody knows."""

    def page(self, after: str, limit: int) -> Page:
        """Return the next users, in an order that stays the same; empty: begin."""

    def load(self, keys: Sequence[str]) -> dict[str, Portable]:
        """Return those of these users that there are."""

    def present(self, keys: Sequence[str]) -> set[str]:
        """Return which of these users :meth:`load` would return."""

    def replace(self, users: Sequence[Portable], there: Mapping[str, Portable]) -> None:
        """Have exactly these, whatever there was of them.

        :param there: what there was, as :meth:`load` told
        """

    def remove(self, keys: Sequence[str]) -> None:
        """Forget users."""

    def served(self) -> bool:
        """Whether a node has had users here since they were copied."""

    def get_mark(self) -> Mark | None:
        """Return how far a copy to here is; None: there was none."""

    def set_mark(self, mark: Mark) -> None:
        """Note it."""

    def close(self) -> None:
        """Let go of connections."""


class Nowhere:
    """A store that isn't there yet, for looking only."""

    def __init__(self, described: str) -> None:
        self.described = described

    def exists(self) -> bool:
        return False

    def prepare(self) -> None:
        raise AssertionError("nothing is written in a dry run")

    def count(self) -> int | None:
        return 0

    def page(self, after: str, limit: int) -> Page:
        return Page([], None)

    def load(self, keys: Sequence[str]) -> dict[str, Portable]:
        return {}

    def present(self, keys: Sequence[str]) -> set[str]:
        return set()

    def replace(self, users: Sequence[Portable], there: Mapping[str, Portable]) -> None:
        self.prepare()

    def remove(self, keys: Sequence[str]) -> None:
        self.prepare()

    def served(self) -> bool:
        return False

    def get_mark(self) -> Mark | None:
        return None

    def set_mark(self, mark: Mark) -> None:
        self.prepare()

    def close(self) -> None:
        pass


# ---- into the common form


def plain(value: Any) -> Any:
    """Return a value as every store gives it back: sets are lists, whole floats integers."""
    if isinstance(value, Mapping):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plain_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without what belongs to one place."""
    kept = {name: plain(value) for name, value in record.items() if name not in STAYS}
    month = kept.get(MONTH)
    if month is None:
        kept.pop(MONTH, None)
    else:
        kept[MONTH] = ANY_MONTH
    return kept


def plain_message(row: MessageRow) -> MessageRow:
    """Return a message with its headers in one order."""
    headers = row.headers
    if headers is not None:
        headers = json.dumps(load_json(headers), sort_keys=True, separators=(",", ":"))
    return row._replace(headers=headers, data=row.data or None, live=1 if row.live else None)


def waiting(messages: Iterable[MessageRow], pointer: int | None, now: int) -> Iterator[MessageRow]:
    """Yield those that are neither expired nor read."""
    for row in messages:
        if row.expiry <= now:
            continue
        timestamped = TIMESTAMPED <= row.sort_key < AFTER_TIMESTAMPED
        if timestamped and pointer and (key_timestamp(row.sort_key) or 0) <= pointer:
            continue
        yield row


def portable(
    key: str,
    record: Mapping[str, Any],
    channels: Iterable[str] | None,
    *,
    pointer: int | None = None,
    expiry: int = 0,
    messages: Iterable[MessageRow] = (),
    now: int,
) -> Portable:
    """Put a user together from what a store has."""
    rows = sorted(map(plain_message, waiting(messages, pointer, now)), key=lambda row: row.sort_key)
    chids = None if channels is None else frozenset(channel_ids(channels))
    return Portable(key, plain_record(record), chids, pointer or None, expiry, tuple(rows))


# ---- comparing


def same(wanted: Portable, there: Portable | None) -> bool:
    """Whether nothing has to be written; channels that live longer are no difference."""
    if there is None or there.expiry < wanted.expiry:
        return False
    return attrs.evolve(there, expiry=wanted.expiry) == wanted


def checksum(user: Portable) -> str:
    """SHA-256, in hex, of all but when the channels end."""
    fields = attrs.asdict(user, recurse=False)
    del fields["expiry"]
    fields["channels"] = None if user.channels is None else sorted(user.channels)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def differences(wanted: Portable, there: Portable | None) -> list[str]:
    """Name what is not as it should be, a line each."""
    if there is None:
        return ["is missing"]
    names = sorted(wanted.record.keys() | there.record.keys())
    odd = [name for name in names if wanted.record.get(name) != there.record.get(name)]
    found = [f"attribute {name} differs" for name in odd]
    ours, theirs = wanted.channels or frozenset(), there.channels or frozenset()
    found += [f"channel {chid} is missing" for chid in sorted(ours - theirs)]
    found += [f"channel {chid} is too much" for chid in sorted(theirs - ours)]
    if (wanted.channels is None) != (there.channels is None):
        found.append("the row of its channels differs")
    if wanted.pointer != there.pointer:
        found.append("the read pointer differs")
    return found + _message_differences(wanted, there)


def _message_differences(wanted: Portable, there: Portable) -> list[str]:
    ours = {row.sort_key: row for row in wanted.messages}
    theirs = {row.sort_key: row for row in there.messages}
    found = [f"message {key} is missing" for key in sorted(ours.keys() - theirs.keys())]
    found += [f"message {key} is too much" for key in sorted(theirs.keys() - ours.keys())]
    both = sorted(ours.keys() & theirs.keys())
    return found + [f"message {key} differs" for key in both if ours[key] != theirs[key]]
