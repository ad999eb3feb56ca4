"""The commands: what they are called and where they read their options (spec/configuration 1)."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from autopush.options.parser import parse_connection, parse_endpoint, parse_standalone


class Parse(Protocol):
    """Reads the options of a command."""

    def __call__(
        self, config_files: Sequence[str], args: Sequence[str] | None = None
    ) -> Namespace: ...


class Command(NamedTuple):
    """One of the servers."""

    name: str
    """Of the console script."""
    parse: Parse
    config_files: tuple[str, ...]
    """Read where they exist, lowest priority first."""


def _files(name: str) -> tuple[str, ...]:
    places = ("/etc/", "configs/", "~/.", ".")
    return tuple(f"{place}autopush_{name}.ini" for place in places)


SHARED_FILES = _files("shared")
"""What both daemons of a cluster read first."""

CONNECTION = Command("autopush", parse_connection, (*SHARED_FILES, *_files("connection")))
ENDPOINT = Command("autoendpoint", parse_endpoint, (*SHARED_FILES, *_files("endpoint")))
STANDALONE = Command(
    "autopush_standalone",
    parse_standalone,
    _files("standalone"),
)

COMMANDS = {command.name: command for command in (CONNECTION, ENDPOINT, STANDALONE)}
