"""``POST /wpush``: take a message from an application server (spec/http-endpoint 5, RFC 8030 5).

The order of the checks is that of :attr:`PushRequest.rules`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from cryptography.fernet import InvalidToken
from marshmallow import ValidationError

from autopush import clock
from autopush.clock import ms_time
from autopush.exceptions import (
    InvalidRequest,
    InvalidTokenException,
    RouterException,
    VapidAuthException,
)
from autopush.ids import hash_uaid
from autopush.logging import enabled
from autopush.message import endpoint_token, vapid
from autopush.message.crypto_key import CryptoKeyException
from autopush.message.encoding import base64url_encode
from autopush.message.notification import WebPushNotification
from autopush.options.bridges import BRIDGES
from autopush.router.interface import RouterResponse
from autopush.router.webpush import MISSING_TTL
from autopush.web.base import (
    BaseWebHandler,
    ThreadedValidate,
    loggable_record,
    was_stored,
)
from autopush.web.rules import ParsedRequest, RulesSchema, validated
from autopush.web.schemas_webpush import (
    load_basic_headers,
    load_crypto_headers,
)

if TYPE_CHECKING:
    from autopush.db.interface import User
    from autopush.message.endpoint_token import EndpointToken
    from autopush.types import JSONDict

MISSING_SENDER = "Missing SenderID"
"""``critical_failure`` of a record without what its bridge needs."""

MAX_LOGGED_CLAIMS = 10
"""VAPID claims have names of the sender's choice; more than a handful are not logged."""


# ------------------------------------------------------------------------------------- the rules


def open_token(message: PushRequest) -> None:
    """Open the token in the URL and check the headers that go with it (section 5.2).

    :raises InvalidRequest: 404, errno 102; 400, errno 110; 401, errno 109
    """
    app, headers, path = message.app, message.headers, message.path
    metrics = app.metrics

    def count(auth: JSONDict) -> None:
        tags = [f"vapid:{auth['version']}", f"scheme:{auth['scheme']}"]
        metrics.increment("notification.auth", tags=tags)

    try:
        message.endpoint = endpoint_token.parse_endpoint(
            app.conf.fernet,
            path["token"] or "",
            path.get("api_ver"),
            headers.find("crypto-key"),
            headers.find("authorization"),
            count if metrics.active else None,
        )
    except (InvalidToken, InvalidTokenException) as exc:
        raise InvalidRequest("invalid token", status_code=404, errno=102) from exc
    except CryptoKeyException as exc:
        raise InvalidRequest("Invalid Crypto-Key header", errno=110) from exc
    except VapidAuthException as exc:
        raise InvalidRequest(
            f"missing authorization header: {exc}", status_code=401, errno=109
        ) from exc


async def find_user(message: PushRequest) -> None:
    """Find the record of the user the message is for (section 5.3).

    :raises InvalidRequest: 410; an unusable record is dropped
    """
    app, uaid, chid = message.app, message.endpoint.uaid, message.endpoint.channel.text
    user, subscribed = await app.db.get_subscription(uaid, chid)
    if user is None:
        raise InvalidRequest("UAID not found", status_code=410, errno=103)
    router_type = user.get("router_type")
    if router_type in BRIDGES:
        await check_bridge_user(app, uaid, user)
    elif router_type not in ("webpush", "simplepush"):
        raise await drop_user(app, uaid, user, 102)
    else:
        if user.get("critical_failure"):
            raise critical_failure(user)
        router_type = user["router_type"] = "webpush"
        month = user.get("current_month")
        if not month:
            raise await drop_user(app, uaid, user, 102)
        if not app.db.months.accepts(month):
            raise await drop_user(app, uaid, user, 103)
        if not subscribed:
            if enabled("debug"):
                ThreadedValidate.log.debug("Unknown subscription: {channel_id}", channel_id=chid)
            raise no_such_subscription()
    message.user = user
    message.router_type = router_type


def check_headers_and_size(message: PushRequest) -> None:
    """Check what the message itself is like (sections 5.4 to 5.6).

    Field errors are kept until the size is known to be right. ``TTL`` must be there only where
    ``require_ttl`` says so (RFC 8030 5.2); else only a message that has to be stored needs it.

    :raises InvalidRequest: errno 104, 110, 111, 113, 114
    :raises marshmallow.ValidationError: field errors, under ``headers``
    """
    conf, headers, body = message.app.conf, message.headers, message.body
    errors: JSONDict = {}
    result: JSONDict = {}
    try:
        result["ttl"], result["topic"], result["urgency"] = load_basic_headers(
            headers.find("ttl"), headers.find("topic"), headers.find("urgency")
        )
        if conf.require_ttl and result["ttl"] is None:
            raise InvalidRequest(MISSING_TTL, errno=111)
    except ValidationError as exc:
        errors.update(exc.normalized_messages())
    if body:
        try:
            result.update(load_crypto_headers(headers))
        except ValidationError as exc:
            errors.update(exc.normalized_messages())
        if len(body) > conf.max_data:
            raise too_long(conf.max_data)
    if errors:
        raise ValidationError({"headers": errors})
    message.checked_headers = result


def too_long(max_data: int) -> InvalidRequest:
    """Return the refusal of a body of more than ``max_data`` bytes."""
    return InvalidRequest(
        f"Data payload must be smaller than {max_data}", status_code=413, errno=104
    )


def authenticate_sender(message: PushRequest) -> None:
    """Check the sender's VAPID token, if it has one (section 6).

    :raises InvalidRequest: 401, errno 109
    """
    app, auth, public_key = message.app, message.endpoint.auth, message.endpoint.public_key
    if not auth:
        return
    conf = app.conf
    origin = conf.public_origin or conf.endpoint_url
    claims = vapid.authenticate(auth, public_key, origin, clock.now(), conf.use_cryptography)
    if app.metrics.active:
        app.metrics.increment(f"updates.vapid.draft{auth['version']:02}")
    message.keywords["jwt"] = {"jwt_crypto_key": public_key, "jwt_data": claims}
    message.vapid = True


def keep_rates(message: PushRequest) -> None:
    """Take a token from the buckets of the subscription and of the sender, where there are any.

    :raises InvalidRequest: 429, errno 204
    """
    rates = message.app.rates
    if rates is not None:
        rates.take(message.endpoint)


def make_notification(message: PushRequest) -> None:
    """Make of it what is routed (section 5.7).

    :raises InvalidRequest: errno 110
    """
    conf, endpoint = message.app.conf, message.endpoint
    subscription = {
        "uaid": endpoint.user,
        "chid": endpoint.channel,
        "public_key": endpoint.public_key,
        "user_data": message.user,
    }
    message.keywords["subscription"] = subscription
    message.keywords["notification"] = WebPushNotification.from_webpush_request_schema(
        {"subscription": subscription, "headers": message.checked_headers, "body": message.body},
        conf.fernet,
        conf._notification_legacy,
    )


@attrs.define
class PushRequest(ParsedRequest):
    """A message, and everything it must satisfy before it is routed (spec/http-endpoint 5.1).

    :ivar endpoint: what the token in the URL says, and ``Authorization``
    :ivar user: the user's record
    :ivar checked_headers: ``ttl``, ``topic``, ``urgency`` and those that tell how the body is
        encrypted
    """

    rules = (
        open_token,
        find_user,
        check_headers_and_size,
        authenticate_sender,
        keep_rates,
        make_notification,
    )

    endpoint: EndpointToken = attrs.field(init=False)
    user: User = attrs.field(init=False)
    checked_headers: JSONDict = attrs.field(init=False)

    def whom(self) -> tuple[str | None, str | None]:
        """UAID and channel, if the token could be opened."""
        endpoint: EndpointToken | None = getattr(self, "endpoint", None)
        return (None, None) if endpoint is None else (endpoint.uaid, endpoint.channel.hex)


class WebPushRequestSchema(RulesSchema):
    """The same for handlers of one's own.

    What it loads is ``subscription``, ``notification`` and, if the sender identified itself,
    ``jwt``. ``subscription`` has ``uaid`` and ``chid`` (UUIDs), ``public_key`` and ``user_data``,
    the user's record. ``jwt`` has ``jwt_crypto_key`` and ``jwt_data``, the claims.
    """

    kind = PushRequest


# ------------------------------------------------------------------------------ the user's record


async def check_bridge_user(app: Any, uaid: str, user: User) -> None:
    """Mark a record no bridge can use, once (Q36); until the device registers again.

    :raises InvalidRequest: 410, errno 105
    """
    data = user.get("router_data") or {}
    usable = BRIDGES[user["router_type"]].usable(data)
    if usable and user.get("critical_failure") == MISSING_SENDER:
        return  # registered again since
    if not usable and not user.get("critical_failure"):
        user["critical_failure"] = MISSING_SENDER
        user.setdefault("connected_at", ms_time())
        names = ("router_type", "connected_at", "critical_failure")
        await app.db.register_user({"uaid": uaid, **{name: user[name] for name in names}})
    if user.get("critical_failure"):
        raise critical_failure(user)


def critical_failure(user: User) -> InvalidRequest:
    """Return the answer for a record that is marked as beyond repair."""
    return InvalidRequest(
        f"Critical Failure: {user['critical_failure']}", status_code=410, errno=105
    )


def no_such_subscription() -> InvalidRequest:
    """Return the answer for a channel nobody listens to."""
    return InvalidRequest("No such subscription", status_code=410, errno=106)


async def drop_user(app: Any, uaid: str, user: User, code: int) -> InvalidRequest:
    """Delete an unusable record.

    :param code: why: 102 or 103 (spec/storage 11)
    :returns: the answer for the sender
    """
    key_hash = app.conf.key_hash
    if enabled("debug"):
        ThreadedValidate.log.debug(
            "Dropping User",
            code=code,
            uaid_hash=hash_uaid(key_hash, uaid),
            uaid_record=loggable_record(key_hash, user),
        )
    app.metrics.increment("updates.drop_user", tags=[f"errno:{code}"])
    await app.db.drop_user(uaid)
    return no_such_subscription()


# ---------------------------------------------------------------------------------------- handler


class WebPushHandler(BaseWebHandler):
    """Handler of the push resources."""

    cors_methods = "POST"
    # RFC 8030, 8188, 8291 and 8292, and their drafts.
    cors_request_headers = (
        "content-encoding",
        "encryption",
        "crypto-key",
        "ttl",
        "encryption-key",
        "content-type",
        "authorization",
        "topic",
        "urgency",
        "prefer",
    )
    cors_response_headers = ("location", "www-authenticate", "link", "ttl", "retry-after")
    challenge = vapid.CHALLENGE

    _handling_message = True
    _message: tuple[User, WebPushNotification, JSONDict | None] | None = None

    async def post(
        self,
        subscription: JSONDict,
        notification: WebPushNotification,
        jwt: JSONDict | None = None,
        **kwargs: Any,
    ) -> None:
        """Route a message that passed all checks.

        :param subscription: as :class:`WebPushRequestSchema` has it, as are the others
        """
        user = subscription["user_data"]
        self._message = (user, notification, jwt)
        router_type = user["router_type"]
        router = self.application.routers[router_type]
        if notification.headers and self.metrics.active:
            encoding = notification.headers["encoding"]
            self.metrics.increment(f"updates.notification.encoding.{encoding}")
        start_time = clock.now()
        try:
            response = await router.route(notification, user)
        except RouterException as exc:
            await self._router_fail_err(exc, router_type, jwt, notification.uaid.hex)
            return
        route_time = self._timings["route_time"] = clock.now() - start_time
        if self.metrics.histograms:
            self.metrics.observe("notification.route_time", route_time)
        await self._router_completed(response, user, router_type, jwt)

    route = post
    """The same for what has passed the checks already."""
    post = validated(PushRequest)(route)

    async def _router_completed(
        self, response: RouterResponse, uaid_data: User, router_type: str, vapid: Any
    ) -> None:
        """Do to the user's record what the router wants, then answer (section 5.8)."""
        uaid = uaid_data["uaid"]
        router_data = response.router_data
        if router_data is not None and not router_data:
            if enabled("debug"):
                self.log.debug(
                    "Dropping User",
                    code=100,
                    uaid_hash=self._uaid_hash(uaid),
                    uaid_record=loggable_record(self.conf.key_hash, uaid_data),
                    client_info=self._client_info,
                )
            await self.db.drop_user(uaid)
            self._router_response(response, router_type, vapid)
            return
        if router_data is not None:
            uaid_data["router_data"] = router_data
            uaid_data["connected_at"] = ms_time()
            await self.db.register_user(uaid_data)
        if enabled("debug"):
            self._log_success(response)
        if self.metrics.active:
            self.metrics.timing("notification.request_time", clock.now() - self._start_time)
        self._router_response(response, router_type, vapid)

    def _log_success(self, response: RouterResponse) -> None:
        if was_stored(response):
            self.log.debug("Router miss, message stored.", client_info=self._client_info)
        elif 200 in (response.status_code, response.logged_status):
            self.log.debug("Successful delivery", client_info=self._client_info)

    def _tell(self, response: RouterResponse | RouterException, router_type: str | None) -> None:
        assert self._message is not None
        _, notification, _ = self._message
        self.log.info(
            "Message",
            uaid_hash=self._uaid_hash(notification.uaid.hex),
            channel_id=notification.channel_id.hex,
            message_size=notification.data_length,
            outcome=outcome(response, router_type),
            status_code=response.status_code,
            shown={"took": clock.now() - self._start_time},
        )

    @property
    def _client_info(self) -> JSONDict:
        """Fields of the request and, from the end of validation on, of the message."""
        info = super()._client_info
        if self._message is not None and "message_id" not in info:
            info.update(self._message_info(*self._message))
        return info

    def _message_info(
        self, user: User, notification: WebPushNotification, jwt: JSONDict | None
    ) -> JSONDict:
        info = {
            "message_id": notification.message_id,
            "uaid_hash": self._uaid_hash(notification.uaid.hex),
            "channel_id": notification.channel_id.hex,
            "router_key": user["router_type"],
            "message_size": notification.data_length,
            "message_ttl": notification.ttl,
            "version": notification.version,
            "encoding": (notification.headers or {}).get("encoding", ""),
        }
        if jwt:
            # Encoded once more than needed, as ever. Claims are redacted by the log.
            info["jwt_crypto_key"] = base64url_encode(jwt["jwt_crypto_key"])
            for name in list(jwt["jwt_data"])[:MAX_LOGGED_CLAIMS]:
                info[f"jwt_{name}"] = jwt["jwt_data"][name]
        return info


def outcome(response: RouterResponse | RouterException, router_type: str | None) -> str:
    """Return what became of a message that was taken, for people."""
    if router_type in BRIDGES:
        return f"passed to {router_type}"
    if response.logged_status == 204:
        return "dropped (TTL 0, and nobody there)"
    return "stored" if was_stored(response) else "delivered"
