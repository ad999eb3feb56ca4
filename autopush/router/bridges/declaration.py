"""What is to be known of a bridge without making it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from marshmallow import fields, validate

if TYPE_CHECKING:
    from autopush.router.interface import IRouter
    from autopush.types import JSONDict

GONE = frozenset({404, 410})
"""Statuses of a router's answer that mean: the device is gone (spec/http-endpoint 5.8, Q3)."""

DEVICE_TOKEN = r"[^ ]{8,}\Z"
"""What most vendors call a device."""


def token_field(pattern: str = DEVICE_TOKEN) -> fields.Field[Any]:
    """Return the member that names a device."""
    return fields.String(validate=validate.Regexp(re.compile(pattern)))


@attrs.frozen(eq=False)
class Bridge:
    """One bridge.

    :ivar router_type: in the paths of the registration API, in records, in ``router_conf``
    :ivar classes: modules of its router classes, by their names
    :ivar choose: picks one by the settings; None: there is none for them
    :ivar members: of a registration's body, beside those every body may have
    :ivar gone: statuses of its answers after which the user's record is dropped
    :ivar usable: whether a record's ``router_data`` says where to send
    """

    router_type: str
    classes: Mapping[str, str]
    choose: Callable[[JSONDict], str | None]
    members: Mapping[str, fields.Field[Any]] = attrs.field(factory=dict)
    gone: frozenset[int] = GONE
    usable: Callable[[JSONDict], bool] = lambda router_data: True

    def router_class(self, name: str) -> Callable[..., IRouter]:
        """Import one of its classes."""
        found: Callable[..., IRouter] = getattr(importlib.import_module(self.classes[name]), name)
        return found
