"""Reading what waits for a user from a message table (spec/storage 10). Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from twisted.logger import Logger

from autopush.db.dynamodb.items import CHANNEL_ROW, Item, expired, number_of, read_message
from autopush.db.dynamodb.messages import Messages, channel_set
from autopush.db.interface import Batch, Channels
from autopush.db.rows import TIMESTAMPED, TOPICS_AND_LOW_LEGACY_END, TOPICS_END, key_timestamp
from autopush.exceptions import StoreError
from autopush.message.notification import WebPushNotification

log = Logger()

GLANCE = 4
"""Rows that the first fetch of a connection reads, whatever they are. Most users that return have
only a channel row, and this tells so. Who has messages that were read and have not expired pays for
these again: three of 1 KB take as many read units, one, as the channel row alone."""


def topics(
    table: Messages, month: str, uaid: str, limit: int = 10, touch: bool = False, after: str = ""
) -> Batch:
    """The pointer; topic and low-sorting legacy rows, at most ``limit`` - 1; the channels.

    :param touch: this is the first fetch of a connection: also refresh the channel row's expiry
        where it lags behind, and tell if nothing else waits
    :param after: sort key behind which to begin; then there are neither pointer nor channels
    """
    reader = TopicReader(table, month, uaid, limit - 1, after)
    start = reader.glance() if touch and not after else {}
    if start is not None:
        reader.read(start)
    reader.delete_poison()
    if touch and reader.lags:
        table.touch(month, uaid)
    return Batch(reader.pointer, reader.messages, reader.channels, reader.is_all)


def since(table: Messages, month: str, uaid: str, timestamp: int | None, limit: int = 10) -> Batch:
    """At most ``limit`` rows above the timestamp's, and the last timestamp among them."""
    reader = Reader(table, month, uaid, limit)
    values = {":above": _above(timestamp)}
    for page in reader.pages("chidmessageid > :above", values, reader.left):
        for item in page:
            reader.take(item)
        if not reader.left():
            break
    reader.delete_poison()
    return Batch(reader.last, reader.messages)


def _above(timestamp: int | None) -> str:
    """The sort key behind which :func:`since` begins."""
    return f"{TIMESTAMPED}{timestamp}:z" if timestamp else TOPICS_AND_LOW_LEGACY_END


class Reader:
    """Collects the messages of a range: expired ones don't count, unreadable rows are deleted.

    :ivar last: sort-key timestamp of the last timestamped row, None if there was none
    """

    def __init__(self, table: Messages, month: str, uaid: str, limit: int) -> None:
        self._table = table
        self._month = month
        self._uaid = UUID(uaid)
        self._limit = limit
        self._now = table.now()
        self._poison: list[Item] = []
        self.messages: list[WebPushNotification] = []
        self.last: int | None = None

    def query(
        self, condition: str, values: dict[str, str], limit: int, start: dict[str, Any]
    ) -> tuple[list[Item], dict[str, Any] | None]:
        """Rows in order of their sort keys, and where to go on; None: there are no more.

        :param condition: on the sort key; empty: all
        """
        given = {":uaid": self._table.key(self._uaid.hex), **values}
        answer = self._table.call(
            "query",
            TableName=self._month,
            KeyConditionExpression=" AND ".join(filter(None, ("uaid = :uaid", condition))),
            ExpressionAttributeValues={name: {"S": text} for name, text in given.items()},
            ConsistentRead=True,
            Limit=limit,
            **start,
        )
        last = answer.get("LastEvaluatedKey")
        return answer["Items"], {"ExclusiveStartKey": last} if last else None

    def pages(
        self,
        condition: str,
        values: dict[str, str],
        limit: Callable[[], int],
        start: dict[str, Any] | None = None,
    ) -> Iterator[list[Item]]:
        """Rows in order of their sort keys, page by page, at most ``limit()`` in the next one."""
        following: dict[str, Any] | None = start or {}
        while following is not None:
            page, following = self.query(condition, values, limit(), following)
            yield page

    def left(self) -> int:
        """How many messages are still wanted."""
        return self._limit - len(self.messages)

    def take(self, item: Item) -> None:
        """Look at the next row."""
        if not self.left():
            return
        timestamp = key_timestamp(item["chidmessageid"]["S"])
        if timestamp is not None:
            self.last = timestamp
        over = expired(item, self._now)
        try:
            message = read_message(self._uaid, item)
        except ValueError:
            if not over:
                self._poison.append(item)
            return
        # The row's expiry says only when DynamoDB may remove it (spec/storage 3.2, 10).
        if not (over and message.expired(self._now)):
            self.messages.append(message)

    def delete_poison(self) -> None:
        """Delete the unreadable rows (spec/websocket Q15); a failure is for the next reader."""
        if not self._poison:
            return
        log.error("Deleting {count} unreadable stored messages", count=len(self._poison))
        table = self._table
        for item in self._poison:
            update_id = item.get("updateid", {}).get("S")
            try:
                table.delete_row(
                    self._month, item["uaid"]["S"], item["chidmessageid"]["S"], update_id
                )
            except StoreError as error:
                log.warn("Unreadable message not deleted: {error}", error=str(error))
                return


class TopicReader(Reader):
    """Reads the beginning of a user's rows: channel row and topics.

    :param after: sort key behind which to begin
    :ivar lags: whether the expiry of the channel row lags behind
    :ivar is_all: whether nothing is behind them that :func:`since` would find
    """

    def __init__(self, table: Messages, month: str, uaid: str, limit: int, after: str) -> None:
        super().__init__(table, month, uaid, limit)
        self._after = after
        self.pointer: int | None = None
        self.channels = Channels(False, set())
        self.lags = False
        self.is_all = False

    def glance(self) -> dict[str, Any] | None:
        """Read some rows, whatever they are; where to go on, None if there are no more topics."""
        page, following = self.query("", {}, GLANCE, {})
        self._take_all(page)
        others = [key for item in page if (key := item["chidmessageid"]["S"]) >= TOPICS_END]
        above = _above(self.pointer)
        self.is_all = following is None and not any(
            item["chidmessageid"]["S"] > above for item in page
        )
        return None if others or not self.left() else following

    def read(self, start: dict[str, Any]) -> None:
        """Read until there are enough, or no more.

        :param start: where to go on; empty: begin
        """
        # The channel row comes first, if there is one (quirk S8).
        condition, values = "chidmessageid < :end", {":end": TOPICS_END}
        if self._after:
            condition, values[":after"] = "chidmessageid BETWEEN :after AND :end", self._after
        for page in self.pages(condition, values, lambda: self.left() + 1, start):
            self._take_all(page)
            if not self.left():
                break

    def _take_all(self, page: list[Item]) -> None:
        for item in page:
            sort_key = item["chidmessageid"]["S"]
            if sort_key == CHANNEL_ROW:
                self.pointer = number_of(item, "current_timestamp")
                self.channels = Channels(True, channel_set(item))
                self.lags = self._table.lags(item)
            elif sort_key < TOPICS_END and sort_key != self._after:
                self.take(item)
