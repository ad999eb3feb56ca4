"""Google Cloud Messaging (spec/bridges 4)."""

from autopush.router.bridges.declaration import Bridge, token_field

BRIDGE = Bridge(
    "gcm",
    classes={"GCMRouter": "autopush.router.gcm"},
    choose=lambda settings: "GCMRouter",
    members={"token": token_field()},
    gone=frozenset(),  # the router itself says when, by an empty router_data
    usable=lambda router_data: "senderID" in (router_data.get("creds") or {}),
)
