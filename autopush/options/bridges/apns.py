"""The Apple Push Notification service (spec/bridges 6)."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from autopush.options.bridges.declaration import Bridge, json_objects, token_field
from autopush.options.tables import JSON, Option

OPTIONS = (
    Option(
        "apns_creds",
        "APNS_CREDS",
        JSON,
        "",
        'JSON: {"<channel>": {"cert": ..., "key": ..., "topic": ..., "sandbox": ...,'
        ' "max_connections": ..., "max_retry": ...}}; switches APNs on. Also: "key_id",'
        ' "team_id" and "p8" instead of "cert" and "key"; "host", "port", "ca_file", "timeout",'
        ' "collapse_id"',
    ),
)


def settings(ns: Any) -> Any:
    """:raises InvalidConfig: no credentials"""
    creds = getattr(ns, "apns_creds", None)
    return json_objects(creds, "Invalid JSON specified for APNS config options") if creds else None


BRIDGE = Bridge(
    "apns",
    classes={"APNSRouter": "autopush.router.apnsrouter"},
    choose=lambda settings: "APNSRouter",
    options=OPTIONS,
    settings=settings,
    members={"token": token_field(), "aps": fields.Dict(allow_none=True)},
)
