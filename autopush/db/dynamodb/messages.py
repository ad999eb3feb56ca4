"""Operations on a message table: channels, pointer, messages (spec/storage 10). Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.logger import Logger

from autopush.constants import MAX_EXPIRY
from autopush.db.dynamodb.client import UNSURE, Call, ConditionFailed, checks_unsure
from autopush.db.dynamodb.items import (
    CHANNEL_ROW,
    Item,
    channel_row,
    number_of,
    row_key,
    write_message,
)
from autopush.db.interface import Channels
from autopush.db.rows import (
    AFTER_TIMESTAMPED,
    TIMESTAMPED,
    channel_ids,
    key_timestamp,
    other_spellings,
    spellings,
    without_topic,
)
from autopush.message.notification import WebPushNotification

log = Logger()

LATE = 250_000
"""Age (µs) from which on a message may have been overtaken by ones that are gone by now, and so
has to be compared with the read pointer, too."""

RESTAMPS = 10
"""How often a message takes a later timestamp because another one overtook it."""

KEPT = "kept"
"""Attribute of a bridge user's channel row: the channels that are in the router record as well."""

TOUCH_GRANULARITY = 86_400
"""Seconds by which a channel row's expiry may lag behind: saves a write at most hellos."""


class Messages:
    """All message tables; every method takes the name of one.

    :param call: makes one request
    :param key: the UAID as stored (quirk S1)
    :param clock: seconds since the epoch
    """

    def __init__(self, call: Call, key: Callable[[str], str], clock: Callable[[], float]) -> None:
        self.call = call
        self.key = key
        self.clock = clock

    def now(self) -> int:
        """Whole seconds since the epoch."""
        return int(self.clock())

    # ---- channel row

    def _update_channels(
        self,
        month: str,
        uaid: str,
        update: str,
        condition: str | None = None,
        returns: str = "UPDATED_OLD",
        **values: Any,
    ) -> dict[str, Any]:
        """Update the channel row and its expiry; the answer has the old values.

        The row counts as long as it exists: its expiry only tells DynamoDB when it may remove it
        (spec/storage 10).

        :raises ConditionFailed: as the name says
        """
        named = {f":{name}": value for name, value in values.items()}
        return self.call(
            "update_item",
            TableName=month,
            Key=row_key(self.key(uaid), CHANNEL_ROW),
            UpdateExpression=f"SET expiry = :expiry{update}",
            ExpressionAttributeValues={":expiry": _number(self.now() + MAX_EXPIRY), **named},
            ReturnValues=returns,
            **({} if condition is None else {"ConditionExpression": condition}),
        )

    def channel_row(self, month: str, uaid: str) -> Item | None:
        """The channel row."""
        return channel_row(self.call, month, self.key(uaid))

    def channels(self, month: str, uaid: str) -> Channels:
        """The channel row."""
        row = self.channel_row(month, uaid)
        return Channels(False, set()) if row is None else Channels(True, channel_set(row))

    def add_channels(self, month: str, uaid: str, chids: set[str]) -> None:
        """Add to the channel set."""
        self._update_channels(month, uaid, " ADD chids :chids", chids={"SS": sorted(chids)})

    def keep_channels(self, month: str, uaid: str, chids: set[str]) -> None:
        """Add to the channel set of a bridge user, and note that we did."""
        forms = {"SS": sorted(chids)}
        self._update_channels(month, uaid, f" ADD chids :chids, {KEPT} :chids", chids=forms)

    def drop_kept_channel(self, month: str, uaid: str, chid: str) -> None:
        """Undo that."""
        forms = {"SS": sorted(set(spellings(chid)))}  # of an id without letters two are the same
        self._update_channels(month, uaid, f" DELETE chids :chids, {KEPT} :chids", chids=forms)

    def take_channel(self, month: str, uaid: str, chid: str) -> tuple[Item, bool]:
        """Remove from the channel set; the row as it was, and whether it was a member.

        As a member counts also one that an earlier attempt, whose answer was lost, has removed.
        """
        forms = set(spellings(chid))
        row, before = self._remove_spellings(month, uaid, forms)
        others = other_spellings(chid, before)
        if others:
            self._remove_spellings(month, uaid, others)
        return row, bool(others or before & forms)

    def _remove_spellings(self, month: str, uaid: str, forms: set[str]) -> tuple[Item, set[str]]:
        """The row and its set before; all of it if the answer to an earlier attempt was lost."""
        chids = {"SS": sorted(forms)}
        # All: not every server tells of a set from which nothing was deleted.
        answer = self._update_channels(
            month, uaid, " DELETE chids :chids", returns="ALL_OLD", chids=chids
        )
        row: Item = answer.get("Attributes", {})
        before = set(row.get("chids", {}).get("SS", ()))
        return row, before | forms if UNSURE in answer else before

    def touch(self, month: str, uaid: str) -> None:
        """Refresh the row's expiry if the row exists."""
        try:
            self._update_channels(month, uaid, "", "attribute_exists(chidmessageid)")
        except ConditionFailed:
            pass

    def lags(self, row: Item) -> bool:
        """Whether the expiry of a channel row lags behind by more than a day."""
        expiry = number_of(row, "expiry")
        return expiry is None or expiry <= self.now() + MAX_EXPIRY - TOUCH_GRANULARITY

    def set_pointer(self, month: str, uaid: str, timestamp: int) -> None:
        """Move the pointer forwards (quirk S14), creating the row if there is none."""
        pointer = _number(timestamp)
        forwards = "attribute_not_exists(current_timestamp) OR current_timestamp < :pointer"
        try:
            self._update_channels(
                month,
                uaid,
                ", current_timestamp = :pointer",
                forwards,
                pointer=pointer,
            )
        except ConditionFailed:
            self.touch(month, uaid)

    # ---- reading messages

    # ---- writing messages

    def restore(self, month: str, notification: WebPushNotification) -> None:
        """See :meth:`autopush.db.interface.Store.restore_message`."""
        user = self.key(notification.uaid.hex)
        item = write_message(user, notification, self.now())
        if not notification.topic:
            self.store(month, notification)()
            return
        older = "attribute_not_exists(uaid) OR updateid = :updateid OR #timestamp < :timestamp"
        try:
            self.call(
                "put_item",
                TableName=month,
                Item=item,
                ConditionExpression=older,
                ExpressionAttributeNames={"#timestamp": "timestamp"},
                ExpressionAttributeValues={
                    ":updateid": item.get("updateid", {"S": ""}),
                    ":timestamp": item["timestamp"],
                },
            )
        except ConditionFailed:
            key = row_key(user, notification.sort_key)
            answer = self.call("get_item", TableName=month, Key=key, ConsistentRead=True)
            other = number_of(answer.get("Item") or {}, "timestamp")
            if other is None or other == notification.timestamp:
                self.store(month, without_topic(notification))()

    def store(self, month: str, notification: WebPushNotification) -> MessagePut:
        """The operation that stores a message."""
        return MessagePut(self, month, notification)

    @checks_unsure
    def delete(self, month: str, notification: WebPushNotification, unsure: bool = False) -> bool:
        """Delete the row, or the one with the same update id (quirk S7); whether it was there."""
        user, sort_key = self.key(notification.uaid.hex), notification.sort_key
        update_id = notification.update_id
        if self.delete_row(month, user, sort_key, update_id, notification.legacy):
            return True
        if not update_id or not sort_key.startswith(TIMESTAMPED):
            return unsure
        found = self._find(month, user, update_id)
        return unsure if found is None else self.delete_row(month, user, found, update_id)

    def delete_row(
        self, month: str, user: str, sort_key: str, update_id: str | None, legacy: bool = False
    ) -> bool:
        """Delete a row, only if its update id is this where one is given; whether it was there.

        :param legacy: the sort key tells the message, and the row may have no update id
        """
        condition: dict[str, Any] = {}
        if update_id:
            same = "updateid = :updateid"
            if legacy:
                same += " OR attribute_not_exists(updateid)"
            condition = {
                "ConditionExpression": same,
                "ExpressionAttributeValues": {":updateid": {"S": update_id}},
            }
        try:
            answer = self.call(
                "delete_item",
                TableName=month,
                Key=row_key(user, sort_key),
                ReturnValues="ALL_OLD",
                **condition,
            )
        except ConditionFailed:
            return False
        return bool(answer.get("Attributes"))

    def _find(self, month: str, user: str, update_id: str) -> str | None:
        """Sort key of the user's timestamped message with this update id."""
        values = {":updateid": {"S": update_id}}
        same = "updateid = :updateid"
        for item in self.keys(
            month, user, TIMESTAMPED, AFTER_TIMESTAMPED, values, FilterExpression=same
        ):
            return str(item["chidmessageid"]["S"])
        return None

    def keys(
        self,
        month: str,
        user: str,
        low: str,
        high: str,
        values: dict[str, Any] | None = None,
        **filters: Any,
    ) -> Iterator[Item]:
        """Sort keys and update ids of the rows in a range, its ends included."""
        start: dict[str, Any] = {}
        while True:
            answer = self.call(
                "query",
                TableName=month,
                KeyConditionExpression="uaid = :uaid AND chidmessageid BETWEEN :low AND :high",
                ProjectionExpression="chidmessageid, updateid",
                ExpressionAttributeValues={
                    ":uaid": {"S": user},
                    ":low": {"S": low},
                    ":high": {"S": high},
                    **(values or {}),
                },
                ConsistentRead=True,
                **filters,
                **start,
            )
            yield from answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


class MessagePut:
    """Stores one message; goes on where it was interrupted.

    A reader moves a pointer past what it has read and never looks back. So when a later message
    is there already, which a reader may have passed, this one gets a timestamp after it (17.6).
    The look comes after the write: whatever is not there by then will be read after ours.
    """

    def __init__(
        self,
        table: Messages,
        month: str,
        notification: WebPushNotification,
        check_pointer: bool = False,
    ) -> None:
        self._table = table
        self._month = month
        self._uaid = notification.uaid.hex
        self._suffix = f":{notification.channel_id}"
        self._item = write_message(table.key(self._uaid), notification, table.now())
        self._timestamp = key_timestamp(self._sort_key)
        self._check_pointer = check_pointer or (
            self._timestamp is not None and self._timestamp < table.clock() * 1_000_000 - LATE
        )
        self._obsolete: list[str] = []
        self._moves = 0

    @property
    def _sort_key(self) -> str:
        return str(self._item["chidmessageid"]["S"])

    @property
    def _update_id(self) -> str | None:
        return self._item.get("updateid", {}).get("S")

    def __call__(self) -> None:
        while True:
            if not self._put():
                self._move_to(f"{TIMESTAMPED}{(self._timestamp or 0) + 1}{self._suffix}")
                continue
            self._delete_obsolete()
            key = self._better_key() if self._moves < RESTAMPS else None
            if key is None:
                return
            self._obsolete.append(self._sort_key)
            self._move_to(key)
            self._moves += 1

    def _move_to(self, key: str) -> None:
        self._timestamp = key_timestamp(key)
        self._item = {**self._item, "chidmessageid": {"S": key}}

    def _put(self) -> bool:
        """Write the row; False if another message has its place."""
        condition: dict[str, Any] = {}
        if self._timestamp is not None:
            # Messages of one channel that move look for a place at the same end, which may also be
            # the place of one that is just being written.
            condition["ConditionExpression"] = "attribute_not_exists(uaid)"
            if self._update_id:
                condition["ConditionExpression"] += " OR updateid = :updateid"
                values = {":updateid": {"S": self._update_id}}
                condition["ExpressionAttributeValues"] = values
        try:
            self._table.call("put_item", TableName=self._month, Item=self._item, **condition)
        except ConditionFailed:
            return False
        return True

    def _delete_obsolete(self) -> None:
        while self._obsolete:
            user = self._item["uaid"]["S"]
            self._table.delete_row(self._month, user, self._obsolete[-1], self._update_id)
            self._obsolete.pop()

    def _better_key(self) -> str | None:
        """The sort key where readers find the message, None if that is the one it has."""
        if self._timestamp is None:
            return None
        latest = self._pointer()
        for item in self._last_rows():
            key = item["chidmessageid"]["S"]
            if key == self._sort_key:
                continue
            if self._update_id and item.get("updateid", {}).get("S") == self._update_id:
                return str(key)  # this message, stored before under a later timestamp
            latest = max(latest, key_timestamp(key) or 0)
        if latest < self._timestamp:
            return None
        return f"{TIMESTAMPED}{latest + 1}{self._suffix}"

    def _last_rows(self) -> list[Item]:
        """The user's last rows from the message's own timestamp on, two at most."""
        answer = self._table.call(
            "query",
            TableName=self._month,
            KeyConditionExpression="uaid = :uaid AND chidmessageid BETWEEN :low AND :high",
            ExpressionAttributeValues={
                ":uaid": self._item["uaid"],
                ":low": {"S": f"{TIMESTAMPED}{self._timestamp}:"},
                ":high": {"S": AFTER_TIMESTAMPED},
            },
            ProjectionExpression="chidmessageid, updateid",
            ScanIndexForward=False,
            ConsistentRead=True,
            Limit=2,
        )
        items: list[Item] = answer["Items"]
        return items

    def _pointer(self) -> int:
        if not self._check_pointer:
            return 0
        row = self._table.channel_row(self._month, self._uaid)
        self._check_pointer = False
        return (number_of(row, "current_timestamp") or 0) if row else 0


def channel_set(row: Item) -> set[str]:
    """The channels in a channel row, in whatever spellings they were stored."""
    return channel_ids(row.get("chids", {}).get("SS", ()))


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}
