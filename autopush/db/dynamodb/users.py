"""Operations on the router table (spec/storage 9). Blocking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from autopush.constants import RECORD_VERSION
from autopush.db.dynamodb.client import (
    UNSURE,
    Call,
    ConditionFailed,
    DynamoError,
    Throttled,
    checks_unsure,
)
from autopush.db.dynamodb.items import (
    BRIDGE_CHANNELS,
    CHANNEL_ROW,
    Item,
    channel_row,
    read_record,
    row_key,
    set_expression,
    set_values,
)
from autopush.db.interface import (
    MOVING_FROM,
    Arrival,
    Connection,
    Registration,
    Subscription,
    User,
)
from autopush.db.lastconnect import last_connects_of_month
from autopush.db.rows import channel_ids, other_spellings, spellings
from autopush.exceptions import AutopushException

log = Logger()

ACCESS_DENIED = "AccessDeniedException"

MAY_REGISTER = (
    "(attribute_not_exists(router_type) OR router_type = :router_type) AND"
    " (attribute_not_exists(node_id) OR attribute_not_exists(connected_at)"
    " OR connected_at < :connected_at)"
)
"""Condition of a registration (quirk S9: a node without ``connected_at`` is no obstacle)."""

PLAIN = (
    "router_type = :router_type AND current_month = :month AND record_version >= :version"
    " AND last_connect BETWEEN :first AND :last AND connected_at < :connected_at"
)
"""Condition of :meth:`Store.return_user`; implies the one above."""

OF_CONNECTION = (
    "connected_at = :connected_at AND (attribute_not_exists(node_id) OR node_id = :node_id)"
)
"""The record is about this connection, though its node may have been found gone."""

BARE = "attribute_not_exists(router_type) AND attribute_not_exists(connected_at)"


class SubscriptionRead:
    """One look-up of a record and its channel row; goes on where it was interrupted.

    :param guess: the month the user is most likely in, whose table exists
    :ivar month: the one it is in; None for a user that is in none
    """

    def __init__(self, users: Users, uaid: str, chid: str, guess: str) -> None:
        self._users = users
        self._uaid = uaid
        self._chid = chid
        self._guess = guess
        self._found: dict[str, Item | None] = {}
        self.month: str | None = None

    def __call__(self, accepts: Callable[[object], bool]) -> Subscription:
        """Run it.

        :param accepts: whether a month's table exists, as :meth:`Months.accepts`
        """
        self._batch()
        users = self._users
        item = self._found[users.table]
        if item is None or not users.is_whole(item, self._uaid):
            return Subscription(None, False)
        user = read_record(item, self._uaid)
        self.month = user.get("current_month")
        if self.month is None:
            is_member = self._has_channel(self._found[self._guess]) or self._has_channel(item)
        elif self.month == self._guess and self._has_channel(self._found[self._guess]):
            is_member = True
        else:
            # Also where the guess was right: the row may have been read before the record, and the
            # user may have moved here in between. That costs only those who are refused.
            row = users.channel_row(self.month, self._uaid) if accepts(self.month) else None
            is_member = self._has_channel(row)
        return Subscription(user, is_member)

    def _batch(self) -> None:
        """Read both in one request; again what DynamoDB leaves out under load."""
        users = self._users
        keys = {
            users.table: {"uaid": {"S": users.key(self._uaid)}},
            self._guess: row_key(users.key(self._uaid), CHANNEL_ROW),
        }
        wanted = {
            table: {"Keys": [key], "ConsistentRead": True}
            for table, key in keys.items()
            if table not in self._found
        }
        if not wanted:
            return
        if not users.may_batch:
            self._one_by_one(keys)
            return
        try:
            answer = users.call("batch_get_item", RequestItems=wanted)
        except DynamoError as error:
            if error.code != ACCESS_DENIED:
                raise
            log.warn("No permission for BatchGetItem, so each look-up takes two requests")
            users.may_batch = False
            self._one_by_one(keys)
            return
        left = answer.get("UnprocessedKeys") or {}
        for table in wanted:
            if not (left.get(table) or {}).get("Keys"):
                items = answer["Responses"].get(table)
                self._found[table] = items[0] if items else None
        if left:
            raise Throttled("DynamoDB batch_get_item: unprocessed keys")

    def _one_by_one(self, keys: dict[str, Item]) -> None:
        for table, key in keys.items():
            if table not in self._found:
                answer = self._users.call("get_item", TableName=table, Key=key, ConsistentRead=True)
                self._found[table] = answer.get("Item")

    def _has_channel(self, item: Item | None) -> bool:
        stored = item.get(BRIDGE_CHANNELS, {}).get("SS", ()) if item else ()
        return self._chid in stored or self._chid in channel_ids(stored)


class Users:
    """The router table.

    :param call: makes one request
    :param table: its name
    :param key: the UAID as stored (quirk S1)
    :param now: whole seconds since the epoch
    :ivar may_batch: whether BatchGetItem is allowed, as far as is known: a role made for 1.58.3,
        which did without it, may not have it
    """

    def __init__(
        self, call: Call, table: str, key: Callable[[str], str], now: Callable[[], int]
    ) -> None:
        self.call = call
        self.table = table
        self.key = key
        self.now = now
        self.may_batch = True
        # Whether the server is known to send the item along when its condition fails, and whether
        # it is still asked to: until it turns out not to know the question.
        self._tells = False
        self._asks = True

    def _address(self, uaid: str) -> dict[str, Any]:
        return {"TableName": self.table, "Key": {"uaid": {"S": self.key(uaid)}}}

    def item(self, uaid: str) -> Item | None:
        """The record as it is stored."""
        answer = self.call("get_item", **self._address(uaid), ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item

    def get(self, uaid: str) -> User | None:
        """The record; one that holds only its key is removed and counts as none."""
        item = self.item(uaid)
        if not item or not self.is_whole(item, uaid):
            return None
        return read_record(item, uaid)

    def is_whole(self, item: Item, uaid: str) -> bool:
        """Whether a record is more than its key; removes it if not."""
        if len(item) > 1:
            return True
        try:
            self.call("delete_item", **self._address(uaid), ConditionExpression=BARE)
        except ConditionFailed:
            pass  # somebody is registering just now
        return False

    def channel_row(self, month: str, uaid: str) -> Item | None:
        """The user's channel row in a month."""
        return channel_row(self.call, month, self.key(uaid))

    @checks_unsure
    def register(self, user: User, unsure: bool = False) -> Registration:
        """Merge these attributes into the record under the condition of spec/storage 9.

        :raises AutopushException: ``router_type`` or ``connected_at`` is missing
        """
        new = {name: value for name, value in user.items() if name != "uaid"}
        if not new.get("router_type") or new.get("connected_at") is None:
            raise AutopushException("data is missing router_type or connected_at")
        update, names = set_expression(tuple(new))
        values = set_values(new.values())
        values[":router_type"] = {"S": new["router_type"]}
        values[":connected_at"] = {"N": str(new["connected_at"])}
        try:
            answer = self.call(
                "update_item",
                **self._address(user["uaid"]),
                UpdateExpression=update,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                ConditionExpression=MAY_REGISTER,
                ReturnValues="ALL_OLD",
            )
        except ConditionFailed as failed:
            unsure = unsure or failed.unsure
            return self._own_registration(user) if unsure else Registration(False, {})
        old = answer.get("Attributes") or {}
        return Registration(True, read_record(old, user["uaid"]) if len(old) > 1 else {})

    def _own_registration(self, user: User) -> Registration:
        """The condition failed: perhaps because the attempt before has written this already.

        What was there before that is not known any more, but for what the record still holds.
        """
        record = self.get(user["uaid"])
        names = ("router_type", "connected_at", "node_id")
        if record is None or any(record.get(name) != user.get(name) for name in names):
            return Registration(False, {})
        record.pop("node_id", None)
        return Registration(True, record)

    @checks_unsure
    def reconnect(
        self, month: str, uaid: str, node_id: str, connected_at: int, unsure: bool = False
    ) -> Arrival:
        """See :meth:`Store.return_user`.

        :param month: the current one
        """
        first, last = last_connects_of_month(self.now())
        values = _values(
            router_type="webpush",
            month=month,
            version=RECORD_VERSION,
            first=first,
            last=last,
            connected_at=connected_at,
            node_id=node_id,
        )
        try:
            answer = self.call(
                "update_item",
                **self._address(uaid),
                UpdateExpression="SET node_id = :node_id, connected_at = :connected_at",
                ConditionExpression=PLAIN,
                ExpressionAttributeValues=values,
                ReturnValues="ALL_OLD",
                **({"ReturnValuesOnConditionCheckFailure": "ALL_OLD"} if self._asks else {}),
            )
        except ConditionFailed as failed:
            record = self._record_of(failed, uaid)
        except DynamoError as error:
            if error.code != "ValidationException" or not self._asks:
                raise
            self._asks = False
            return self.reconnect(month, uaid, node_id, connected_at, unsure)
        else:
            return Arrival(True, read_record(answer["Attributes"], uaid))
        ours = (node_id, connected_at)
        if unsure and record and (record.get("node_id"), record.get("connected_at")) == ours:
            # Written by the attempt before; what was there is not known any more.
            del record["node_id"]
            return Arrival(True, record)
        return Arrival(False, record)

    def _record_of(self, failed: ConditionFailed, uaid: str) -> User | None:
        """The record that didn't meet a condition. Not all servers send it along."""
        if failed.item is not None:
            self._tells = True
            return read_record(failed.item, uaid) if self.is_whole(failed.item, uaid) else None
        return None if self._tells else self.get(uaid)

    @checks_unsure
    def drop(self, uaid: str, unsure: bool = False) -> bool:
        """Delete the record; whether it existed."""
        answer = self.call("delete_item", **self._address(uaid), ReturnValues="ALL_OLD")
        return bool(answer.get("Attributes")) or unsure or UNSURE in answer

    @checks_unsure
    def clear_node(self, uaid: str, node_id: str, connected_at: int, unsure: bool = False) -> bool:
        """Remove ``node_id`` alone (quirk S10) if both are still these; whether it was done."""
        try:
            self.call(
                "update_item",
                **self._address(uaid),
                UpdateExpression="REMOVE node_id",
                ConditionExpression="node_id = :node_id AND connected_at = :connected_at",
                ExpressionAttributeValues=_values(node_id=node_id, connected_at=connected_at),
            )
        except ConditionFailed as failed:
            return unsure or failed.unsure
        return True

    def set_month(
        self,
        uaid: str,
        month: str,
        last_connect: int,
        connection: Connection | None = None,
        leaving: str | None = None,
    ) -> bool:
        """Note the month in the record, if there is one (quirk S15); whether it was done.

        :param connection: the one the record must be about; None: any
        :param leaving: the month in which something may be left, see :meth:`month_reached`
        """
        condition = "attribute_exists(router_type)"
        update = "SET current_month = :month, last_connect = :last"
        values: dict[str, str | int] = {"month": month, "last": last_connect}
        if connection is not None:
            condition += f" AND {OF_CONNECTION}"
            values.update(connection._asdict())
        if leaving is not None:
            update += f", {MOVING_FROM} = :leaving"
            values["leaving"] = leaving
        return self._update_if(uaid, update, condition, values)

    def set_urgency(self, uaid: str, urgency: str, connection: Connection) -> bool:
        """See :meth:`autopush.db.interface.Store.set_urgency`."""
        values: dict[str, str | int] = {"urgency": urgency, **connection._asdict()}
        condition = f"attribute_exists(router_type) AND {OF_CONNECTION}"
        return self._update_if(uaid, "SET urgency = :urgency", condition, values)

    def month_reached(self, uaid: str, old: str) -> bool:
        """Note that nothing is left in the month which the user has left; whether it was news."""
        of_move = f"{MOVING_FROM} = :old"
        return self._update_if(uaid, f"REMOVE {MOVING_FROM}", of_move, {"old": old})

    def _update_if(
        self, uaid: str, update: str, condition: str, values: dict[str, str | int]
    ) -> bool:
        try:
            self.call(
                "update_item",
                **self._address(uaid),
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeValues=_values(**values),
            )
        except ConditionFailed:
            return False
        return True

    # ---- channels of bridge users (quirk S4)

    def bridge_channels(self, uaid: str) -> set[str] | None:
        """The channels in the record; None if there is no record."""
        item = self.item(uaid)
        return None if not item else channel_ids(item.get(BRIDGE_CHANNELS, {}).get("SS", ()))

    def add_bridge_channels(self, uaid: str, chids: set[str]) -> None:
        """Add to the channels in the record, if there is one."""
        self._change_bridge_channels("ADD", uaid, chids)

    def remove_bridge_channel(self, uaid: str, chid: str) -> bool:
        """Remove from the channels in the record; whether it was one."""
        forms = set(spellings(chid))
        before = set(self._change_bridge_channels("DELETE", uaid, forms))
        others = other_spellings(chid, before)
        if others:
            self._change_bridge_channels("DELETE", uaid, others)
        return bool(others or before & forms)

    def _change_bridge_channels(self, verb: str, uaid: str, chids: set[str]) -> list[str]:
        """Returns the set before."""
        try:
            answer = self.call(
                "update_item",
                **self._address(uaid),
                UpdateExpression=f"{verb} {BRIDGE_CHANNELS} :chids",
                ConditionExpression="attribute_exists(router_type)",
                ExpressionAttributeValues=_values(chids=chids),
                ReturnValues="ALL_OLD",
            )
        except ConditionFailed:
            return []
        old: list[str] = answer.get("Attributes", {}).get(BRIDGE_CHANNELS, {}).get("SS", [])
        return old


def _values(**values: Any) -> dict[str, Any]:
    """``ExpressionAttributeValues`` by name."""
    named = set_values(values.values())
    return {f":{name}": value for name, value in zip(values, named.values(), strict=True)}
