"""A bridge in one module: it hands messages to a list."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from autopush.exceptions import InvalidConfig, RouterException
from autopush.options.bridges.declaration import Bridge, json_objects, token_field
from autopush.options.tables import COUNT, JSON, Option
from autopush.router.bridge import BridgeRouter, accepted


class ToyRouter(BridgeRouter):
    """Router for ``router_type`` ``toy``."""

    platform = "toy"
    account = "crate"

    def __init__(self, conf: Any, router_conf: Any, metrics: Any) -> None:
        super().__init__(conf, router_conf, metrics)
        self.sent: list[tuple[str, str]] = []
        self.clients = dict(router_conf["boxes"])

    def register(self, uaid: str, router_data: Any, app_id: str, *args: Any, **kwargs: Any) -> None:
        if app_id not in self.clients:
            raise RouterException("No such box", status_code=400, errno=105)
        router_data["box"] = app_id

    async def _route(self, notification: Any, router_data: Any) -> Any:
        if router_data["token"] == "x" * 8:
            raise RouterException("Away", status_code=410, response_body="Away", errno=106)
        self.sent.append((router_data["box"], notification.data))
        return accepted(self.conf, notification, notification.ttl)


OPTIONS = (
    Option("toy_boxes", "TOY_BOXES", JSON, "", 'JSON: {"<box>": {}}; switches toys on'),
    Option("toy_room", "TOY_ROOM", COUNT, 3, "boxes that fit in"),
)


def settings(ns: Any) -> Any:
    if not getattr(ns, "toy_boxes", None):
        return None
    return {"boxes": json_objects(ns.toy_boxes, "Invalid JSON in toy_boxes"), "room": ns.toy_room}


def checked(settings: Any) -> Any:
    if len(settings["boxes"]) > settings["room"]:
        raise InvalidConfig("There is no room for these boxes")
    return settings


BRIDGE = Bridge(
    "toy",
    classes={"ToyRouter": __name__},
    choose=lambda settings: "ToyRouter" if "boxes" in settings else None,
    options=OPTIONS,
    subject="toys",
    settings=settings,
    checked=checked,
    members={"token": token_field(), "colour": fields.String()},
    usable=lambda router_data: "box" in router_data,
)
