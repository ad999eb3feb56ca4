"""Storing a message and looking whether its user has come meanwhile. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from autopush.db.dynamodb.messages import MessagePut
from autopush.db.dynamodb.users import Users
from autopush.db.interface import User
from autopush.exceptions import StoreError


class Look(NamedTuple):
    """What came of a look at a user."""

    user: User | None
    """The record, if there is one and it was read."""
    error: StoreError | None = None
    """Why it wasn't."""
    put_off: bool = False
    """Whether that is left to an operation of its own."""


class PutAndLook:
    """Stores a message, and then reads its user's record in the same turn of a thread.

    The look is one attempt, which says what came of it: further ones are an operation of its own.
    So is the look altogether where another write of the same user waits for this one.

    :param put: stores the message; goes on where it was interrupted
    :param is_waited_for: whether others wait
    :ivar stored: whether the message is
    """

    def __init__(
        self, put: MessagePut, users: Users, uaid: str, is_waited_for: Callable[[], bool]
    ) -> None:
        self._put = put
        self._users = users
        self._uaid = uaid
        self._is_waited_for = is_waited_for
        self.stored = False

    def __call__(self) -> Look:
        """:raises StoreError: the message could not be stored"""
        self._put()
        self.stored = True
        if self._is_waited_for():
            return Look(None, put_off=True)
        try:
            return Look(self._users.get(self._uaid))
        except StoreError as error:
            return Look(None, error)
