"""Amazon Device Messaging (spec/bridges 7)."""

from __future__ import annotations

from typing import Any

from autopush.options.bridges.declaration import Bridge, json_objects, token_field
from autopush.options.tables import JSON, Option

OPTIONS = (
    Option(
        "adm_creds",
        "ADM_CREDS",
        JSON,
        "",
        'JSON: {"<profile>": {"client_id": ..., "client_secret": ...}}; switches ADM on. Also:'
        ' "base_url", "ca_file", "ttl" (minimum, seconds), "timeout" (seconds)',
    ),
)


def settings(ns: Any) -> str | None:
    """Return the credentials as they are: other options' mistakes are told first."""
    return getattr(ns, "adm_creds", None) or None


def checked(creds: str) -> Any:
    """:raises InvalidConfig: no credentials"""
    return json_objects(creds, "Invalid JSON specified for ADM config options")


BRIDGE = Bridge(
    "adm",
    classes={"ADMRouter": "autopush.router.adm"},
    choose=lambda settings: "ADMRouter",
    options=OPTIONS,
    settings=settings,
    checked=checked,
    members={"token": token_field(r"amzn1.adm-registration.v3.[^ ]{256,}\Z")},
)
