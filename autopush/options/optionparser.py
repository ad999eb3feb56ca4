"""How options are read: command line, variables, files, and what is said of a wrong one.

Source: spec/configuration 2 (how options are read). The parsers of the commands are in
:mod:`autopush.options.parser`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import IO, Any, NoReturn

import configargparse

from autopush import __version__
from autopush.options.files import ConfigFile, Key, without_empty
from autopush.options.places import Options
from autopush.options.standalone import STANDALONE
from autopush.options.suggestions import did_you_mean, plain
from autopush.options.tables import CONNECTION, ENDPOINT

COMMAND_LINE = "command line"
FLAG_VALUES = ("true", "false", "yes", "no", "on", "off", "1", "0")
VERSION = f"autopush {__version__}"

EMPTY_MEANS = {"STATSD_HOST"}
"""Variables that say something when they are empty (this one: no statsd), as ever
(spec/configuration 2.5). Every other empty variable is none."""
"""What ``--version`` of every command prints."""

Examples = Sequence[tuple[str, str]]
"""Command lines, and what each does."""


class SwitchAction(argparse.BooleanOptionalAction):
    """``--name`` / ``--no_name`` (argparse's own spells the second with a dash)."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        argparse.Action.__init__(self, [f"--{dest}", f"--no_{dest}"], dest, nargs=0, **kwargs)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


class HelpFormatter(argparse.HelpFormatter):
    """Options aligned for names of our length."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, max_help_position=32, **kwargs)


def with_examples(text: str, examples: Examples) -> str:
    """Return a help text that ends with examples."""
    lines = [f"  {line}\n      {meaning}" for line, meaning in examples]
    return "\n".join([text, "examples:", *lines, ""]) if lines else text


def owner(name: str) -> str | None:
    """Return the command that knows an option others do not; None: none does."""
    tables = {
        "autopush": (CONNECTION,),
        "autoendpoint": (ENDPOINT,),
        "autopush_standalone": STANDALONE,
    }
    for command, groups in tables.items():
        if any(plain(row.name) == plain(name) for _, rows in groups for row in rows):
            return command
    return None


class OptionParser(configargparse.ArgumentParser):
    """ConfigArgParse with the "choose" column of spec/configuration 2.7.

    :param examples: for the end of the help text
    :param strict_files: whether what a file says twice, or under a section nothing is called, is an
        error; else a warning, because 1.58.3 started with it
    :ivar spellings: of all options, with their actions
    :ivar repeatable: the spellings of those that may be given more than once
    """

    def __init__(
        self, *, examples: Examples = (), strict_files: bool = False, **kwargs: Any
    ) -> None:
        self.examples = examples
        self.strict_files = strict_files
        self.spellings: dict[str, argparse.Action] = {}
        self.repeatable: set[str] = set()
        self._sources: dict[str, str] = {}
        self._where = ""
        super().__init__(
            formatter_class=HelpFormatter,
            exit_on_error=False,
            config_file_open_func=self._open_config_file,
            config_file_parser_class=ConfigFile(self._complete_key, self._option_of, self._tell),
            **kwargs,
        )
        self.add_argument(
            "--version", action="version", version=VERSION, help="print the version and exit"
        )

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """Add an option; it can be abbreviated from now on."""
        action: argparse.Action = super().add_argument(*args, **kwargs)
        self.note(action)
        return action

    def note(self, action: argparse.Action, repeatable: bool = False) -> None:
        """Remember an option, also one that was added to a group."""
        self.spellings.update(dict.fromkeys(action.option_strings, action))
        if repeatable:
            self.repeatable.update(action.option_strings)

    def format_help(self) -> str:
        return with_examples(super().format_help(), self.examples)

    # -------------------------------------------------------------------------- reading

    def parse_args(self, *args: Any, **kwargs: Any) -> argparse.Namespace:
        """Read the options; what is not known ends the command with status 2."""
        ns = Options()
        _, unknown = self.parse_known_args(*args, namespace=ns, **kwargs)
        if unknown:
            self._refuse_unknown(unknown)
        ns.places = dict(self._sources)
        return ns

    def parse_known_args(
        self, args: Iterable[str] | None = None, *rest: Any, **kwargs: Any
    ) -> tuple[Any, list[str]]:
        """Spell options out first, and leave out empty variables.

        Otherwise the command line would not win over lists from variables and files.
        """
        self._sources.clear()
        spelled = list(self._spelled(sys.argv[1:] if args is None else args))
        if "--version" in takewhile(lambda arg: arg != "--", spelled):
            print(VERSION)  # whatever is in the files, as --help
            self.exit()
        variables = kwargs.pop("env_vars", os.environ)
        kwargs["env_vars"] = {
            name: value for name, value in variables.items() if value or name in EMPTY_MEANS
        }
        try:
            known: tuple[Any, list[str]] = super().parse_known_args(spelled, *rest, **kwargs)
        except argparse.ArgumentError as exc:
            self._refuse_value(exc)
        for arg in takewhile(lambda arg: arg != "--", spelled):
            action = self.spellings.get(arg.partition("=")[0])
            if action is not None:
                self._sources[action.dest] = COMMAND_LINE
        return known

    def _spelled(self, args: Iterable[str]) -> Iterator[str]:
        """Yield the command line with names as in the tables.

        ``--crypto_key KEY`` becomes ``--crypto_key=KEY``: a key may start with a dash.
        """
        rest = iter(args)
        for arg in rest:
            if arg == "--":
                yield arg
                yield from rest
                return
            arg = self._spelled_out(arg)
            while arg in self.repeatable:
                value = next(rest, None)
                if value is None:
                    break
                if len(self._matches(value.partition("=")[0])) == 1:
                    yield arg
                    arg = self._spelled_out(value)
                else:
                    arg = f"{arg}={value}"
            yield arg

    def _spelled_out(self, arg: str) -> str:
        """Return an argument with its option's name in full: ``-p5``, ``--por=5``."""
        short = self.spellings.get(arg[:2])
        if short is not None and not arg.startswith("--"):
            glued = len(arg) > 2 and short.nargs != 0
            return f"{short.option_strings[-1]}={arg[2:].removeprefix('=')}" if glued else arg
        name, equals, value = arg.partition("=")
        matches = self._matches(name)
        if len(matches) > 1:
            self._where = COMMAND_LINE
            self._refuse_ambiguous(name, matches)
        return f"{matches[0]}{equals}{value}" if matches else arg

    def _matches(self, name: str) -> list[str]:
        """Return the options that a name stands for: one, or those it may abbreviate."""
        if name in self.spellings:
            return [name]
        if not name.startswith("--") or name == "--":
            return []
        long = {option: plain(option) for option in self.spellings if option.startswith("--")}
        same = [option for option, text in long.items() if text == plain(name)]
        return same or [option for option, text in long.items() if text.startswith(plain(name))]

    # ------------------------------------------------------------------ variables and files

    def convert_item_to_command_line_arg(self, action: Any, key: str, value: Any) -> list[str]:
        """Return what a variable or a line of a file would be on the command line."""
        self._where = key.place if isinstance(key, Key) else f"environment variable {key}"
        if action is None:
            self._refuse_unknown([key])
        args = self._converted(action, key, value)
        if args:
            self._sources.setdefault(action.dest, self._where)
        self._where = ""
        return args

    def _converted(self, action: Any, key: str, value: Any) -> list[str]:
        if isinstance(action, SwitchAction) and key.lstrip("-").startswith("no_"):
            positive = super().convert_item_to_command_line_arg(action, key, value)
            off, on = action.option_strings[1], action.option_strings[0]
            return [off if positive == [on] else on]
        if isinstance(value, list) and self.repeatable.intersection(action.option_strings):
            value = without_empty(value)
        if action.nargs == 0 and str(value).lower() not in FLAG_VALUES:
            expected = f"Expecting one of {', '.join(FLAG_VALUES)}"
            self.error(
                f"Unexpected value for {key}: '{value}'. {expected}",
                did_you_mean(str(value), FLAG_VALUES),
            )
        return list(super().convert_item_to_command_line_arg(action, key, value))

    def _open_config_file(self, path: str, mode: str = "r") -> IO[str]:
        try:
            return open(path, mode, encoding="utf-8-sig")
        except OSError as exc:
            self.error(f"Unable to open config file: {exc}")

    def _complete_key(self, key: str) -> str:
        """Return the option's name for another spelling or an abbreviation, else ``key``."""
        name = f"--{key.lstrip('-')}"
        matches = self._matches(name)
        return matches[0][2:] if len(matches) == 1 and matches != [name] else key

    def _option_of(self, key: str) -> str:
        """Return what is the same for all keys of an option."""
        action = self.spellings.get(f"--{key.lstrip('-')}")
        return key if action is None else action.dest

    def _tell(self, text: str, place: str, hint: str) -> None:
        """Say that a file is not what it seems."""
        if self.strict_files:
            self._where = place
            self.error(text, hint)
        print(f"{self.prog}: warning: {text} ({place})", file=sys.stderr)

    # ------------------------------------------------------------------------- refusing

    def _refuse_value(self, exc: argparse.ArgumentError) -> NoReturn:
        """Say what is wrong with a value, and where it is from."""
        where = COMMAND_LINE
        for action in self.spellings.values():
            if exc.argument_name == "/".join(action.option_strings):
                where = self._sources.get(action.dest, COMMAND_LINE)
        self._where = where
        self.error(str(exc), getattr(exc.__context__, "hint", ""))

    def _refuse_ambiguous(self, name: str, matches: Sequence[str]) -> NoReturn:
        self.error(f"ambiguous option: {name} could match {', '.join(matches)}")

    def _refuse_unknown(self, unknown: Sequence[str]) -> NoReturn:
        """Name what is not known, without values: they may be keys."""
        if isinstance(unknown[0], Key):
            names: Sequence[str] = [f"--{unknown[0].lstrip('-')}"]
            matches = self._matches(names[0])
            if matches:
                self._refuse_ambiguous(names[0], matches)
        else:
            self._where = COMMAND_LINE
            options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            names = options or unknown
        hints = [self._hint(name) for name in names if name.startswith("--")]
        self.error(f"unrecognized arguments: {' '.join(names)}", " ".join(filter(None, hints)))

    def _hint(self, name: str) -> str:
        """Return what may have been meant by an option nobody knows."""
        command = owner(name.lstrip("-"))
        if command:
            return f"{name} is an option of {command}."
        shown = [
            option
            for option, action in self.spellings.items()
            if option.startswith("--") and action.help != argparse.SUPPRESS
        ]
        return did_you_mean(name, shown)

    def error(self, message: str, hint: str = "") -> NoReturn:
        """Print two lines, what is wrong and what may help; status 2."""
        where = f" ({self._where})" if self._where else ""
        text = message.replace("\n", " ")
        hint = hint or f"All options: {self.prog} --help"
        argparse.ArgumentParser.exit(self, 2, f"{self.prog}: error: {text}{where}\n{hint}\n")
