"""What requests to the registration API must look like (spec/http-endpoint 8.1 to 8.4).

The order of the checks is that of each request's ``rules``. Nothing about a user is told to those
who don't know its secret (Q16).
"""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import attrs
import orjson
from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load

from autopush.exceptions import InvalidRequest, RouterException
from autopush.ids import generate_hash, parse_uuid
from autopush.message.endpoint_token import check_subscription_key
from autopush.options.bridges import BRIDGES
from autopush.options.bridges.declaration import Bridge
from autopush.web.base import AUTH_SCHEMES, PREF_SCHEME
from autopush.web.rules import ParsedRequest, RulesSchema

if TYPE_CHECKING:
    from autopush.db.interface import User
    from autopush.types import JSONDict

# ---------------------------------------------------------------------------------------- bodies


class HexUUID(fields.String):
    """A UUID in any spelling; becomes 32 hex digits."""

    default_error_messages = {"invalid_uuid": "Not a valid UUID."}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, str):
            raise self.make_error("invalid_uuid")
        try:
            return parse_uuid(value).hex
        except ValueError as exc:
            raise self.make_error("invalid_uuid") from exc


class SubInfoSchema(Schema):
    """Members every body may have; others are dropped."""

    class Meta:
        unknown = EXCLUDE

    channelID = HexUUID()
    key = fields.String(allow_none=True)

    @post_load
    def check_key(self, data: JSONDict, **_kwargs: Any) -> JSONDict:
        """Refuse a key no sender can have, before anything is written (Q13)."""
        if data.get("key"):
            try:
                check_subscription_key(data["key"])
            except ValueError as exc:
                raise InvalidRequest("Invalid key: not a P-256 point", errno=108) from exc
        return data


class TokenSchema(SubInfoSchema):
    """Body for ``webpush``."""

    token = fields.String(allow_none=True)


@lru_cache
def body_schema(bridge: Bridge) -> SubInfoSchema:
    """Return the schema of a bridge's registrations."""
    members: Any = dict(bridge.members)
    schema: SubInfoSchema = SubInfoSchema.from_dict(members)()  # type: ignore[assignment]
    return schema


def token_schema(router_type: str) -> SubInfoSchema | None:
    """Return the schema of a router type's registrations; None: there is no such type."""
    if router_type == "webpush":
        return TOKEN_SCHEMA
    bridge = BRIDGES.get(router_type)
    return None if bridge is None else body_schema(bridge)


TOKEN_SCHEMA = TokenSchema()
SUB_INFO_SCHEMA = SubInfoSchema()


def parse_body(body: bytes, may_be_empty: bool = False) -> Any:
    """Return the JSON in a body, whatever its type.

    :param may_be_empty: whether no body is a body without members
    :raises InvalidRequest: errno 108
    """
    if may_be_empty and not body.strip():
        return {}
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest("Invalid Request body", errno=108) from exc


def load_body(schema: SubInfoSchema, content: Any) -> JSONDict:
    """Check the members of a body.

    :raises marshmallow.ValidationError: field errors, under ``body``
    """
    try:
        data: JSONDict = schema.load(content)
    except ValidationError as exc:
        raise ValidationError({"body": exc.normalized_messages()}) from exc
    return data


def chosen_chid(data: JSONDict) -> UUID:
    """Return the channel id a checked body asks for, else a new one."""
    chid = data.get("channelID")
    return UUID(hex=chid) if chid else uuid4()


# ------------------------------------------------------------------------- path and authorisation


def path_uuid(text: str | None) -> UUID:
    """Return an id in the path, in any spelling of a UUID.

    :raises InvalidRequest: 404
    """
    try:
        return parse_uuid(text or "")
    except ValueError as exc:
        raise InvalidRequest("Invalid Path", status_code=404) from exc


def check_authorization(header: str | None, uaid: str, keys: list[str]) -> None:
    """Check that a caller has the secret of a UAID (section 8.3).

    :param header: ``Authorization``
    :param uaid: 32 hex digits
    :param keys: any of these may have made the secret; none: any secret will do
    :raises InvalidRequest: 401, errno 109
    """
    if not header:
        raise unauthorized("Unauthorized")
    scheme, _, secret = re.sub(" +", " ", header.strip()).partition(" ")
    if scheme.lower() not in AUTH_SCHEMES or not secret or " " in secret:
        raise unauthorized("Invalid Authentication")
    if not keys:
        return
    given = secret.encode()
    # All are tried, so that the time taken tells nothing about which.
    matches = [hmac.compare_digest(given, generate_hash(key, uaid).encode("ascii")) for key in keys]
    if not any(matches):
        raise unauthorized("Invalid Authentication")


def unauthorized(text: str) -> InvalidRequest:
    """Return the 401 of section 8.3 with this text."""
    return InvalidRequest(
        text, status_code=401, errno=109, headers={"www-authenticate": PREF_SCHEME}
    )


# -------------------------------------------------------------------------------------- the rules


@attrs.define
class RegistrationRequest(ParsedRequest):
    """A request of the registration API.

    :ivar content: what the JSON in the body says, of whatever type
    """

    content: Any = attrs.field(default=None, init=False)


def read_body(request: RegistrationRequest) -> None:
    """:raises InvalidRequest: errno 108"""
    request.content = parse_body(request.body, may_be_empty=True)


def read_router_body(request: RegistrationRequest) -> None:
    """Read the body of a registration, unless its type doesn't exist: that is told later.

    :raises InvalidRequest: errno 108
    """
    router_type = request.path["type"] or ""
    if token_schema(router_type) is not None:
        request.content = parse_body(request.body, may_be_empty=router_type == "webpush")


def find_router(request: RegistrationRequest) -> None:
    """:raises InvalidRequest: errno 108: no such router here."""
    if request.path["type"] not in request.app.routers:
        raise InvalidRequest("Invalid router", errno=108)


def find_channel(request: RegistrationRequest) -> None:
    """Read ``chid`` (UUID) off the path.

    :raises InvalidRequest: 404
    """
    request.keywords["chid"] = path_uuid(request.path["chid"])


async def authorize(request: RegistrationRequest) -> None:
    """Check path and caller: ``uaid`` (UUID) and ``user``, the record.

    :raises InvalidRequest: 404, 400, 401, 410
    """
    app = request.app
    uaid = path_uuid(request.path["uaid"])
    find_router(request)
    check_authorization(request.headers.find("authorization"), uaid.hex, app.conf.bear_hash_key)
    user: User | None = await app.db.get_user(uaid.hex)
    if user is None:
        raise InvalidRequest("UAID not found", status_code=410, errno=103)
    request.keywords.update(uaid=uaid, user=user)


def choose_channel(request: RegistrationRequest) -> None:
    """Check the members of the body: ``chid`` (UUID; a new one if none is given) and
    ``app_server_key``.

    :raises marshmallow.ValidationError: field errors
    :raises InvalidRequest: errno 108
    """
    data = load_body(SUB_INFO_SCHEMA, request.content)
    request.keywords.update(chid=chosen_chid(data), app_server_key=data.get("key"))


def load_router_data(request: RegistrationRequest) -> None:
    """Check the members of a registration's body, and let the router complete them:
    ``router_type`` and ``router_data``.

    :raises marshmallow.ValidationError: field errors
    :raises InvalidRequest: what the router says
    """
    router_type, app_id = request.path["type"] or "", request.path["app_id"]
    schema = token_schema(router_type)
    assert schema is not None  # there is such a router
    router_data = load_body(schema, request.content)
    try:
        request.app.routers[router_type].register("", router_data=router_data, app_id=app_id)
    except RouterException as exc:
        raise InvalidRequest(
            str(exc), status_code=exc.status_code, errno=exc.errno, headers=exc.headers
        ) from exc
    request.keywords.update(router_type=router_type, router_data=router_data)


# --------------------------------------------------------------------------------------- requests


@attrs.define
class NewRegistration(RegistrationRequest):
    """``POST .../registration``."""

    rules = (read_router_body, find_router, load_router_data)


@attrs.define
class TokenUpdate(RegistrationRequest):
    """``PUT`` and ``POST .../registration/{uaid}``."""

    rules = (read_router_body, authorize, load_router_data)


@attrs.define
class KnownUser(RegistrationRequest):
    """``GET`` and ``DELETE .../registration/{uaid}``."""

    rules = (authorize,)


@attrs.define
class NewChannel(RegistrationRequest):
    """``POST .../registration/{uaid}/subscription``."""

    rules = (read_body, authorize, choose_channel)


@attrs.define
class KnownChannel(RegistrationRequest):
    """``DELETE .../registration/{uaid}/subscription/{chid}``."""

    rules = (find_channel, authorize)


# For handlers of one's own, in ``@threaded_validate``.


class NewRegistrationSchema(RulesSchema):
    """As :class:`NewRegistration`."""

    kind = NewRegistration


class TokenUpdateSchema(RulesSchema):
    """As :class:`TokenUpdate`."""

    kind = TokenUpdate


class UaidSchema(RulesSchema):
    """As :class:`KnownUser`."""

    kind = KnownUser


class NewChidSchema(RulesSchema):
    """As :class:`NewChannel`."""

    kind = NewChannel


class UnregisterChidSchema(RulesSchema):
    """As :class:`KnownChannel`."""

    kind = KnownChannel
