"""The Apple Push Notification service (spec/bridges 6)."""

from marshmallow import fields

from autopush.router.bridges.declaration import Bridge, token_field

BRIDGE = Bridge(
    "apns",
    classes={"APNSRouter": "autopush.router.apnsrouter"},
    choose=lambda settings: "APNSRouter",
    members={"token": token_field(), "aps": fields.Dict(allow_none=True)},
)
