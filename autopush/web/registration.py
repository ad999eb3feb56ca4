"""The registration API, with which mobile applications subscribe (spec/http-endpoint 8)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from autopush.clock import ms_time
from autopush.constants import RECORD_VERSION
from autopush.db.lastconnect import generate_last_connect
from autopush.exceptions import ChannelLimit, InvalidRequest
from autopush.ids import generate_hash
from autopush.logging import enabled
from autopush.metrics import make_tags
from autopush.useragent import MAX_PARSED, user_agent
from autopush.web.base import BaseWebHandler
from autopush.web.rules import validated
from autopush.web.schemas_registration import (
    KnownChannel,
    KnownUser,
    NewChannel,
    NewRegistration,
    TokenUpdate,
    chosen_chid,
)

if TYPE_CHECKING:
    from autopush.db.interface import User
    from autopush.types import JSONDict

HOST = re.compile(r"[A-Za-z0-9.-]{1,255}")


class BaseRegistrationHandler(BaseWebHandler):
    """What the registration handlers share.

    Methods about a known user take its record as ``user``, which validation has read; without it
    they read it themselves.
    """

    def base_tags(self) -> list[str]:
        """Return the tags of ``ua.command.*``: a few values only, whatever clients send (O13)."""
        headers = self.request.headers
        host = headers.get("host", "").partition(":")[0].lower()
        return make_tags(
            **user_agent(headers.get("user-agent", "")[:MAX_PARSED]).tags,
            host=host if HOST.fullmatch(host) else "unknown",
        )

    async def _month(self, uaid: UUID, user: User | None) -> str | None:
        """Return where a user's channels are (Q21): for a bridge user in no month.

        :param user: the record, where it has been read already
        """
        if user is None:
            user = await self.db.get_user(uaid.hex) or {}
        if user.get("router_type") not in ("webpush", "simplepush"):
            return None
        return user.get("current_month") or self.db.months.current

    async def _register_user(
        self, uaid: UUID, router_type: str, router_data: JSONDict, **more: Any
    ) -> bool:
        """Write a user's record; whether nothing spoke against it."""
        result = await self.db.register_user(
            {
                "uaid": uaid.hex,
                "router_type": router_type,
                "router_data": router_data,
                "connected_at": ms_time(),
                "last_connect": generate_last_connect(),
                "expiry": 0,
                **more,
            }
        )
        return result.written

    def _log_registered(self, uaid: UUID, chid: UUID, endpoint: str) -> None:
        if enabled("info"):
            self.log.info(
                "Register",
                client_info=self._client_info,
                endpoint=endpoint,
                uaid_hash=self._uaid_hash(uaid.hex),
                shown=self._took(channel_id=chid.hex),
            )


class NewRegistrationHandler(BaseRegistrationHandler):
    """``POST /v1/{type}/{app_id}/registration``"""

    cors_methods = "POST"

    @validated(NewRegistration)
    async def post(self, router_type: str, router_data: JSONDict) -> None:
        """Register a new user with its first channel.

        :param router_data: the checked members of the body and what the router added
        """
        self.metrics.increment("ua.command.register", tags=self.base_tags())
        uaid = uuid4()
        chid = chosen_chid(router_data)
        endpoint = self.conf.make_endpoint(uaid.hex, chid.hex, router_data.get("key"))
        await self._register_user_and_channel(uaid, chid, router_type, router_data)
        keys = self.conf.bear_hash_key
        response = {
            "uaid": uaid.hex,
            "secret": generate_hash(keys[0], uaid.hex) if keys else None,
            "endpoint": endpoint,
            "channelID": chid.hex,
        }
        self.routers[router_type].amend_endpoint_response(response, router_data)
        self._success(response)
        self._log_registered(uaid, chid, endpoint)

    async def _register_user_and_channel(
        self, uaid: UUID, chid: UUID, router_type: str, router_data: JSONDict
    ) -> None:
        month: str | None = None
        more: JSONDict = {}
        if router_type == "webpush":
            month = self.db.months.current
            # Without a month the first message would drop the user (Q14), without a version the
            # first hello would reset it (spec/websocket 7).
            more = {"current_month": month, "record_version": RECORD_VERSION}
        await self._register_user(uaid, router_type, router_data, **more)
        await self.db.add_channel(month, uaid.hex, str(chid))


class UaidRegistrationHandler(BaseRegistrationHandler):
    """``/v1/{type}/{app_id}/registration/{uaid}``"""

    cors_methods = "GET,POST,PUT,DELETE"

    @validated(KnownUser)
    async def get(self, uaid: UUID, user: User | None = None) -> None:
        """List the user's channels."""
        channels = await self.db.list_channels(await self._month(uaid, user), uaid.hex)
        self._success({"uaid": uaid.hex, "channelIDs": sorted(channels.chids)})

    @validated(TokenUpdate)
    async def put(
        self, router_type: str, router_data: JSONDict, uaid: UUID, user: User | None = None
    ) -> None:
        """Replace the user's router data, when the device got a new token."""
        if user is None:
            user = await self.db.get_user(uaid.hex) or {}
        same_type = user.get("router_type") in (None, router_type)
        if not same_type or not await self._register_user(uaid, router_type, router_data):
            self._validation_err(InvalidRequest("Invalid router", errno=108))
            return
        self._success({})

    post = put

    @validated(KnownUser)
    async def delete(self, uaid: UUID, user: User | None = None) -> None:
        """Forget the user."""
        if enabled("debug"):
            self.log.debug("Dropping User", code=101, uaid_hash=self._uaid_hash(uaid.hex))
        if await self.db.drop_user(uaid.hex):
            self._success({})
            return
        if enabled("debug"):
            self.log.debug(
                "UAID not found in AWS.",
                status_code=410,
                errno=103,
                client_info=self._client_info,
            )
        self._write_response(
            410, 103, message="Endpoint has expired. Do not send messages to this endpoint."
        )


class SubRegistrationHandler(BaseRegistrationHandler):
    """``POST /v1/{type}/{app_id}/registration/{uaid}/subscription``"""

    cors_methods = "POST"

    @validated(NewChannel)
    async def post(
        self,
        uaid: UUID,
        chid: UUID,
        app_server_key: str | None = None,
        user: User | None = None,
    ) -> None:
        """Add a channel."""
        endpoint = self.conf.make_endpoint(uaid.hex, chid.hex, app_server_key)
        try:
            await self.db.add_channel(await self._month(uaid, user), uaid.hex, str(chid))
        except ChannelLimit:
            self._validation_err(InvalidRequest("Too many channels: end some first", 403, 115))
            return
        self._success({"uaid": uaid.hex, "channelID": chid.hex, "endpoint": endpoint})
        self._log_registered(uaid, chid, endpoint)


class ChannelRegistrationHandler(BaseRegistrationHandler):
    """``DELETE /v1/{type}/{app_id}/registration/{uaid}/subscription/{chid}``"""

    cors_methods = "DELETE"

    @validated(KnownChannel)
    async def delete(self, uaid: UUID, chid: UUID, user: User | None = None) -> None:
        """Remove a channel."""
        self.metrics.increment("ua.command.unregister", tags=self.base_tags())
        month = await self._month(uaid, user)
        if await self.db.remove_channel(month, uaid.hex, str(chid)):
            self._success({})
            if enabled("info"):
                self.log.info(
                    "Unregister",
                    client_info=self._client_info,
                    channel_id=chid.hex,
                    uaid_hash=self._uaid_hash(uaid.hex),
                    shown=self._took(),
                )
            return
        if enabled("debug"):
            self.log.debug(
                "CHID not found in AWS.", status_code=410, errno=106, **self._client_info
            )
        self._write_response(410, 106, message="Invalid endpoint.")
