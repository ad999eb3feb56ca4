"""What a stand-in is: a server that notes requests and takes its answers from a script.

An answer is a JSON object; every member is optional:

=========== ==========================================================================
``status``   HTTP status
``headers``  object, added to or replacing those of the answer
``body``     text
``json``     anything; instead of ``body``
``delay``    seconds before the answer
``held``     true: the answer waits for :meth:`Script.release`, which tests in the same
             process call when they have seen enough, however long that takes
``action``   what happens instead of an answer: ``hang`` (nothing), ``reset`` (TCP RST),
             ``close``, ``close_mid_body``, ``garbage``; stand-ins may know more
``times``    how many requests are answered like this, default 1
=========== ==========================================================================

What is missing is as the vendor would do it: ``{"delay": 2}`` is a slow but correct answer. Members
of other names are for the stand-in, for example ``reason`` with APNs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from automock.certs import Authority

KEPT = 10_000
"""Requests remembered; older ones are forgotten."""

ACTIONS = frozenset(("hang", "reset", "close", "close_mid_body", "garbage"))


class Gate:
    """What held answers wait at. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], object]] = []
        self._open = False

    def pass_through(self, go: Callable[[], object]) -> None:
        """Call ``go`` when the gate opens, in the thread that opens it; at once if it is open."""
        with self._lock:
            if not self._open:
                self._waiting.append(go)
                return
        go()

    def open(self) -> None:
        """Let all pass, from now on."""
        with self._lock:
            self._open = True
            waiting, self._waiting = self._waiting, []
        for go in waiting:
            go()


@dataclass
class Answer:
    """One entry of a script; see above."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    json: Any = None
    delay: float = 0.0
    held: bool = False
    gate: Gate = field(default_factory=Gate)
    action: str | None = None
    times: int = 1
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, content: Mapping[str, Any], actions: frozenset[str] = ACTIONS) -> Answer:
        """Return the answer an object describes.

        :raises ValueError: a member is of the wrong type, or the action unknown
        """
        known: dict[str, Any] = {}
        more: dict[str, Any] = {}
        for name, value in content.items():
            kind = _TYPES.get(name)
            if kind is None:
                more[name] = value
            elif not isinstance(value, kind) or (
                isinstance(value, bool) and name not in ("json", "held")
            ):
                raise ValueError(f"{name} is of the wrong type")
            else:
                known[name] = value
        if known.get("action") is not None and known["action"] not in actions:
            raise ValueError(f"unknown action, not one of {', '.join(sorted(actions))}")
        if known.get("times", 1) < 1 or known.get("delay", 0) < 0:
            raise ValueError("times must be at least 1, delay at least 0")
        return cls(**known, more=more)


_TYPES: dict[str, Any] = {
    "status": int,
    "headers": dict,
    "body": str,
    "json": object,
    "delay": (int, float),
    "held": bool,
    "action": str,
    "times": int,
}


class Script:
    """The next answers, and the requests so far. May be used from several threads."""

    def __init__(self, actions: frozenset[str] = ACTIONS) -> None:
        self._actions = actions
        self._answers: deque[Answer] = deque()
        self._gates: list[Gate] = []
        self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def add(self, answers: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
        """Queue one answer or several.

        :raises ValueError: one can't be used; nothing is queued then
        """
        several = [answers] if isinstance(answers, Mapping) else list(answers)
        if not all(isinstance(one, Mapping) for one in several):
            raise ValueError("an answer must be an object")
        parsed = [Answer.parse(one, self._actions) for one in several]
        self._gates += [answer.gate for answer in parsed if answer.held]
        self._answers.extend(parsed)

    def release(self) -> None:
        """Give the answers that are held, and hold none of those queued so far."""
        gates, self._gates = self._gates, []
        for gate in gates:
            gate.open()

    def next(self) -> Answer | None:
        """Take the answer for a request; None: none is scripted."""
        if not self._answers:
            return None
        answer = self._answers[0]
        answer.times -= 1
        if answer.times <= 0:
            self._answers.popleft()
        return answer

    def saw(self, request: dict[str, Any]) -> None:
        """Remember a request."""
        self.requests.append(request)

    def reset(self) -> None:
        """Forget answers and requests; what is held is answered."""
        self.release()
        self._answers.clear()
        self.requests.clear()

    @property
    def waiting(self) -> int:
        """Requests that will still be answered by the script."""
        return sum(answer.times for answer in self._answers)


class StandIn:
    """One vendor's service.

    :param directory: for files that options name
    :param authority: signs the server's certificate
    :param host: address to listen on
    :param port: 0: any free one
    """

    name: ClassVar[str]
    actions: ClassVar[frozenset[str]] = ACTIONS

    def __init__(
        self, directory: Path, authority: Authority, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.directory = directory
        self.authority = authority
        self.host = host
        self.port = port
        self.script = Script(self.actions)

    async def start(self) -> None:
        """Listen; sets :attr:`port`."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Return the daemons' options that point them here: texts, numbers or JSON objects."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the daemons' variables that do what no option can."""
        return {}

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change how the service behaves until the next :meth:`reset`.

        :raises ValueError: no such setting, or a wrong value
        """
        if settings:
            raise ValueError(f"{self.name} has no settings")

    def reset(self) -> None:
        """Back to the state after the start; connections stay."""
        self.script.reset()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://{self.host}:{self.port}"
