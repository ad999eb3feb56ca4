"""The errors autopush raises on purpose.

Names and constructors follow the documented Python surface (spec/python-api 2.5); the storage
errors are ours.
"""

from __future__ import annotations

from typing import Any

from autopush.types import JSONDict


class AutopushException(Exception):
    """Parent of the errors that carry an answer for the caller."""


class InvalidRequest(AutopushException):
    """A request that fails validation; becomes a JSON error answer."""

    def __init__(
        self,
        message: str,
        status_code: int = 400,
        errno: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.errno = errno
        self.headers = headers or {}


class RouterException(AutopushException):
    """A router's refusal (or unusual success) of a notification or registration.

    ``response_body`` falls back to ``message`` when empty. ``router_data`` is accepted and not
    kept: an exception never updates the user's record (spec/bridges 1.3).
    """

    def __init__(
        self,
        message: str,
        status_code: int = 500,
        response_body: str = "",
        router_data: JSONDict | None = None,
        headers: dict[str, str] | None = None,
        log_exception: bool = True,
        errno: int | None = None,
        logged_status: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.headers = headers or {}
        self.log_exception = log_exception
        self.response_body = response_body or message
        self.errno = errno
        self.logged_status = logged_status
        self.extra = kwargs


class InvalidTokenException(Exception):
    """An endpoint token or message id that decrypts to something malformed.

    :ivar auth: the parsed ``Authorization`` it came with, if any
    """

    auth: JSONDict | None = None


class VapidAuthException(Exception):
    """The Authorization or Crypto-Key header of a message is missing or unusable.

    :ivar auth: the former as far as it could be parsed
    """

    auth: JSONDict | None = None


class MissingTableException(Exception):
    """A storage table that must exist does not."""


class ItemNotFound(Exception):
    """A record that was asked for is not stored."""


class InvalidConfig(Exception):
    """Options that contradict each other or can't be read; ends the start with status 1."""


class MessageOverloadException(Exception):
    """More stored messages for one user than ``msg_limit`` allows in one pass."""


class LogCheckError(Exception):
    """Raised by the log check route, to see whether errors reach their destination."""


class StoreError(Exception):
    """The store failed; the operation may or may not have happened."""


class StoreClosed(StoreError):
    """The store has been let go: trying again is of no use."""


class StoreBusy(StoreError):
    """The store refuses for the moment (throttled, locked): trying again later makes sense."""


class ChannelLimit(StoreError):
    """The user has as many channels as one may have: waiting doesn't help, ending some does."""


class UserFull(StoreBusy):
    """No more messages may wait for a user or a channel of it; the text names the limit."""
