"""``autopush_doctor``, and ``--check`` of each command: will it work like this?

One line a check, ``ok``, ``warn`` or ``FAIL``; the exit status is 1 if anything fails. Nothing is
created or changed, no secret is shown.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence

from autopush.app.standalone import standalone_config
from autopush.config import AutopushConfig
from autopush.doctor import bridges, certificates, network, options, store
from autopush.doctor.report import Check, Level, Result, Subject, fail, ok
from autopush.exceptions import InvalidConfig
from autopush.options.commands import COMMANDS
from autopush.options.optionparser import VERSION, with_examples
from autopush.options.suggestions import did_you_mean

__all__ = ["check", "diagnose", "main"]

CHECKS: tuple[Check, ...] = (
    options.logging,
    options.data_dir,
    options.keys,
    options.names,
    options.ports,
    options.limits,
    options.workers,
    certificates.tls,
    store.store,
    bridges.bridges,
    bridges.authorities,
    network.broadcasts,
    network.internal_url,
    network.public_url,
)

USAGE = """\
usage: autopush_doctor [--version] COMMAND [OPTION ...]

Checks the configuration of COMMAND: autopush, autoendpoint or autopush_standalone.
OPTIONs are those of the command, whose files and variables are read as well:
the same as COMMAND --check.
"""

EXAMPLES = (
    ("autopush_doctor autopush_standalone", "the service that is started here without options"),
    ("autopush_doctor autopush_standalone --data_dir /var/lib/autopush", "one with other data"),
    ("autopush_doctor autoendpoint --config-shared /etc/push/shared.ini", "a node of a cluster"),
)


def diagnose(command: str, ns: Namespace) -> Iterator[Result]:
    """Run all checks.

    :param command: name of the console script
    :param ns: its options
    """
    ns.no_aws = True  # what EC2 calls this machine matters to no check
    try:
        standalone = command == "autopush_standalone"
        conf = standalone_config(ns) if standalone else AutopushConfig.from_argparse(ns)
    except InvalidConfig as exc:
        yield fail("configuration", str(exc))
        return
    yield ok("configuration", f"options of {command} can be used")
    subject = Subject(command, ns, conf)
    for one in CHECKS:
        try:
            yield from one(subject)
        except Exception as exc:  # the other checks may still tell something
            yield fail(one.__name__, f"the check itself failed: {type(exc).__name__} {exc}")


def check(command: str, ns: Namespace) -> int:
    """Print the results; returns the exit status."""
    failed = False
    for result in diagnose(command, ns):
        try:
            print(result.line, flush=True)
        except BrokenPipeError:  # as with "| head": the status still counts
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        failed = failed or result.level is Level.FAIL
    return int(failed)


def main(args: Sequence[str] | None = None, use_files: bool = True) -> int:
    """Console entry; returns the exit status: 2 for bad options."""
    given = sys.argv[1:] if args is None else list(args)
    if given[:1] in (["-h"], ["--help"]):
        print(with_examples(USAGE, EXAMPLES), end="")
        return 0
    if given[:1] == ["--version"]:
        print(VERSION)
        return 0
    if not given or given[0] not in COMMANDS:
        hint = did_you_mean(given[0], COMMANDS) if given else ""
        hint = hint or f"Commands: {', '.join(COMMANDS)}"
        print(f"autopush_doctor: error: name one of the commands first\n{hint}", file=sys.stderr)
        return 2
    command = COMMANDS[given[0]]
    ns = command.parse(command.config_files if use_files else (), given[1:])
    return check(given[0], ns)
