"""``DELETE /m``: take a message back before its delivery (spec/http-endpoint 7.2, RFC 8030 7.2)."""

from __future__ import annotations

import attrs
from cryptography.fernet import InvalidToken

from autopush.exceptions import InvalidRequest, InvalidTokenException, StoreError
from autopush.logging import enabled
from autopush.message.notification import WebPushNotification
from autopush.web.base import BaseWebHandler
from autopush.web.rules import ParsedRequest, RulesSchema, validated


def open_message_id(request: ParsedRequest) -> None:
    """Open the id in the path: ``notification`` tells enough to find the stored one.

    :raises InvalidRequest: 400, not the id of a message (Q12)
    """
    message_id, fernet = request.path["message_id"] or "", request.app.conf.fernet
    try:
        request.keywords["notification"] = WebPushNotification.from_message_id(message_id, fernet)
    except (InvalidToken, InvalidTokenException) as exc:
        raise InvalidRequest("Invalid message ID") from exc


@attrs.define
class MessageRequest(ParsedRequest):
    """A message id."""

    rules = (open_message_id,)


class MessageSchema(RulesSchema):
    """The same for handlers of one's own."""

    kind = MessageRequest


class MessageHandler(BaseWebHandler):
    """Handler of the message resources."""

    cors_methods = "DELETE"
    cors_response_headers = ("location", "retry-after")

    @validated(MessageRequest)
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
