"""Turns the steps of a recorded case into requests, frames and files, and compares the answers.

What a case ``needs`` beyond the service itself comes from its :class:`Environment`: a subclass that
has a storage to seed, or bridges to talk to, adds the names to ``provides`` and the steps and
observations to the tables.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx
from cryptography.fernet import Fernet
from py_vapid.jwt import sign as sign_jwt
from websockets.exceptions import ConnectionClosed

from autopush.tests.conformance.deviations import DEVIATIONS, error_as_recorded, header_as_fixed
from autopush.tests.conformance.labels import Labels, Mismatch, dashed
from autopush.tests.e2e.clients import (
    JSON,
    PATIENCE,
    QUIET,
    UserAgent,
    VapidSender,
    b64decode,
)
from autopush.tests.e2e.harness import Server
from autopush.tests.e2e.raw import frame_head

GRACE = 0.05
"""Seconds in which a frame too many, or an end that should not be, would show."""

ANSWER_WITHIN = PATIENCE
"""Seconds until a missing answer counts as ``timeout``."""

RAW_FRAMES = {"rsv2": frame_head(2, first=0x81 | 0x20) + b"{}"}
"""Frames no library sends."""

HANDSHAKES = {"upgrade h2c": {"Upgrade": "h2c"}}
"""Opening handshakes: what replaces the headers of a good one."""

HANDSHAKE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}

JWT_VARIANTS: dict[str, Callable[[VapidSender, JSON], str]] = {
    "claims list": lambda sender, claims: sign_jwt([1, 2], sender.private),
    "empty signature": lambda sender, claims: (
        sign_jwt(claims, sender.private).rpartition(".")[0] + "."
    ),
}
"""The tokens of the ``JWT: <variant>; ...`` cases."""

Answer = dict[str, Any]


class Environment:
    """A running service and what surrounds it."""

    provides: ClassVar[frozenset[str]] = frozenset(
        {"router", "crypto_key", "auth_key", "restart", "serial", "slow"}
    )

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def addresses(self) -> dict[str, str]:
        """Values of the placeholders in braces."""
        server = self.server
        return {
            "endpoint": server.endpoint_url,
            "ws": server.ws_url,
            "router": server.router_url,
        }

    @property
    def fernet(self) -> Fernet:
        """Seals what the service will open."""
        return Fernet((self.server.data_dir / "crypto_key").read_text().strip())

    async def restart(self) -> None:
        """Stop the service and start it again."""
        await asyncio.to_thread(self.server.restart)

    async def other_step(self, run: Run, do: JSON) -> None:
        """Steps of environments with more in them."""
        raise NotImplementedError(f"no such step: {do}")


class Run:
    """One case being run."""

    def __init__(self, case: JSON, environment: Environment) -> None:
        self.case = case
        self.environment = environment
        self.labels = Labels(self._make_label, environment.addresses)
        self.client = httpx.AsyncClient(trust_env=False, timeout=ANSWER_WITHIN)
        self.agents: dict[str, UserAgent] = {}
        self.sender = VapidSender()
        self.claims: JSON = {}
        self.note = ""
        self.offered_uaid: Any = None
        self.statuses: list[int] = []
        self.frames: list[JSON] = []

    async def run(self) -> None:
        """Run all steps.

        :raises Mismatch: an answer differs
        """
        deviation = DEVIATIONS.get(self.case["id"])
        slept = False
        try:
            for number, step in enumerate(self.case["steps"]):
                if deviation is not None and deviation.step == number:
                    step = {
                        "do": {**step["do"], **deviation.do},
                        "expect": {**step["expect"], **deviation.expect},
                    }
                where = f"step {number} {next(iter(step['do']))}"
                if slept and "observe" in step["do"]:
                    await self._observe_at_last(step, where)
                else:
                    answer = await self._do(step["do"])
                    if "expect" in step:
                        self._check(step, answer, where)
                slept = "sleep" in step["do"]
        finally:
            await self.client.aclose()
            for agent in self.agents.values():
                await agent.close()

    async def _do(self, do: JSON) -> Any:
        for kind, function in STEPS.items():
            if kind in do:
                return await function(self, do)
        return await self.environment.other_step(self, do)

    async def _observe_at_last(self, step: JSON, where: str) -> None:
        """Observe until all is as recorded. That is what was slept for, and may take longer."""
        end = time.monotonic() + PATIENCE
        while True:
            answer = await self._do(step["do"])
            try:
                self._check(step, answer, where)
                return
            except Mismatch:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.05)

    # ---- labels of requests

    def _make_label(self, label: str) -> str:
        if label.startswith("fernet:"):
            return self.labels.values["token"][: int(label.removeprefix("fernet:"))]
        return MAKERS[label](self)

    def _make_jwt(self) -> str:
        claims: JSON = {
            "aud": self.environment.server.endpoint_url,
            "sub": "mailto:ops@example.com",
        }
        claims |= {"exp": int(time.time()) + 3600, **self.claims}
        title = re.match(r"JWT: ([^;]+);", self.case["title"])
        if title is None:
            return sign_jwt(claims, self.sender.private)
        return JWT_VARIANTS[title[1]](self.sender, claims)

    def _make_sealed(self) -> str:
        size = re.search(r"token of (\d+) bytes", self.case["title"])
        if size is not None:
            token = self.environment.fernet.encrypt(os.urandom(int(size[1])))
            return token.decode().rstrip("=")
        text = self.labels.fill(self.note.removeprefix("the id seals: "))
        return self.environment.fernet.encrypt(text.encode()).decode()

    # ---- steps

    async def setup(self, do: JSON) -> None:
        wanted = re.fullmatch(
            r"a user agent says hello and registers a channel( with an application key)?;"
            r" it is (connected|then disconnected)",
            do["setup"],
        )
        if wanted is None:
            await self.environment.other_step(self, do)
            return
        agent = await self._open("ws")
        subscription = await agent.register(self.sender.public_key if wanted[1] else None)
        self.labels.values |= {
            "uaid": agent.uaid or "",
            "chid": subscription.channel,
            "token": subscription.endpoint.rpartition("/")[2],
        }
        if wanted[2] != "connected":
            await self.agents.pop("ws").close()

    async def set_note(self, do: JSON) -> None:
        self.claims = {k: v for k, v in do["claims"].items() if v != "<number>"}

    async def http(self, do: JSON) -> Answer:
        self.note = do.get("note", "")
        method, url = self.labels.fill(do["http"]).split(" ", 1)
        headers = [tuple(pair) for pair in self.labels.fill(do.get("headers", []))]
        body = self.labels.fill(do.get("body", ""))
        try:
            response = await self.client.request(method, url, headers=headers, content=body)
        except httpx.TimeoutException:
            return {"error": "timeout"}
        return {
            "status": response.status_code,
            "headers": dict(response.headers),
            "text": response.text,
        }

    async def raw_http(self, do: JSON) -> Answer:
        assert do["raw_http"] == "POST and OPTIONS in one segment"
        url = urlsplit(self.labels.fill("{endpoint}/wpush/v1/<token>"))
        lines = f"{url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nTTL: 60\r\nContent-Length: 0\r\n\r\n"
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(f"POST {lines}OPTIONS {lines}".encode())
        answers = [await read_answer(reader) for _ in range(2)]
        writer.close()
        return {"answers": answers}

    async def post(self, do: JSON) -> None:
        count, first = re.fullmatch(  # type: ignore[union-attr]
            r"(\d+) messages with bodies m(\d+)\.\.m\d+", do["post"]
        ).groups()
        for number in range(int(first), int(first) + int(count)):
            answer = await self.http(
                {
                    "http": "POST {endpoint}/wpush/v1/<token>",
                    "headers": [["TTL", "60"], ["Content-Encoding", "aes128gcm"]],
                    "body": f"m{number:03}",
                }
            )
            self.statuses.append(answer["status"])
        self.frames = await self.agents["ws"].receive_all(int(count))

    async def websocket(self, do: JSON) -> Any:
        name = do["ws"]
        (action,) = set(do) - {"ws"}
        return await WEBSOCKET_STEPS[action](self, name, do[action])

    async def handshake(self, do: JSON) -> Answer:
        headers = {**HANDSHAKE, **HANDSHAKES[do["handshake"]]}
        url = self.environment.server.ws_url.replace("ws:", "http:")
        try:
            response = await self.client.get(url, headers=headers)
        except httpx.RemoteProtocolError:
            return {"error": "closed"}
        return {"status": response.status_code, "headers": {}, "text": response.text}

    async def sleep(self, do: JSON) -> None:
        await asyncio.sleep(do["sleep"])

    async def restart(self, do: JSON) -> None:
        await self.environment.restart()

    async def observe(self, do: JSON) -> Answer:
        return {"value": await OBSERVERS[do["observe"]](self)}

    # ---- WebSocket steps

    async def _open(self, name: str, uaid: str | None = None, hello: bool = True) -> UserAgent:
        agent = await UserAgent.open(self.environment.server.ws_url, uaid, hello=hello)
        self.agents[name] = agent
        return agent

    async def _agent(self, name: str, says_hello: bool = False) -> UserAgent:
        """A connection; unless the case says hello itself, we do when it opens."""
        return self.agents.get(name) or await self._open(name, hello=not says_hello)

    async def ws_send(self, name: str, message: JSON) -> None:
        says_hello = message.get("messageType") == "hello"
        agent = await self._agent(name, says_hello)
        filled = self.labels.fill(message)
        if says_hello:
            self.offered_uaid = filled.get("uaid")
        await agent.send(filled)

    async def ws_send_text(self, name: str, text: str) -> None:
        says_hello = json.loads(text).get("messageType") == "hello"
        await (await self._agent(name, says_hello)).ws.send(text)

    async def ws_send_raw(self, name: str, frame: str) -> None:
        (await self._agent(name)).ws.transport.write(RAW_FRAMES[frame])

    async def ws_hello_again(self, name: str, uaid: str) -> None:
        offered = self.labels.fill(uaid)
        agent = await self._open(name, offered)
        if agent.uaid != offered:
            raise Mismatch("another UAID was issued")

    async def ws_disconnect(self, name: str, _: Any) -> None:
        await self.agents.pop(name).close()

    async def ws_wait_for(self, name: str, what: str) -> Answer:
        count, the_end = re.fullmatch(r"(\d+) message\(s\)( and the end)?", what).groups()  # type: ignore[union-attr]
        agent = self.agents[name]
        frames: list[JSON] = []
        answer: Answer = {"frames": frames, "closed": False}
        wanted = int(count)
        try:
            while the_end or len(frames) < wanted:
                frames.append({"json": await agent.receive()})
            extra = await agent.receive(timeout=GRACE if wanted else QUIET)
            frames.append({"json": extra})
        except TimeoutError:
            if the_end or len(frames) < wanted:
                raise Mismatch(f"{len(frames)} messages came") from None
        except ConnectionClosed as end:
            answer["closed"] = True
            if end.rcvd is not None and end.rcvd.code >= 4000:
                answer["code"] = end.rcvd.code
        return answer

    # ---- comparing

    def _check(self, step: JSON, answer: Answer, where: str) -> None:
        try:
            self._compare(step["expect"], answer, where)
        except Mismatch:
            accepted = [*step.get("also", ())]
            if "reference_bug" in step:
                accepted.append("clean4xx")
            if not any(ALSO[kind](answer) for kind in accepted):
                raise

    def _compare(self, expect: Answer, answer: Answer, where: str) -> None:
        if "status" in expect or "answers" in expect:
            self._compare_http(expect, answer, where)
        else:
            self.labels.match(expect, answer, where)

    def _compare_http(self, expect: Answer, answer: Answer, where: str) -> None:
        if "answers" in expect:
            pairs = zip(expect["answers"], answer["answers"], strict=True)
            for number, (one, other) in enumerate(pairs):
                self._compare(one, other, f"{where} answer {number}")
            return
        if answer.get("status") != expect["status"]:
            raise Mismatch(f"{where}: {answer}, recorded status {expect['status']}")
        for name, value in expect.get("headers", {}).items():
            actual = answer["headers"].get(name)
            items = header_as_fixed(name, value)
            if items is not None and actual is not None:
                if set(actual.split(",")) != items:
                    raise Mismatch(f"{where}: {name}: {actual}, wanted {items}")
            else:
                self.labels.match(value, actual, f"{where} {name}")
        if "json" in expect:
            body = error_as_recorded(expect["json"], json.loads(answer["text"]))
            self.labels.match(expect["json"], body, f"{where} body")
        if "text" in expect:
            self.labels.match(expect["text"], answer["text"], f"{where} body")


async def read_answer(reader: asyncio.StreamReader, timeout: float = ANSWER_WITHIN) -> Answer:
    """Read one HTTP answer off a connection."""
    try:
        async with asyncio.timeout(timeout):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")
            headers = {}
            for line in lines[1:-2]:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = await reader.readexactly(int(headers.get("content-length", 0)))
    except TimeoutError:
        return {"error": "timeout"}
    except asyncio.IncompleteReadError:
        return {"error": "closed"}
    return {"status": int(lines[0].split()[1]), "headers": headers, "text": body.decode()}


# ------------------------------------------------------------------------- other kinds of answers


def _is_error_json(answer: Answer) -> bool:
    if answer.get("status", 0) < 400:
        return False
    body = json.loads(answer["text"])
    return body["code"] == answer["status"] and {"errno", "error", "more_info"} <= set(body)


def _is_clean_4xx(answer: Answer) -> bool:
    return 400 <= answer.get("status", 0) < 500


def _is_ws_error(answer: Answer) -> bool:
    frames = answer.get("frames", [])
    return len(frames) == 1 and frames[0]["json"].get("status", 0) >= 400 and not answer["closed"]


ALSO: dict[str, Callable[[Answer], bool]] = {
    "any": lambda answer: True,
    "error_json": _is_error_json,
    "clean4xx": _is_clean_4xx,
    "ws_error": _is_ws_error,
    "closed": lambda answer: answer.get("error") == "closed",
}

# ------------------------------------------------------------------------------ what is observed


def _endpoint_path(run: Run) -> list[str]:
    return urlsplit(run.labels.fill("{endpoint}/wpush/v1/<fernet:140>")).path.split("/")


def _plaintext(run: Run) -> bytes:
    token = run.labels.values["fernet:140"]
    return run.environment.fernet.decrypt((token + "=" * (-len(token) % 4)).encode())


async def _old_secret_still_works(run: Run) -> int:
    answer = await run.http(
        {
            "http": "GET {endpoint}/v1/webpush/app/registration/<uaid>",
            "headers": [["Authorization", "webpush <secret>"]],
        }
    )
    return int(answer["status"])


def _now(function: Callable[[Run], Any]) -> Callable[[Run], Awaitable[Any]]:
    async def observe(run: Run) -> Any:
        return function(run)

    return observe


OBSERVERS: dict[str, Callable[[Run], Awaitable[Any]]] = {
    "statuses": _now(lambda run: sorted(set(run.statuses))),
    "order": _now(lambda run: [b64decode(frame["data"]).decode() for frame in run.frames]),
    "the offered uaid was taken": _now(lambda run: run.labels.values["uaid"] == run.offered_uaid),
    "the new uaid is 32 lower case hex digits": _now(
        lambda run: re.fullmatch("[0-9a-f]{32}", run.labels.values["uaid"]) is not None
    ),
    "token padding was stripped": _now(
        lambda run: not run.labels.values["fernet:140"].endswith("=")
    ),
    "path version": _now(lambda run: _endpoint_path(run)[:3]),
    "token length": _now(lambda run: len(_plaintext(run))),
    "token names the channel": _now(
        lambda run: dashed(_plaintext(run)[16:].hex()) == run.labels.values["chid"]
    ),
    "status": _old_secret_still_works,
}

STEPS: dict[str, Callable[[Run, JSON], Awaitable[Any]]] = {
    "setup": Run.setup,
    "claims": Run.set_note,
    "http": Run.http,
    "raw_http": Run.raw_http,
    "post": Run.post,
    "ws": Run.websocket,
    "handshake": Run.handshake,
    "sleep": Run.sleep,
    "restart": Run.restart,
    "observe": Run.observe,
}

WEBSOCKET_STEPS: dict[str, Callable[[Run, str, Any], Awaitable[Any]]] = {
    "send": Run.ws_send,
    "send_text": Run.ws_send_text,
    "send_raw": Run.ws_send_raw,
    "hello_again": Run.ws_hello_again,
    "disconnect": Run.ws_disconnect,
    "wait_for": Run.ws_wait_for,
}

MAKERS: dict[str, Callable[[Run], str]] = {
    "chid": lambda run: str(uuid.uuid4()),
    "hex32": lambda run: uuid.uuid4().hex,
    "hex64": lambda run: os.urandom(32).hex(),
    "appkey": lambda run: run.sender.public_key,
    "jwt": Run._make_jwt,
    "sealed": Run._make_sealed,
}
