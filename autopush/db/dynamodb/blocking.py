"""DynamoDB's tables as objects with blocking methods (spec/python-api 3).

For scripts and other programs. The servers use
:class:`autopush.db.dynamodb.store.DynamoStore`, which is made of the same operations. Errors are
botocore's, as ever.
"""

from __future__ import annotations

import datetime
import functools
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import boto3
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread

import autopush.db
from autopush import clock
from autopush.constants import MAX_EXPIRY, THREAD_POOL_SIZE
from autopush.db.dynamodb import reading, tables
from autopush.db.dynamodb.client import (
    caller,
    client_options,
    low_level_client,
    make_client as _make_client,
    patient,
)
from autopush.db.dynamodb.end import ChannelEnd
from autopush.db.dynamodb.items import CHANNEL_ROW, row_key
from autopush.db.dynamodb.messages import Messages
from autopush.db.dynamodb.preflight import preflight
from autopush.db.dynamodb.users import Users
from autopush.db.interface import User
from autopush.db.lastconnect import generate_last_connect
from autopush.db.months import get_month, make_rotating_tablename, message_tables, today
from autopush.exceptions import AutopushException, ItemNotFound, StoreError
from autopush.ids import normalize_id
from autopush.message.notification import WebPushNotification
from autopush.metrics import from_config

if TYPE_CHECKING:
    from autopush.config import AutopushConfig, DDBTableConfig

F = TypeVar("F", bound=Callable[..., Any])

MAX_DDB_SESSIONS = THREAD_POOL_SIZE


def track_provisioned(func: F) -> F:
    """Note the call where calls are tracked; let botocore's own errors through."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if autopush.db.TRACK_DB_CALLS:
            autopush.db.DB_CALLS.append(func.__name__)
        try:
            return func(*args, **kwargs)
        except StoreError as error:
            raise error.__cause__ or error from None

    return wrapper  # type: ignore[return-value]


def _hash(uaid: str) -> str:
    return autopush.db.hasher(uaid)


def _hex(uaid: UUID | str) -> str:
    return UUID(str(uaid)).hex


# ---------------------------------------------------------------------------------- connections


class DynamoDBResource(threading.local):
    """A boto3 ``dynamodb`` resource for each thread, and a client for all.

    :param kwargs: as for boto3; see :func:`~autopush.db.dynamodb.client.client_options`
    """

    def __init__(self, **kwargs: Any) -> None:
        if not kwargs.get("endpoint_url"):
            kwargs.pop("endpoint_url", None)
        self.conf = client_options(**kwargs)
        self._resource = boto3.session.Session().resource("dynamodb", **self.conf)

    @functools.cached_property
    def client(self) -> Any:
        """A low-level client: unlike the resource's own, it takes typed values."""
        return _make_client(**self.conf)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_resource"], name)

    def get_latest_message_tablenames(
        self, prefix: str = "message", previous: int = 1
    ) -> list[str]:
        """The latest message tables (quirk S6), oldest first; none: ``[prefix]``."""
        return message_tables(prefix, tables.names(_call(self)))[-previous:] or [prefix]

    def get_latest_message_tablename(self, prefix: str = "message") -> str:
        """The latest message table."""
        return self.get_latest_message_tablenames(prefix)[-1]


class DynamoDBTable(threading.local):
    """A boto3 ``Table`` for each thread."""

    def __init__(self, ddb_resource: Any, *args: Any, **kwargs: Any) -> None:
        self._table = ddb_resource.Table(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_table"], name)


def _call(resource: Any) -> Any:
    return patient(caller(low_level_client(resource)))


# --------------------------------------------------------------------------------------- tables


def _ensured(
    keys: tuple[str, ...], tablename: str, read: int, write: int, boto_resource: Any
) -> Any:
    tables.ensure(_call(boto_resource), tablename, keys, (read, write))
    return DynamoDBTable(boto_resource, tablename)


def create_router_table(
    tablename: str = "router",
    read_throughput: int = 5,
    write_throughput: int = 5,
    boto_resource: Any = None,
) -> Any:
    """The router table, created if there is none."""
    return _ensured(tables.ROUTER_KEYS, tablename, read_throughput, write_throughput, boto_resource)


def create_message_table(
    tablename: str,
    read_throughput: int = 5,
    write_throughput: int = 5,
    boto_resource: Any = None,
) -> Any:
    """A message table, created if there is none; expired rows are removed from it."""
    return _ensured(
        tables.MESSAGE_KEYS, tablename, read_throughput, write_throughput, boto_resource
    )


def create_rotating_message_table(
    prefix: str = "message",
    delta: int = 0,
    date: datetime.date | None = None,
    read_throughput: int = 5,
    write_throughput: int = 5,
    boto_resource: Any = None,
) -> Any:
    """A month's message table, created if there is none."""
    name = make_rotating_tablename(prefix, delta, date)
    return create_message_table(name, read_throughput, write_throughput, boto_resource)


def get_rotating_message_tablename(
    prefix: str = "message",
    delta: int = 0,
    date: datetime.date | None = None,
    message_read_throughput: int = 5,
    message_write_throughput: int = 5,
    boto_resource: Any = None,
) -> str:
    """Name of a month's message table, which is created if there is none."""
    name = make_rotating_tablename(prefix, delta, date)
    create_message_table(name, message_read_throughput, message_write_throughput, boto_resource)
    return name


def get_router_table(
    tablename: str = "router",
    read_throughput: int = 5,
    write_throughput: int = 5,
    boto_resource: Any = None,
) -> Any:
    """The router table, created if there is none."""
    return _make_table(
        create_router_table, tablename, read_throughput, write_throughput, boto_resource
    )


def _make_table(
    table_func: Callable[..., Any],
    tablename: str,
    read_throughput: int,
    write_throughput: int,
    boto_resource: Any,
) -> Any:
    """A table, made by ``table_func`` if there is none.

    :raises AutopushException: there is no resource
    """
    if not boto_resource:
        raise AutopushException("No boto3 resource provided for _make_table")
    if not table_exists(tablename, boto_resource):
        return table_func(tablename, read_throughput, write_throughput, boto_resource)
    return DynamoDBTable(boto_resource, tablename)


def _drop_table(tablename: str, boto_resource: Any) -> None:
    """Delete a table, if that can be done."""
    try:
        _call(boto_resource)("delete_table", TableName=tablename)
    except StoreError:
        pass


def table_exists(tablename: str, boto_resource: Any = None) -> bool:
    """Whether there is such a table; also False if that can't be told."""
    try:
        return tables.status(_call(boto_resource), tablename) in tables.EXISTS
    except StoreError:
        return False


def preflight_check(
    message: Message, router: Router, uaid: str = "deadbeef00000000deadbeef00000000"
) -> None:
    """Wait until both tables can be used, then write, read and delete something in them.

    :raises StoreError: it wasn't done
    """
    while message.table_status() != "ACTIVE" or router.table_status() != "ACTIVE":
        time.sleep(1)
    preflight(router.users, message.messages, message.tablename, _hex(uaid))


# -------------------------------------------------------------------------------------- objects


class Message:
    """A message table.

    :param tablename: its name; it must exist
    :param max_ttl: not used: rows expire after 30 days at most
    """

    def __init__(
        self, tablename: str, boto_resource: Any = None, max_ttl: int = MAX_EXPIRY
    ) -> None:
        self.tablename = tablename
        self.resource = boto_resource
        self.table = DynamoDBTable(boto_resource, tablename)
        self.messages = Messages(_call(boto_resource), _hash, clock.now)

    def table_status(self) -> str | None:
        """State of the table, such as ``ACTIVE``."""
        return tables.status(self.messages.call, self.tablename)

    @track_provisioned
    def register_channel(self, uaid: str, channel_id: str, ttl: int | None = None) -> bool:
        """Add a channel."""
        chids = {normalize_id(channel_id)}
        self.messages.add_channels(self.tablename, _hex(uaid), chids)
        return True

    @track_provisioned
    def unregister_channel(self, uaid: str, channel_id: str, **kwargs: Any) -> bool:
        """Remove a channel; whether there was such a one."""
        chid = normalize_id(channel_id)
        return ChannelEnd(self.messages, self.tablename, _hex(uaid), chid)()

    @track_provisioned
    def all_channels(self, uaid: UUID | str) -> tuple[bool, set[str]]:
        """Whether there is a channel row, and the channels."""
        exists, chids = self.messages.channels(self.tablename, _hex(uaid))
        return exists, chids

    @track_provisioned
    def save_channels(self, uaid: UUID | str, channels: Iterable[str]) -> None:
        """Replace the channel row; the read pointer is lost."""
        user = _hash(_hex(uaid))
        call = self.messages.call
        call("delete_item", TableName=self.tablename, Key=row_key(user, CHANNEL_ROW))
        self.messages.add_channels(self.tablename, _hex(uaid), set(channels))

    @track_provisioned
    def store_message(self, notification: WebPushNotification) -> None:
        """Insert or replace."""
        self.messages.store(self.tablename, notification)()

    @track_provisioned
    def delete_message(self, notification: WebPushNotification) -> bool:
        """False if the notification has an update id and its row another, or there is none."""
        found = self.messages.delete(self.tablename, notification)
        return found or not notification.update_id

    @track_provisioned
    def fetch_messages(
        self, uaid: UUID | str, limit: int = 10
    ) -> tuple[int | None, list[WebPushNotification]]:
        """The read pointer, and topic and legacy messages."""
        return reading.topics(self.messages, self.tablename, _hex(uaid), limit)[:2]

    @track_provisioned
    def fetch_timestamp_messages(
        self, uaid: UUID | str, timestamp: int | None = None, limit: int = 10
    ) -> tuple[int | None, list[WebPushNotification]]:
        """The last timestamp read, and the messages after ``timestamp`` (µs)."""
        return reading.since(self.messages, self.tablename, _hex(uaid), timestamp, limit)[:2]

    @track_provisioned
    def update_last_message_read(self, uaid: UUID | str, timestamp: int) -> bool:
        """Move the read pointer (µs) forwards."""
        self.messages.set_pointer(self.tablename, _hex(uaid), timestamp)
        return True


class Router:
    """The router table, created if there is none."""

    def __init__(self, conf: DDBTableConfig, metrics: Any, resource: Any = None) -> None:
        self.conf = conf
        self.metrics = metrics
        self.table = get_router_table(
            conf.tablename, conf.read_throughput, conf.write_throughput, boto_resource=resource
        )
        self.users = Users(_call(resource), conf.tablename, _hash, lambda: int(clock.now()))

    def table_status(self) -> str | None:
        """State of the table, such as ``ACTIVE``."""
        return tables.status(self.users.call, self.users.table)

    @track_provisioned
    def get_uaid(self, uaid: str) -> User:
        """The record.

        :raises ItemNotFound: there is none
        """
        user = self.users.get(uaid)
        if user is None:
            raise ItemNotFound("uaid not found")
        return user

    @track_provisioned
    def register_user(self, data: User) -> tuple[bool, User]:
        """Merge into the record (spec/storage 9); whether it was done, and what was there before.

        Removes ``uaid`` from ``data``.
        """
        written, previous = self.users.register(data)
        del data["uaid"]
        return written, previous

    @track_provisioned
    def drop_user(self, uaid: str) -> bool:
        """Delete the record; whether there was one."""
        return self.users.drop(uaid)

    @track_provisioned
    def update_message_month(self, uaid: str, month: str) -> bool:
        """Note a user's month, if there is a record."""
        return self.users.set_month(uaid, month, generate_last_connect())

    @track_provisioned
    def clear_node(self, item: User) -> bool:
        """Remove ``node_id`` from ``item``, and from the record if both are of one connection."""
        node_id = item.pop("node_id")
        return self.users.clear_node(item["uaid"], node_id, int(item["connected_at"]))


class DatabaseManager:
    """The tables of a configuration.

    :param message_tables: the months that are known at first
    """

    def __init__(
        self,
        router_conf: DDBTableConfig,
        message_conf: DDBTableConfig,
        metrics: Any,
        resource: Any,
        router: Router | None = None,
        message_tables: list[str] | None = None,
        message: Message | None = None,
        allow_table_rotation: bool = True,
    ) -> None:
        self.metrics = metrics
        self.resource = resource or DynamoDBResource()
        self.message_tables = list(message_tables or [])
        self.allow_table_rotation = allow_table_rotation
        self.current_month = get_month().month if allow_table_rotation else 0
        self.current_msg_month = (
            make_rotating_tablename(message_conf.tablename)
            if allow_table_rotation
            else self.resource.get_latest_message_tablename(message_conf.tablename)
        )
        self._router_conf = router_conf
        self._message_conf = message_conf
        self._router = router
        self._message = message

    @classmethod
    def from_config(
        cls, conf: AutopushConfig, resource: Any = None, **kwargs: Any
    ) -> DatabaseManager:
        """For the tables of a configuration."""
        return cls(
            router_conf=conf.router_table,
            message_conf=conf.message_table,
            metrics=from_config(conf),
            resource=resource,
            allow_table_rotation=conf.allow_table_rotation,
            **kwargs,
        )

    def setup(self, preflight_uaid: str) -> None:
        """Create what is missing, and test it."""
        self.setup_tables()
        preflight_check(self.message, self.router, preflight_uaid)

    def setup_tables(self) -> None:
        """Create what is missing."""
        self._router = Router(self._router_conf, self.metrics, self.resource)
        if self.allow_table_rotation:
            self.create_initial_message_tables()
        else:
            prefix = self._message_conf.tablename
            latest = self.resource.get_latest_message_tablenames(prefix, 3)
            self._create(latest[-1])
            self.message_tables = latest
        self._message = Message(self.current_msg_month, self.resource)

    @property
    def router(self) -> Router:
        """The router table; :meth:`setup_tables` opens it."""
        assert self._router is not None
        return self._router

    @property
    def message(self) -> Message:
        """The current month's table."""
        if self._message is None or self._message.tablename != self.current_msg_month:
            self._message = Message(self.current_msg_month, self.resource)
        return self._message

    @message.setter
    def message(self, value: Message) -> None:
        self._message = value

    def message_table(self, tablename: str) -> Message:
        """A month's table."""
        return Message(tablename, self.resource)

    def _tomorrow(self) -> datetime.date:
        return today() + datetime.timedelta(days=1)

    def _create(self, name: str) -> None:
        conf = self._message_conf
        create_message_table(name, conf.read_throughput, conf.write_throughput, self.resource)
        if name not in self.message_tables:
            self.message_tables.append(name)

    def _create_month(self, day: datetime.date) -> str:
        name = make_rotating_tablename(self._message_conf.tablename, date=day)
        self._create(name)
        return name

    def create_initial_message_tables(self) -> None:
        """Last month's and this month's, and tomorrow's if that is another."""
        for day in (get_month(-1), today(), self._tomorrow()):
            self._create_month(day)

    def update_rotating_tables(self) -> Deferred[bool]:
        """Follow the calendar; fires with whether the month has changed."""
        if not self.allow_table_rotation:
            return succeed(False)
        return deferToThread(self._update)

    def _update(self) -> bool:
        self._create_month(self._tomorrow())
        day = today()
        if day.month == self.current_month:
            return False
        self.current_msg_month = self._create_month(day)
        self.current_month = day.month
        return True
