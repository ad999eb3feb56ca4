"""Google Cloud Messaging (spec/bridges 4)."""

from __future__ import annotations

from typing import Any

from autopush.exceptions import InvalidConfig
from autopush.options.bridges.declaration import Bridge, json_object, token_field
from autopush.options.tables import COUNT, FLAG, JSON, TEXT, Option
from autopush.types import JSONDict

OPTIONS = (
    Option("gcm_ttl", "GCM_TTL", COUNT, 60, "minimum TTL for GCM, seconds"),
    Option("gcm_dryrun", "GCM_DRYRUN", FLAG, False, "GCM checks but doesn't deliver"),
    Option("gcm_collapsekey", "GCM_COLLAPSEKEY", TEXT, "simplepush", "accepted, no effect"),
    Option(
        "gcm_endpoint",
        "GCM_ENDPOINT",
        TEXT,
        "gcm-http.googleapis.com/gcm/send",
        "host and path of GCM",
    ),
    Option(
        "senderid_list",
        "SENDERID_LIST",
        JSON,
        "",
        'JSON: {"<senderid>": {"auth": "<key>"}}; switches GCM on. Also: "endpoint", "ca_file"',
    ),
)


def settings(ns: Any) -> JSONDict | None:
    """:raises InvalidConfig: no senders"""
    text = getattr(ns, "senderid_list", None)
    if not text:
        return None
    error = "Invalid JSON specified for senderid_list"
    senders = json_object(text, error)
    if not senders:
        raise InvalidConfig("No GCM SenderIDs specified or found.")
    if not all(isinstance(sender, dict) for sender in senders.values()):
        raise InvalidConfig(error)
    return {
        "ttl": ns.gcm_ttl,
        "dryrun": ns.gcm_dryrun,
        "max_data": ns.max_data,
        "collapsekey": ns.gcm_collapsekey,
        "senderIDs": senders,
        "endpoint": ns.gcm_endpoint,
    }


BRIDGE = Bridge(
    "gcm",
    classes={"GCMRouter": "autopush.router.gcm"},
    choose=lambda settings: "GCMRouter",
    options=OPTIONS,
    settings=settings,
    members={"token": token_field()},
    gone=frozenset(),  # the router itself says when, by an empty router_data
    usable=lambda router_data: "senderID" in (router_data.get("creds") or {}),
)
