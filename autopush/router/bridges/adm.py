"""Amazon Device Messaging (spec/bridges 7)."""

from autopush.router.bridges.declaration import Bridge, token_field

BRIDGE = Bridge(
    "adm",
    classes={"ADMRouter": "autopush.router.adm"},
    choose=lambda settings: "ADMRouter",
    members={"token": token_field(r"amzn1.adm-registration.v3.[^ ]{256,}\Z")},
)
