"""What is to be known of a bridge without making it."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from marshmallow import fields, validate

from autopush.exceptions import InvalidConfig
from autopush.options.tables import Option
from autopush.types import JSONDict

GONE = frozenset({404, 410})
"""Statuses of a router's answer that mean: the device is gone (spec/http-endpoint 5.8, Q3)."""

DEVICE_TOKEN = r"[^ ]{8,}\Z"
"""What most vendors call a device."""


def token_field(pattern: str = DEVICE_TOKEN) -> fields.Field[Any]:
    """Return the member that names a device."""
    return fields.String(validate=validate.Regexp(re.compile(pattern)))


def json_object(text: str, error: str) -> JSONDict:
    """Return the JSON object in an option's text; empty if that is ``null``.

    :raises InvalidConfig: with ``error`` as its text: it is something else
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidConfig(error) from exc
    if value is not None and not isinstance(value, dict):
        raise InvalidConfig(error)
    return value or {}


def json_objects(text: str, error: str) -> dict[str, JSONDict]:
    """Return the JSON object of JSON objects in an option's text.

    :raises InvalidConfig: with ``error`` as its text: it is something else
    """
    value = json_object(text, error)
    if not all(isinstance(member, dict) for member in value.values()):
        raise InvalidConfig(error)
    return value


@attrs.frozen(eq=False)
class Bridge:
    """One bridge.

    :ivar router_type: in the paths of the registration API, in records, in ``router_conf``
    :ivar classes: modules of its router classes, by their names. Such a class is a
        :class:`~autopush.router.bridge.BridgeRouter`; its ``checks`` and ``token_sources`` are
        what the doctor looks at.
    :ivar choose: picks one by the settings; None: there is none for them
    :ivar options: rows for all commands
    :ivar subject: heading they stand under in help and manual
    :ivar settings: what the options say, as a member of ``router_conf``; None or empty: the bridge
        is off. May raise :class:`~autopush.exceptions.InvalidConfig`, as may ``checked``.
    :ivar checked: what becomes of that when all bridges' options have been read
    :ivar members: of a registration's body, beside those every body may have
    :ivar gone: statuses of its answers after which the user's record is dropped
    :ivar usable: whether a record's ``router_data`` says where to send
    """

    router_type: str
    classes: Mapping[str, str]
    choose: Callable[[JSONDict], str | None]
    options: tuple[Option, ...] = ()
    subject: str = "bridges"
    settings: Callable[[Any], Any] = lambda ns: None
    checked: Callable[[Any], Any] = lambda settings: settings
    members: Mapping[str, fields.Field[Any]] = attrs.field(factory=dict)
    gone: frozenset[int] = GONE
    usable: Callable[[JSONDict], bool] = lambda router_data: True

    def router_class(self, name: str) -> Any:
        """Import one of its classes."""
        return getattr(importlib.import_module(self.classes[name]), name)
