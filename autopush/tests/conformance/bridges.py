"""The recorded cases with a bridge: the vendors are stand-ins.

The recordings were made through a proxy, so what was sent names the vendor's host. Long texts are
abbreviated in them.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from typing import Any, ClassVar

from automock.running import Background
from autopush.tests.conformance.driver import OBSERVERS, Environment, Run
from autopush.tests.e2e.clients import JSON
from autopush.tests.e2e.harness import Server

NEEDS = frozenset({"gcm", "fcm", "fcm0", "adm", "apns", "gcm_mock", "bridge_proxy"})

APPS = {"gcm": "12345", "fcm": "fcmapp", "adm": "admprofile", "apns": "firefox"}
HOSTS = {
    "gcm": "gcm-http.googleapis.com",
    "fcm": "fcm.googleapis.com",
    "fcm_legacy": "fcm.googleapis.com",
    "adm": "api.amazon.com",
}
RECORDED_HEADERS = (
    "authorization",
    "content-type",
    "x-amzn-type-version",
    "x-amzn-accept-type",
)
ADM_TOKEN = "adm-token"

ABBREVIATED = re.compile(r"(.{40})\.\.\.\(len (\d+), sha256 ([0-9a-f]{12})\)", re.DOTALL)
LONG = 200
"""Characters from which on a text was abbreviated."""


def abbreviate(value: Any) -> Any:
    """Return a value with its long texts as they are in the recordings."""
    if isinstance(value, dict):
        return {key: abbreviate(one) for key, one in value.items()}
    if not isinstance(value, str) or len(value) <= LONG:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:12]
    return f"{value[:40]}...(len {len(value)}, sha256 {digest})"


def expand(text: str) -> str:
    """Return an abbreviated text of one repeated character."""
    found = ABBREVIATED.fullmatch(text)
    if found is None:
        return text
    whole = text[0] * int(found[2])
    assert abbreviate(whole) == text, "not one repeated character"
    return whole


def options(mock: Background, legacy: bool) -> list[str]:
    """The service's options for the stand-ins."""
    found = mock.automock.options()
    if legacy:
        for name, value in mock["fcm_legacy"].options().items():
            found[name] = json.dumps(value)
    return [f"--{name}={value}" for name, value in found.items()]


class BridgeEnvironment(Environment):
    """A service with all bridges.

    :param legacy: FCM's protocol is the legacy one
    """

    provides: ClassVar[frozenset[str]] = Environment.provides | NEEDS

    def __init__(self, server: Server, mock: Background, legacy: bool) -> None:
        super().__init__(server)
        self.mock = mock
        self.legacy = legacy
        self.stand_in: Any = None
        for name in ("gcm", "fcm_legacy", "fcm", "adm"):
            mock[name].reset()
        adm = mock["adm"]
        adm.access_tokens[ADM_TOKEN] = float("inf")
        adm.script.add({"on": "token", "json": {"access_token": ADM_TOKEN, "expires_in": 3600}})

    async def other_step(self, run: Run, do: JSON) -> None:
        if "the push service answers" in do:
            self.stand_in.script.add({"times": 1000, **do["the push service answers"]})
            return
        found = re.fullmatch(r"an? (\w+) user is registered", do.get("setup", ""))
        if found is None:
            await super().other_step(run, do)
            return
        await self._register(run, found[1], do["body"])

    async def _register(self, run: Run, router_type: str, body: JSON) -> None:
        self.stand_in = self.mock[
            "fcm_legacy" if router_type == "fcm" and self.legacy else router_type
        ]
        device = f"{router_type}-token-{uuid.uuid4()}"
        if router_type == "adm":
            device = "amzn1.adm-registration.v3." + uuid.uuid4().hex * 8
        run.labels.values["device"] = device
        answer = await run.http(
            {
                "http": f"POST {{endpoint}}/v1/{router_type}/{APPS[router_type]}/registration",
                "body": json.dumps(body),
            }
        )
        assert answer["status"] == 200, answer
        content = json.loads(answer["text"])
        run.labels.values |= {
            "uaid": content["uaid"],
            "secret": content["secret"],
            "channelID": content["channelID"],
            "token": content["endpoint"].rpartition("/")[2],
        }

    def seen(self) -> list[JSON]:
        """What the vendor got, as it was recorded."""
        return [
            {
                "path": one["path"],
                "host": HOSTS[self.stand_in.name],
                "body": abbreviate(one["payload"]),
                "headers": {
                    name: one["headers"][name]
                    for name in RECORDED_HEADERS
                    if name in one["headers"]
                },
            }
            for one in self.stand_in.messages
        ]


async def _seen(run: Run) -> Any:
    environment = run.environment
    assert isinstance(environment, BridgeEnvironment)
    return environment.seen()


async def _count(run: Run) -> Any:
    return len(await _seen(run))


OBSERVERS["seen by the push service"] = _seen
OBSERVERS["requests seen"] = _count


def with_whole_bodies(case: JSON) -> JSON:
    """Return a case whose requests aren't abbreviated."""
    steps = [
        {**step, "do": {**step["do"], "body": expand(step["do"]["body"])}}
        if isinstance(step["do"].get("body"), str)
        else step
        for step in case["steps"]
    ]
    return {**case, "steps": steps}
