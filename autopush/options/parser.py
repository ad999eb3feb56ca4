"""The parsers made from the option tables.

Source: spec/configuration 2 (how options are read).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from autopush import constants
from autopush.options.bridges import option_groups
from autopush.options.optionparser import Examples, OptionParser, SwitchAction
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

CONNECTION_EXAMPLES: Examples = (
    (
        "autopush --db_dsn sqlite:///var/lib/autopush/push.db --crypto_key KEY",
        "with a file that the endpoint node of this machine has, too; autokey makes a KEY",
    ),
    (
        "autopush --config-shared /etc/push/shared.ini --router_hostname 10.0.0.7",
        "one of several nodes, which the others reach at 10.0.0.7",
    ),
    ("autopush --config-connection node.ini --check", "is everything right? Starts nothing"),
)
ENDPOINT_EXAMPLES: Examples = (
    (
        "autoendpoint --db_dsn sqlite:///var/lib/autopush/push.db --crypto_key KEY",
        "with a file that the connection node of this machine has, too; autokey makes a KEY",
    ),
    (
        "autoendpoint --endpoint_scheme https --endpoint_hostname push.example.org -e 443",
        "behind a load balancer; the connection nodes are told the same",
    ),
    ("autoendpoint --config-endpoint node.ini --check", "is everything right? Starts nothing"),
)
STANDALONE_EXAMPLES: Examples = (
    ("autopush_standalone --port 9000", "for the browsers of this machine, on another port"),
    (
        "autopush_standalone --public_url https://push.example.org --data_dir /var/lib/autopush",
        "behind a proxy that is reached at this address",
    ),
    ("autopush_standalone --config push.ini --check", "is everything right? Starts nothing"),
)


def connection_parser(config_files: Sequence[str] = ()) -> OptionParser:
    """Return the parser of a connection node."""
    return _node_parser(
        "autopush",
        "Runs a Connection Node.",
        config_files,
        add_connection_args,
        CONNECTION_EXAMPLES,
    )


def endpoint_parser(config_files: Sequence[str] = ()) -> OptionParser:
    """Return the parser of an endpoint node."""
    return _node_parser(
        "autoendpoint",
        "Runs an Endpoint Node.",
        config_files,
        add_endpoint_args,
        ENDPOINT_EXAMPLES,
    )


def _node_parser(
    prog: str,
    description: str,
    config_files: Sequence[str],
    add_own_args: Callable[[OptionParser], None],
    examples: Examples,
) -> OptionParser:
    parser = OptionParser(
        prog=prog,
        description=description,
        default_config_files=list(config_files),
        examples=examples,
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
        examples=STANDALONE_EXAMPLES,
        strict_files=True,
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
    parser.add_argument(
        "--restore",
        metavar="FILE",
        help="put the copy FILE in the place of the database of data_dir, and exit;"
        " not while the service runs; the one before stays beside it",
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
