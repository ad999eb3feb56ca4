"""The calls of the npm package web-push-testing, for those who come from it.

Same paths, members and statuses; its ``clientHash`` is the subscription's id here.
"""

from __future__ import annotations

from autopush.control.operations import Operation, subscribe
from autopush.control.rig import NotFound, Rig
from autopush.control.schema import BadInput, Member
from autopush.types import JSONDict

OPTIONS = (
    Member("userVisibleOnly", "boolean", "means nothing here", null=True),
    Member("applicationServerKey", "string", "base64url of the only key that may send", null=True),
)
CLIENT = (Member("clientHash", "string", "id of the subscription", True),)
DATA = (Member("data", "object", "", True),)


async def status(rig: Rig, path: dict[str, str], given: JSONDict) -> None:
    """It runs."""


async def subscribe_client(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    made = await subscribe(rig, path, {**given, "browser": None})
    return {"data": {**made["subscription"], "clientHash": made["id"]}}


async def expire_client(rig: Rig, path: dict[str, str], given: JSONDict) -> None:
    try:
        _, subscription = rig.subscription(path["clientHash"])
    except NotFound as exc:
        raise BadInput(str(exc)) from exc
    await rig.expire(subscription.endpoint)


async def notifications(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    channel = given["clientHash"]
    try:
        agent, _ = rig.subscription(channel)
    except NotFound as exc:
        raise BadInput(str(exc)) from exc
    await agent.caught_up()
    found = [entry for entry in agent.messages.after(0) if entry.subscription == channel]
    return {"data": {"messages": [entry.to_json()["text"] or "" for entry in found]}}


ALIASES: tuple[Operation, ...] = (
    *(
        Operation(
            method, "/status", f"{method.lower()}Status", "Whether it runs", status, body=None
        )
        for method in ("GET", "POST")
    ),
    Operation(
        "POST",
        "/subscribe",
        "subscribeClient",
        "A new browser with one subscription",
        subscribe_client,
        body=OPTIONS,
        answer=DATA,
        errors=(409,),
    ),
    Operation(
        "POST",
        "/expire-subscription/{clientHash}",
        "expireClient",
        "Senders get 410 from now on",
        expire_client,
    ),
    Operation(
        "POST",
        "/get-notifications",
        "listNotifications",
        "Plain texts of the messages that came",
        notifications,
        body=CLIENT,
        answer=DATA,
    ),
)
"""Operations under the names of that package."""
