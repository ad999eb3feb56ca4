"""Copies between stores: passes, comparison, figures (docs/moving).

A pass writes what differs and then forgets who is no longer there, so another pass brings along
whatever has changed since, and one that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import attrs

from autopush.db.interface import StoreUnusable
from autopush.db.transfer import Mark, Page, Portable, Transfer, checksum, differences, same

BATCH = 100
"""Users at a time: the most that DynamoDB returns by their keys."""

Shown = Callable[[int], None]
"""Told how many users are done."""


@attrs.define
class Totals:
    """What a store holds.

    :ivar oldest: when the oldest message was accepted (s)
    :ivar left: users that can't be taken
    :ivar unreadable: those whose record can't be read
    """

    users: int = 0
    channels: int = 0
    messages: int = 0
    size: int = 0
    oldest: int | None = None
    left: int = 0
    unreadable: list[str] = attrs.field(factory=list)

    def add(self, page: Page) -> None:
        """Count some users."""
        self.left += page.left
        self.unreadable += page.unreadable
        for user in page.users:
            self.users += 1
            self.channels += len(user.channels or ())
            self.messages += len(user.messages)
            self.size += user.size
            for row in user.messages:
                self.oldest = (
                    row.timestamp if self.oldest is None else min(self.oldest, row.timestamp)
                )


@attrs.define
class Copied:
    """What a pass has done.

    :ivar seen: what the source held, from where the pass began
    :ivar written: users that were new or differed
    :ivar removed: users that the source doesn't have any more
    """

    seen: Totals = attrs.field(factory=Totals)
    written: int = 0
    removed: int = 0
    resumed: bool = False


def pages(store: Transfer, after: str = "", limit: int = BATCH) -> Iterator[Page]:
    """Yield all users from a place on."""
    place: str | None = after
    while place is not None:
        page = store.page(place, limit)
        yield page
        place = page.after


def figures(store: Transfer, shown: Shown | None = None) -> Totals:
    """Count all that a store holds."""
    totals = Totals()
    for page in pages(store):
        totals.add(page)
        if shown is not None:
            shown(totals.users)
    return totals


class Copy:
    """One pass.

    :param dry: look only
    :param replace: whether the target may hold users that no copy has put there
    """

    def __init__(
        self,
        source: Transfer,
        target: Transfer,
        *,
        dry: bool = False,
        replace: bool = False,
        batch: int = BATCH,
        shown: Shown | None = None,
    ) -> None:
        self._source, self._target = source, target
        self._dry, self._replace, self._batch = dry, replace, batch
        self._shown = shown
        self.done = Copied()

    def run(self) -> Copied:
        """Copy, and remove.

        :raises StoreUnusable: the target is not one to write to
        """
        mark = self._begin()
        if mark.phase == "copy":
            self._copy(mark.after)
            mark = self._note("remove", "")
        self._remove(mark.after)
        self._note("done", "")
        return self.done

    def _begin(self) -> Mark:
        mark = self._target.get_mark()
        ours = mark is not None and mark.source == self._source.described
        if not self._replace:
            self._check(ours)
        if mark is None or not ours or mark.phase == "done":
            return self._note("copy", "")
        self.done.resumed = bool(mark.after) or mark.phase != "copy"
        return mark

    def _check(self, ours: bool) -> None:
        name = self._target.described
        if not ours and any(page.users for page in pages(self._target)):
            raise StoreUnusable(
                f"{name} holds users that no copy from {self._source.described} has brought: name"
                " an empty store, or say --replace to lose what only the target has"
            )
        if ours and self._target.served():
            raise StoreUnusable(
                f"{name} has been served since the last copy: another one would undo what was"
                " done there. Say --replace if that is meant"
            )

    def _note(self, phase: str, after: str) -> Mark:
        mark = Mark(self._source.described, phase, after)
        if not self._dry:
            self._target.set_mark(mark)
        return mark

    def _copy(self, after: str) -> None:
        for page in pages(self._source, after, self._batch):
            there = self._target.load([user.key for user in page.users])
            changed = [user for user in page.users if not same(user, there.get(user.key))]
            if changed and not self._dry:
                self._target.replace(changed, there)
            self.done.written += len(changed)
            self.done.seen.add(page)
            if page.after is not None:
                self._note("copy", page.after)
            if self._shown is not None:
                self._shown(self.done.seen.users)

    def _remove(self, after: str) -> None:
        for page in pages(self._target, after, self._batch):
            keys = [user.key for user in page.users]
            known = self._source.present(keys)
            gone = [key for key in keys if key not in known]
            if gone and not self._dry:
                self._target.remove(gone)
            self.done.removed += len(gone)
            if page.after is not None:
                self._note("remove", page.after)


class Verified(NamedTuple):
    """A comparison.

    :ivar sample: users that were compared
    :ivar checksums: of those, on both sides
    :ivar differing: what differs, a line each
    """

    source: Totals
    target: Totals
    sample: int
    checksums: tuple[str, str]
    differing: list[str]

    @property
    def alike(self) -> bool:
        """Whether nothing was found."""
        counts = [(t.users, t.channels, t.messages, t.size) for t in (self.source, self.target)]
        return counts[0] == counts[1] and not self.differing


def is_sampled(key: str, part: float) -> bool:
    """Whether a user is among so many of all; the same users every time."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return number < part * 2**64


def verify(source: Transfer, target: Transfer, sample: int, shown: Shown | None = None) -> Verified:
    """Count both sides, and compare some users in all they have.

    :param sample: about how many; 0: all
    """
    total = source.count()
    part = 1.0 if not sample or not total else min(1.0, sample / total)
    here, differing = Totals(), list[str]()
    sums: tuple[list[str], list[str]] = ([], [])
    for page in pages(source):
        here.add(page)
        chosen = [user for user in page.users if is_sampled(user.key, part)]
        there = target.load([user.key for user in chosen])
        for user in chosen:
            other = there.get(user.key)
            ours, theirs = checksum(user), checksum(other) if other else ""
            sums[0].append(ours)
            sums[1].append(theirs)
            if ours != theirs:
                differing += [f"{user.key}: {line}" for line in differences(user, other)]
        if shown is not None:
            shown(here.users)
    return Verified(here, figures(target), len(sums[0]), (_sum(sums[0]), _sum(sums[1])), differing)


def _sum(checksums: list[str]) -> str:
    return hashlib.sha256("".join(checksums).encode()).hexdigest()[:16]


__all__ = ["BATCH", "Copied", "Copy", "Portable", "Totals", "Verified", "figures", "verify"]
