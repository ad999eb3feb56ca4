"""``DELETE /m``: take a message back before its delivery (spec/http-endpoint 7.2, RFC 8030 7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.fernet import InvalidToken

from autopush.exceptions import InvalidRequest, InvalidTokenException, StoreError
from autopush.logging import enabled
from autopush.message.notification import WebPushNotification
from autopush.web.base import BaseWebHandler, RequestSchema, threaded_validate

if TYPE_CHECKING:
    from autopush.types import JSONDict


class MessageSchema(RequestSchema):
    """The message id in the path."""

    async def process(self, request: JSONDict, app: Any) -> JSONDict:
        """Return ``notification``, which tells enough to find the stored one.

        :raises InvalidRequest: 400, not the id of a message (Q12)
        """
        try:
            notification = WebPushNotification.from_message_id(
                request["path_kwargs"]["message_id"], app.conf.fernet
            )
        except (InvalidToken, InvalidTokenException) as exc:
            raise InvalidRequest("Invalid message ID") from exc
        return {"notification": notification}


class MessageHandler(BaseWebHandler):
    """Handler of the message resources."""

    cors_methods = "DELETE"
    cors_response_headers = ("location", "retry-after")

    @threaded_validate(MessageSchema)
    async def delete(self, notification: WebPushNotification) -> None:
        """Delete the message; the answer is the same if there is none (any more)."""
        try:
            user = await self.db.get_user(notification.uaid.hex)
            month = (user or {}).get("current_month") or self.db.months.current
            await self.db.delete_message(month, notification)
        except StoreError as exc:
            self._store_err(exc)
            return
        self.routers["webpush"].forget(notification)
        self.set_status(204)
        self.finish()
        if enabled("debug"):
            self.log.debug("Message Deleted", status_code=204, **self._client_info)
