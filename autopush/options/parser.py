"""The parsers made from the option tables.

Source: spec/configuration 2 (how options are read).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, NoReturn

import configargparse

from autopush import constants
from autopush.options.bridges import option_groups
from autopush.options.standalone import STANDALONE
from autopush.options.tables import (
    CONNECTION,
    ENDPOINT,
    FLAG,
    LIST,
    OBSOLETE,
    SHARED,
    SWITCH,
    Option,
    OptionGroup,
)

# --------------------------------------------------------------------------------- the parser


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


class ConfigFile(configargparse.DefaultConfigFileParser):
    """The file syntax of spec/configuration 2.3; abbreviated keys are completed."""

    def __init__(self, complete: Callable[[str], str]) -> None:
        self._complete = complete

    def get_syntax_description(self) -> str:
        return "Config file syntax: key = value, flag = true, list = [a, b]; # starts a comment."

    def parse(self, stream: IO[str]) -> dict[str, Any]:
        """Return the settings of one file.

        :raises configargparse.ConfigFileParserException: unreadable or malformed
        """
        try:
            items = super().parse(stream)
        except (OSError, UnicodeDecodeError) as exc:
            name = getattr(stream, "name", "file")
            raise configargparse.ConfigFileParserException(f"Can't read {name}: {exc}") from exc
        return {self._complete(key): _without_empty(value) for key, value in items.items()}


def _without_empty(value: Any) -> Any:
    return [item for item in value if item != ""] if isinstance(value, list) else value


class OptionParser(configargparse.ArgumentParser):
    """ConfigArgParse with the "choose" column of spec/configuration 2.7.

    :ivar spellings: of all options, and whether one may be given more than once
    """

    def __init__(self, **kwargs: Any) -> None:
        self.spellings: dict[str, bool] = {}
        super().__init__(
            formatter_class=HelpFormatter,
            config_file_open_func=self._open_config_file,
            config_file_parser_class=ConfigFile(self._complete_key),
            **kwargs,
        )

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """Add an option; it can be abbreviated from now on."""
        action: argparse.Action = super().add_argument(*args, **kwargs)
        self.note(action)
        return action

    def note(self, action: argparse.Action, repeatable: bool = False) -> None:
        """Remember an option, also one that was added to a group."""
        self.spellings.update(dict.fromkeys(action.option_strings, repeatable))

    def parse_args(self, *args: Any, **kwargs: Any) -> argparse.Namespace:
        ns: argparse.Namespace = super().parse_args(*args, **kwargs)
        return ns

    def parse_known_args(
        self, args: Iterable[str] | None = None, *rest: Any, **kwargs: Any
    ) -> tuple[Any, list[str]]:
        """Spell abbreviated options out first.

        Otherwise the command line would not win over lists from variables and files.
        """
        spelled = [self._spelled_out(arg) for arg in (sys.argv[1:] if args is None else args)]
        known: tuple[Any, list[str]] = super().parse_known_args(
            self._with_keys_joined(spelled), *rest, **kwargs
        )
        return known

    def _with_keys_joined(self, args: list[str]) -> list[str]:
        """Turn ``--crypto_key KEY`` into ``--crypto_key=KEY``: a key may start with a dash."""
        joined: list[str] = []
        rest = iter(args)
        for arg in rest:
            if self.spellings.get(arg):
                value = next(rest, None)
                if value is not None and value.partition("=")[0] not in self.spellings:
                    arg = f"{arg}={value}"
                elif value is not None:
                    joined.append(arg)
                    arg = value
            joined.append(arg)
        return joined

    def convert_item_to_command_line_arg(self, action: Any, key: str, value: Any) -> list[str]:
        if isinstance(action, SwitchAction) and key.lstrip("-").startswith("no_"):
            positive = super().convert_item_to_command_line_arg(action, key, value)
            off, on = action.option_strings[1], action.option_strings[0]
            return [off if positive == [on] else on]
        if isinstance(value, list) and any(map(self.spellings.get, action.option_strings)):
            value = _without_empty(value)
        return list(super().convert_item_to_command_line_arg(action, key, value))

    def _open_config_file(self, path: str, mode: str = "r") -> IO[str]:
        try:
            return open(path, mode, encoding="utf-8-sig")
        except OSError as exc:
            self.error(f"Unable to open config file: {exc}")

    def _complete_key(self, key: str) -> str:
        """Return the option's name for an unambiguous abbreviation, else ``key``."""
        option = self._spelled_out(f"--{key.lstrip('-')}")
        return option[2:] if option != f"--{key.lstrip('-')}" else key

    def _spelled_out(self, arg: str) -> str:
        name, equals, value = arg.partition("=")
        if not name.startswith("--") or name == "--" or name in self.spellings:
            return arg
        matches = [option for option in self.spellings if option.startswith(name)]
        return f"{matches[0]}{equals}{value}" if len(matches) == 1 else arg

    def error(self, message: str) -> NoReturn:
        """Print usage and the message as one line; status 2."""
        argparse.ArgumentParser.error(self, message.replace("\n", " "))


def _add_option(parser: OptionParser, target: Any, row: Option) -> None:
    names = [f"--{row.name}"] if row.short is None else [row.short, f"--{row.name}"]
    text = row.help if row.help is argparse.SUPPRESS else row.help.replace("%", "%%")
    if text is not argparse.SUPPRESS and row.default not in (None, "", False, []):
        text += " (default: %(default)s)"
    kind: dict[str, Any]
    if row.kind == FLAG:
        kind = {"action": "store_true"}
    elif row.kind == SWITCH:
        kind = {"action": SwitchAction}
    elif row.kind == LIST:
        kind = {"action": "append", "metavar": row.metavar}
    else:
        kind = {"type": row.kind, "metavar": row.metavar}
    action = target.add_argument(
        *names, dest=row.name, env_var=row.env, default=row.default, help=text, **kind
    )
    parser.note(action, repeatable=row.kind == LIST)


def _add_groups(parser: OptionParser, groups: Iterable[OptionGroup]) -> None:
    for title, rows in groups:
        target = parser.add_argument_group(title)
        for row in rows:
            _add_option(parser, target, row)


def _obsolete_args(parser: OptionParser) -> None:
    """Add the options of spec/configuration 3.4 that ``parser`` doesn't give a meaning."""
    for name in OBSOLETE:
        if f"--{name}" not in parser.spellings:
            kind = int if name == "max_message_size" else str
            parser.add_argument(f"--{name}", type=kind, default=None, help=argparse.SUPPRESS)


def _add_external_router_args(parser: OptionParser) -> None:
    """Add the options of the bridges."""
    _add_groups(parser, option_groups())


def add_shared_args(parser: OptionParser) -> None:
    """Add the options of spec/configuration 3.1 and 3.4."""
    parser.add_argument(
        "--config-shared",
        dest="config_file_shared",
        is_config_file=True,
        metavar="FILE",
        help="extra configuration file, above all others",
    )
    _add_groups(parser, SHARED)
    _add_external_router_args(parser)
    _obsolete_args(parser)


def _add_config_file(parser: OptionParser, name: str) -> None:
    """Add the option of an explicit file of one kind of node.

    Explicit files are read in the order of their options: before :func:`add_shared_args`, so that
    the shared one wins (2.2).
    """
    parser.add_argument(
        name,
        dest="config_file",
        is_config_file=True,
        metavar="FILE",
        help="extra configuration file",
    )


def _add_check(parser: OptionParser) -> None:
    """Add what makes a command look at its configuration instead of running."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="check configuration and surroundings, print the results, and exit",
    )


def add_endpoint_args(parser: OptionParser) -> None:
    """Add the options of spec/configuration 3.3."""
    _add_config_file(parser, "--config-endpoint")
    _add_groups(parser, [ENDPOINT])


def add_connection_args(parser: OptionParser) -> None:
    """Add the options of spec/configuration 3.2."""
    _add_config_file(parser, "--config-connection")
    _add_groups(parser, [CONNECTION])


# ------------------------------------------------------------------------------- the commands


def connection_parser(config_files: Sequence[str] = ()) -> OptionParser:
    """Return the parser of a connection node."""
    return _node_parser("autopush", "Runs a Connection Node.", config_files, add_connection_args)


def endpoint_parser(config_files: Sequence[str] = ()) -> OptionParser:
    """Return the parser of an endpoint node."""
    return _node_parser("autoendpoint", "Runs an Endpoint Node.", config_files, add_endpoint_args)


def _node_parser(
    prog: str,
    description: str,
    config_files: Sequence[str],
    add_own_args: Callable[[OptionParser], None],
) -> OptionParser:
    parser = OptionParser(
        prog=prog, description=description, default_config_files=list(config_files)
    )
    add_own_args(parser)
    add_shared_args(parser)
    _add_check(parser)
    return parser


def parse_connection(
    config_files: Sequence[str], args: Sequence[str] | None = None
) -> argparse.Namespace:
    """Read the options of a connection node.

    :param config_files: default files, lowest priority first
    :param args: command line; None: ``sys.argv[1:]``
    :raises SystemExit: 0 for help, 2 for a bad option
    """
    return connection_parser(config_files).parse_args(args)


def parse_endpoint(
    config_files: Sequence[str], args: Sequence[str] | None = None
) -> argparse.Namespace:
    """Read the options of an endpoint node; as :func:`parse_connection`."""
    return endpoint_parser(config_files).parse_args(args)


def standalone_parser(config_files: Sequence[str] = ()) -> OptionParser:
    """Return the parser of the standalone service (also the source of its documentation)."""
    parser = OptionParser(
        prog="autopush_standalone",
        description="Runs a whole push service in one process.",
        default_config_files=list(config_files),
    )
    parser.add_argument(
        "--config",
        dest="config_file",
        is_config_file=True,
        metavar="FILE",
        help="configuration file",
    )
    parser.add_argument(
        "--backup",
        metavar="FILE",
        help="copy the database of data_dir to FILE, also while the service runs, and exit",
    )
    _add_check(parser)
    _add_groups(parser, STANDALONE)
    _add_external_router_args(parser)
    _obsolete_args(parser)
    # The cluster's surroundings are never looked for.
    parser.set_defaults(no_aws=True, connection_timeout=constants.DEFAULT_ROUTER_TIMEOUT)
    return parser


def parse_standalone(
    config_files: Sequence[str], args: Sequence[str] | None = None
) -> argparse.Namespace:
    """Read the options of the standalone service; as :func:`parse_connection`."""
    return standalone_parser(config_files).parse_args(args)
