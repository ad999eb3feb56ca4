"""Firebase Cloud Messaging, both protocols (spec/bridges 5)."""

from __future__ import annotations

from typing import Any

from autopush.exceptions import InvalidConfig
from autopush.options.bridges.declaration import Bridge, json_object, token_field
from autopush.options.tables import COUNT, FLAG, JSON, TEXT, Option
from autopush.types import JSONDict

ENDPOINT = "fcm.googleapis.com/fcm/send"
"""Where the legacy protocol was; not repeated in the router's settings."""

VERSIONS = {0: "FCMRouter", 1: "FCMv1Router"}
"""By ``fcm_version``."""

OPTIONS = (
    Option(
        "fcm_creds",
        "FCM_CREDS",
        JSON,
        "",
        'JSON: {"<app_id>": {"auth": ..., "projectid": ...}}; switches FCM on. "auth" is the'
        ' key file of a service account. Also: "base_url", "ca_file"; with fcm_version 0 "auth"'
        ' is the server key, and "endpoint" instead of "base_url"',
    ),
    Option("fcm_ttl", "FCM_TTL", COUNT, 60, "minimum TTL for FCM, seconds"),
    Option("fcm_dryrun", "FCM_DRYRUN", FLAG, False, "FCM checks but doesn't deliver"),
    Option("fcm_collapsekey", "FCM_COLLAPSEKEY", TEXT, "simplepush", "accepted, no effect"),
    Option("fcm_version", "FCM_VERSION", int, 1, "0: legacy FCM, 1: HTTP v1"),
    Option(
        "fcm_endpoint",
        "FCM_ENDPOINT",
        TEXT,
        ENDPOINT,
        "host and path of legacy FCM (fcm_version 0)",
    ),
)


def settings(ns: Any) -> JSONDict | None:
    """Return the settings with the credentials as they are: others' mistakes are told first."""
    if not getattr(ns, "fcm_creds", None):
        return None
    found = {
        "version": ns.fcm_version,
        "ttl": ns.fcm_ttl,
        "dryrun": ns.fcm_dryrun,
        "max_data": ns.max_data,
        "collapsekey": ns.fcm_collapsekey,
        "creds": ns.fcm_creds,
    }
    if getattr(ns, "fcm_endpoint", ENDPOINT) != ENDPOINT:
        found["endpoint"] = ns.fcm_endpoint
    return found


def checked(settings: JSONDict) -> JSONDict:
    """:raises InvalidConfig: no credentials, or another version"""
    error = "Invalid JSON specified for FCM config options"
    creds = json_object(settings["creds"], error)
    if not creds:
        raise InvalidConfig("Empty credentials for FCM config options")
    for entry in creds.values():
        if not isinstance(entry, dict):
            raise InvalidConfig(error)
        if "auth" not in entry:
            raise InvalidConfig("Missing auth for FCM config options")
    if settings["version"] not in VERSIONS:
        raise InvalidConfig("Invalid fcm_version: must be 0 (legacy) or 1 (HTTP v1)")
    return {**settings, "creds": creds}


BRIDGE = Bridge(
    "fcm",
    classes={"FCMRouter": "autopush.router.fcm", "FCMv1Router": "autopush.router.fcm_v1"},
    choose=lambda settings: VERSIONS.get(settings.get("version", 1)),
    options=OPTIONS,
    settings=settings,
    checked=checked,
    members={"token": token_field()},
    usable=lambda router_data: "app_id" in router_data,
)
