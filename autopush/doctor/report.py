"""What a check looks at and what it says."""

from __future__ import annotations

import enum
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import NamedTuple

import attrs

from autopush.config import AutopushConfig


class Level(enum.StrEnum):
    """How bad it is. Only ``FAIL`` makes the exit status 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Result(NamedTuple):
    """The outcome of one check."""

    level: Level
    name: str
    text: str

    @property
    def line(self) -> str:
        """How it is printed."""
        return f"{self.level:<4}  {self.name}: {' '.join(self.text.split())}"


def ok(name: str, text: str) -> Result:
    """All is well."""
    return Result(Level.OK, name, text)


def warn(name: str, text: str) -> Result:
    """It may be meant so."""
    return Result(Level.WARN, name, text)


def fail(name: str, text: str) -> Result:
    """It can't work like this."""
    return Result(Level.FAIL, name, text)


@attrs.define
class Subject:
    """One command with its options.

    :ivar command: ``autopush``, ``autoendpoint`` or ``autopush_standalone``
    :ivar has_user_agents: it takes WebSockets
    :ivar has_api: it serves the HTTP API
    """

    command: str
    ns: Namespace
    conf: AutopushConfig

    @property
    def is_standalone(self) -> bool:
        """Whether it is all in one process, with a data directory."""
        return self.command == "autopush_standalone"

    @property
    def has_user_agents(self) -> bool:
        return self.command != "autoendpoint"

    @property
    def has_api(self) -> bool:
        return self.command != "autopush"

    @property
    def has_internal_url(self) -> bool:
        """Whether other nodes are told how to reach this one."""
        return self.has_user_agents and bool(self.conf.router_port)


Check = Callable[[Subject], Iterable[Result]]


def plural(count: int, noun: str) -> str:
    """``1 key``, ``2 keys``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
