"""The operations of the control API: a table, and the functions that are its rows.

Each takes the rig, the parts of the path, and the checked members of body and query, and returns
what is to be answered. The table is also the source of the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple
from uuid import UUID

from autopush import clock
from autopush.control.agents import Agent, Subscription
from autopush.control.faults import BY_STATUS, DELAY, KINDS, RETRY_AFTER
from autopush.control.rig import NotFound, Rig
from autopush.control.schema import BadInput, Member, Members
from autopush.message.endpoint_token import check_subscription_key
from autopush.types import JSONDict

MAX_WAIT = 300.0
"""Seconds a request for messages may wait for one."""

MAX_ADVANCE = 10 * 366 * 86_400.0
"""Seconds the clock may be moved at once: more than anything here lives."""

Act = Callable[[Rig, dict[str, str], JSONDict], Awaitable[JSONDict | None]]


class Operation(NamedTuple):
    """One operation.

    :ivar path: with the names of its variable parts in braces
    :ivar act: returns the answer; None: there is nothing to say
    :ivar answer: members of the answer
    :ivar errors: statuses it may be refused with besides 400 and 401
    """

    method: str
    path: str
    name: str
    text: str
    act: Act
    status: int = 200
    body: Members | None = None
    query: Members = ()
    answer: Members | None = None
    errors: tuple[int, ...] = ()


# --------------------------------------------------------------------------------------- members

BROWSER_MEMBERS: Members = (
    Member("id", "string", "what the API calls the browser", True),
    Member("uaid", "string", "what the service calls it", True, True),
    Member("online", "boolean", "whether it is connected", True),
)
SUBSCRIPTION_MEMBERS: Members = (
    Member("id", "string", "channel id of the subscription", True),
    Member("browser", "string", "whose it is", True),
    Member("subscription", "object", "as PushSubscription.toJSON() in a browser", True),
)
MESSAGE_MEMBERS: Members = (
    Member("id", "string", "the message's id, as in the sender's Location", True),
    Member("subscription", "string", "channel id", True),
    Member("time", "number", "when it came, Unix seconds by the service's clock", True),
    Member("data", "string", "plain text as base64url; null: none, or not decrypted", True, True),
    Member("text", "string", "the same as text, if it is UTF-8", True, True),
    Member("encoding", "string", "Content-Encoding", True, True),
    Member("error", "string", "why it could not be decrypted", True, True),
    Member("ttl", "integer", "seconds", True, True),
    Member("topic", "string", "Topic", True, True),
    Member("urgency", "string", "Urgency", True, True),
    Member("vapid", "object", "claims of the sender, and its key", True, True),
    Member("headers", "object", "of the request that brought it", True),
)
REQUEST_MEMBERS: Members = (
    Member("time", "number", "Unix seconds by the service's clock", True),
    Member("method", "string", "", True),
    Member("endpoint", "string", "URL it was sent to", True),
    Member("path", "string", "path of that", True),
    Member("remote", "string", "address of the sender", True),
    Member("headers", "object", "by lower-case name", True),
    Member("body", "string", "base64url", True),
    Member("status", "integer", "of the answer; null: there was none", True, True),
    Member("answer", "object", "headers of the answer", True),
    Member("errno", "integer", "number of the error, see the manual", True, True),
    Member("reason", "string", "why it was refused", True, True),
    Member("fault", "string", "the fault it met", True, True),
    Member("vapid", "object", "claims of the sender, and its key", True, True),
    Member("subscription", "string", "channel id, once that was known", True, True),
    Member("message", "string", "id of the message it brought", True, True),
    Member("ttl", "integer", "seconds", True, True),
)
FAULT_MEMBERS: Members = (
    Member("subscription", "string", "endpoint or id of the only one it is for", null=True),
    Member("sender", "string", "the only one it is for: its VAPID key, sub, or address", null=True),
    Member("times", "integer", "how often; without: until it is taken back", null=True, least=1),
    Member(
        "delay", "number", f"seconds, for late; else {DELAY:g}", null=True, least=0, most=86_400.0
    ),
    Member(
        "retry_after",
        "integer",
        f"seconds, for 429 and 503; else {RETRY_AFTER}",
        null=True,
        least=0,
        most=86_400,
    ),
)
NAMES = (*KINDS, *(str(status) for status in sorted(filter(None, BY_STATUS))))
NEW_FAULT: Members = (
    Member("fault", "string", "name or status of the fault", True, choices=NAMES),
    *FAULT_MEMBERS,
)
SHOWN_FAULT: Members = (
    Member("id", "integer", "identifies it", True),
    Member("fault", "string", "its name", True, choices=tuple(KINDS)),
    *FAULT_MEMBERS,
)
CLOCK_MEMBERS: Members = (
    Member("time", "number", "Unix seconds by the service's clock", True),
    Member("ahead", "number", "seconds it is ahead of the true time", True),
)
SERVICE_MEMBERS: Members = (
    Member("version", "string", "of the service", True),
    Member("url", "string", "origin of its endpoints, the aud of VAPID", True),
    Member("websocket_url", "string", "where user agents connect", True),
    Member("firefox_preferences", "object", "for a real Firefox", True),
    *CLOCK_MEMBERS,
)
SUBSCRIBE: Members = (
    Member(
        "applicationServerKey",
        "string",
        "base64url of the only key that may send; none: anybody may",
        null=True,
    ),
    Member("browser", "string", "whose it shall be; none: a new one's", null=True),
)
LOOK: Members = (
    Member("after", "integer", "number of the last entry that is known", least=0, most=2**53),
    Member("timeout", "number", "seconds to wait for one", least=0, most=MAX_WAIT),
)
ENDPOINT: Members = (Member("endpoint", "string", "of any subscription", True),)


def listed(name: str, text: str) -> Members:
    """An answer that is a list."""
    return (
        Member(name, "array", text, True),
        Member("last", "integer", "number of the last entry: the next after", True),
    )


# --------------------------------------------------------------------------------------- answers


def show_agent(agent: Agent) -> JSONDict:
    """A browser as the API shows it."""
    return {"id": agent.name, "uaid": agent.uaid, "online": agent.online}


def show_subscription(agent: Agent, subscription: Subscription) -> JSONDict:
    """A subscription as the API shows it."""
    return {
        "id": subscription.channel,
        "browser": agent.name,
        "subscription": subscription.to_json(),
    }


def show_clock(rig: Rig) -> JSONDict:
    """The clock as the API shows it."""
    return {"time": clock.now(), "ahead": rig.shift.seconds}


# ------------------------------------------------------------------------------------- operations


async def describe(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    return rig.describe()


async def add_browser(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    return show_agent(await rig.add_agent())


async def list_browsers(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    return {"browsers": [show_agent(agent) for agent in rig.agents.values()]}


async def show_browser(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    return show_agent(rig.agent(path["browser"]))


async def remove_browser(rig: Rig, path: dict[str, str], given: JSONDict) -> None:
    await rig.remove_agent(path["browser"])


async def go_offline(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    agent = rig.agent(path["browser"])
    await rig.offline(agent)
    return show_agent(agent)


async def go_online(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    agent = rig.agent(path["browser"])
    await agent.connect()
    return show_agent(agent)


async def messages(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    agent = rig.agent(path["browser"])
    await agent.caught_up()
    after, timeout = given["after"] or 0, given["timeout"] or 0
    found = await agent.messages.wait(after, timeout)
    return {"messages": [entry.to_json() for entry in found], "last": agent.messages.last}


async def subscribe(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    key = given["applicationServerKey"]
    if key:
        try:
            check_subscription_key(key)
        except ValueError as exc:
            raise BadInput(f"applicationServerKey is no P-256 key: {exc}") from exc
    name = given["browser"]
    agent = rig.agent(name) if name is not None else await rig.add_agent()
    return show_subscription(agent, await agent.subscribe(key or None))


async def list_subscriptions(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    return {"subscriptions": [show_subscription(*pair) for pair in rig.subscriptions()]}


async def show_one_subscription(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    return show_subscription(*rig.subscription(path["subscription"]))


async def unsubscribe(rig: Rig, path: dict[str, str], given: JSONDict) -> None:
    agent, subscription = rig.subscription(path["subscription"])
    await agent.unsubscribe(subscription.channel)


async def expire(rig: Rig, path: dict[str, str], given: JSONDict) -> None:
    await rig.expire(given["endpoint"])


async def requests(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    journal = rig.endpoint.requests
    found = await journal.wait(given["after"] or 0, given["timeout"] or 0)
    return {"requests": [record.to_json() for record in found], "last": journal.last}


def is_channel_id(text: str) -> bool:
    """Whether a subscription could have this id, one of a real browser's, too."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def add_fault(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    if given["subscription"] is not None and not is_channel_id(given["subscription"]):
        rig.owner(given["subscription"])
    return rig.endpoint.faults.add(given.pop("fault"), **given).to_json()


async def list_faults(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    return {"faults": [fault.to_json() for fault in rig.endpoint.faults]}


async def heal(rig: Rig, path: dict[str, str], given: JSONDict) -> None:
    await rig.endpoint.heal()


async def remove_fault(rig: Rig, path: dict[str, str], given: JSONDict) -> None:
    number = path["fault"]
    if not (number.isascii() and number.isdigit() and rig.endpoint.faults.remove(int(number))):
        raise NotFound(f"there is no fault {number}")


async def read_clock(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    return show_clock(rig)


async def advance(rig: Rig, path: dict[str, str], given: JSONDict) -> JSONDict:
    await rig.advance(given["advance"])
    return show_clock(rig)


async def reset(rig: Rig, path: dict[str, str], given: JSONDict) -> None:
    await rig.reset()


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/", "describe", "Where the service is", describe, answer=SERVICE_MEMBERS),
    Operation(
        "POST",
        "/browsers",
        "addBrowser",
        "A new browser: a user agent that is online, without a subscription",
        add_browser,
        201,
        body=(),
        answer=BROWSER_MEMBERS,
        errors=(409,),
    ),
    Operation(
        "GET",
        "/browsers",
        "listBrowsers",
        "All browsers",
        list_browsers,
        answer=(Member("browsers", "array", "", True),),
    ),
    Operation(
        "GET",
        "/browsers/{browser}",
        "showBrowser",
        "One browser",
        show_browser,
        answer=BROWSER_MEMBERS,
        errors=(404,),
    ),
    Operation(
        "DELETE",
        "/browsers/{browser}",
        "removeBrowser",
        "Let it go, with its subscriptions",
        remove_browser,
        204,
        errors=(404,),
    ),
    Operation(
        "POST",
        "/browsers/{browser}/offline",
        "goOffline",
        "Disconnect; what is sent waits from now on",
        go_offline,
        body=(),
        answer=BROWSER_MEMBERS,
        errors=(404,),
    ),
    Operation(
        "POST",
        "/browsers/{browser}/online",
        "goOnline",
        "Connect again; what has waited comes",
        go_online,
        body=(),
        answer=BROWSER_MEMBERS,
        errors=(404, 409),
    ),
    Operation(
        "GET",
        "/browsers/{browser}/messages",
        "listMessages",
        "Messages it got, decrypted, the oldest first",
        messages,
        query=LOOK,
        answer=listed("messages", "with the members of Message"),
        errors=(404,),
    ),
    Operation(
        "POST",
        "/subscriptions",
        "subscribe",
        "A new subscription",
        subscribe,
        201,
        body=SUBSCRIBE,
        answer=SUBSCRIPTION_MEMBERS,
        errors=(404, 409),
    ),
    Operation(
        "GET",
        "/subscriptions",
        "listSubscriptions",
        "The subscriptions of all browsers",
        list_subscriptions,
        answer=(Member("subscriptions", "array", "", True),),
    ),
    Operation(
        "GET",
        "/subscriptions/{subscription}",
        "showSubscription",
        "One subscription",
        show_one_subscription,
        answer=SUBSCRIPTION_MEMBERS,
        errors=(404,),
    ),
    Operation(
        "DELETE",
        "/subscriptions/{subscription}",
        "unsubscribe",
        "The browser ends it",
        unsubscribe,
        204,
        errors=(404, 409),
    ),
    Operation(
        "POST",
        "/expire",
        "expire",
        "The service ends a subscription, also a real browser's: senders get 410 at once",
        expire,
        204,
        body=ENDPOINT,
        errors=(404,),
    ),
    Operation(
        "GET",
        "/requests",
        "listRequests",
        "What senders posted, the oldest first, refused or not",
        requests,
        query=LOOK,
        answer=listed("requests", "with the members of Request"),
    ),
    Operation(
        "POST",
        "/faults",
        "addFault",
        "From now on something goes wrong",
        add_fault,
        201,
        body=NEW_FAULT,
        answer=SHOWN_FAULT,
        errors=(404,),
    ),
    Operation(
        "GET",
        "/faults",
        "listFaults",
        "The faults in force",
        list_faults,
        answer=(Member("faults", "array", "", True),),
    ),
    Operation("DELETE", "/faults", "heal", "No faults any more", heal, 204),
    Operation(
        "DELETE",
        "/faults/{fault}",
        "removeFault",
        "One fault less",
        remove_fault,
        204,
        errors=(404,),
    ),
    Operation("GET", "/clock", "readClock", "What time it is", read_clock, answer=CLOCK_MEMBERS),
    Operation(
        "POST",
        "/clock",
        "advance",
        "Let time pass for the service",
        advance,
        body=(Member("advance", "number", "seconds", True, least=0, most=MAX_ADVANCE),),
        answer=CLOCK_MEMBERS,
    ),
    Operation(
        "POST",
        "/reset",
        "reset",
        "No browser, request or fault, and the true time",
        reset,
        204,
        body=(),
    ),
)
"""All of them."""
