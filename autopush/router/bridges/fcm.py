"""Firebase Cloud Messaging, both protocols (spec/bridges 5)."""

from autopush.router.bridges.declaration import Bridge, token_field

VERSIONS = {0: "FCMRouter", 1: "FCMv1Router"}
"""By ``fcm_version``; the configuration allows no others."""

BRIDGE = Bridge(
    "fcm",
    classes={"FCMRouter": "autopush.router.fcm", "FCMv1Router": "autopush.router.fcm_v1"},
    choose=lambda settings: VERSIONS.get(settings.get("version", 1)),
    members={"token": token_field()},
    usable=lambda router_data: "app_id" in router_data,
)
