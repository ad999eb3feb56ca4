"""Files of options (spec/configuration 2.3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import IO, Any

import configargparse

from autopush.options.bridges import option_groups
from autopush.options.standalone import STANDALONE
from autopush.options.suggestions import did_you_mean, plain
from autopush.options.tables import CONNECTION, ENDPOINT, SHARED

ONE_LINE = "Each option has one line; several values are one list: [newest, older]"
HEADINGS = "Sections are headings only; those known are the titles in --help"

_TITLE = re.compile(r"\[\s*([A-Za-z][\w .()-]{0,32})\s*\]")
"""What is shown of a line in brackets. Anything else may be keys."""


def section_names() -> set[str]:
    """Return what a section may be called: after commands, their files, groups of options."""
    parts = ("shared", "connection", "endpoint", "standalone")
    commands = ("autopush", "autoendpoint", "autopush_standalone", "default", "options")
    groups = (*SHARED, CONNECTION, ENDPOINT, *STANDALONE, *option_groups())
    return {*parts, *commands, *(f"autopush_{part}" for part in parts), *(g[0] for g in groups)}


class Key(str):
    """A key in a file, which knows where it stands.

    :ivar place: file and line, for people
    """

    place: str

    def __new__(cls, name: str, place: str) -> Key:
        key = super().__new__(cls, name)
        key.place = place
        return key


class ConfigFile(configargparse.DefaultConfigFileParser):
    """A line is an option; what 1.58.3 passed over in silence is told.

    :param complete: returns a key as it is spelled in the tables
    :param option: returns what a key sets, so that two keys of one option are found
    :param tell: is given a text, where that is, and a hint, when a file is not what it seems: a
        key comes twice, a section means nothing
    """

    def __init__(
        self,
        complete: Callable[[str], str],
        option: Callable[[str], str],
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._complete = complete
        self._option = option
        self._tell = tell

    def get_syntax_description(self) -> str:
        return "Config file syntax: key = value, flag = true, list = [a, b]; # starts a comment."

    def parse(self, stream: IO[str]) -> dict[str, Any]:
        """Return the settings of one file; of a key that comes twice the last.

        :raises configargparse.ConfigFileParserException: unreadable or malformed
        """
        name = getattr(stream, "name", "file")
        items: dict[str, Any] = {}
        lines: dict[str, int] = {}
        try:
            for number, key, value in self._settings(stream, name):
                first = lines.setdefault(self._option(key), number)
                if first != number:
                    self._tell(f"{key} is set in line {first} already", key.place, ONE_LINE)
                items.pop(key, None)  # whose place is that of the earlier line
                items[key] = without_empty(value)
        except (OSError, UnicodeDecodeError) as exc:
            raise configargparse.ConfigFileParserException(f"Can't read {name}: {exc}") from exc
        return items

    def _settings(self, stream: IO[str], name: str) -> Iterator[tuple[int, Key, Any]]:
        """Yield the number of a line, its key and its value.

        :raises configargparse.ConfigFileParserException: a line has no key
        """
        for number, line in enumerate(stream, 1):
            place = f"{name}, line {number}"
            self._look_at_section(line.strip(), place)
            try:
                settings = super().parse([line])
            except configargparse.ConfigFileParserException:
                text = f"Unexpected line {number} in {name}: {line.strip()}"
                raise configargparse.ConfigFileParserException(text) from None
            for key, value in settings.items():
                yield number, Key(self._complete(key), place), value

    def _look_at_section(self, line: str, place: str) -> None:
        """Tell of a section that nothing is called, which may be meant for another program."""
        if not line.startswith("["):
            return
        match = _TITLE.match(line)
        if match is None:
            self._tell("a line in brackets that is no section has no effect", place, HEADINGS)
            return
        title = match[1].strip()
        known = section_names()
        if plain(title).lower() not in {plain(name).lower() for name in known}:
            text = f"unknown section [{title}], whose lines are read as any others"
            self._tell(text, place, did_you_mean(title, known) or HEADINGS)


def without_empty(value: Any) -> Any:
    """Return a list without its empty elements, anything else as it is."""
    return [item for item in value if item != ""] if isinstance(value, list) else value
