"""``python -m autopush.testing -- npm test``: run the tests of any language beside a push service.

The command finds in its environment

``AUTOPUSH_URL``
    origin of the endpoints, the ``aud`` of VAPID
``AUTOPUSH_WEBSOCKET_URL``
    where user agents connect
``AUTOPUSH_CONTROL_URL``
    the control API, with its token
``AUTOPUSH_FIREFOX_PREFERENCES``
    JSON: what a real Firefox must be told
``AUTOPUSH_CERTIFICATE``
    with ``--tls``: file of the certificate to trust; Node.js does so by ``NODE_EXTRA_CA_CERTS``

It ends with the command, and with its status.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from autopush.testing.service import PushService, StartFailed

NOT_FOUND = 127
"""Status of a command that can't be started, as shells have it."""


def environment(facts: Mapping[str, Any]) -> dict[str, str]:
    """The variables for the command.

    :param facts: what the service says of itself
    """
    variables = {
        "AUTOPUSH_URL": facts["url"],
        "AUTOPUSH_WEBSOCKET_URL": facts["websocket_url"],
        "AUTOPUSH_CONTROL_URL": facts["control_url"],
        "AUTOPUSH_FIREFOX_PREFERENCES": json.dumps(facts["firefox_preferences"]),
    }
    if facts["certificate"]:
        variables["AUTOPUSH_CERTIFICATE"] = variables["NODE_EXTRA_CA_CERTS"] = facts["certificate"]
    return variables


def run(command: Sequence[str], facts: Mapping[str, Any]) -> int:
    """Run a command; returns its status as a shell would tell it."""
    with PassOn() as signals:
        try:
            process = subprocess.Popen(command, env={**os.environ, **environment(facts)})
        except OSError as exc:
            print(f"autopush.testing: {command[0]}: {exc.strerror}", file=sys.stderr)
            return NOT_FOUND
        signals.to(process)
        status = process.wait()
    return status if status >= 0 else 128 - status


class PassOn:
    """Sends the signals that are to end this process to another one, and waits for that instead.

    Those that come before the other one has been named are for it, too.
    """

    NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._process: subprocess.Popen[Any] | None = None
        self._early: list[int] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> PassOn:
        for number in self.NUMBERS:
            self._before[number] = signal.signal(number, self._send)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def to(self, process: subprocess.Popen[Any]) -> None:
        """Name the process."""
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def _send(self, number: int, frame: object) -> None:
        if self._process is None:
            self._early.append(number)
        # A terminal has sent SIGINT to the whole group already.
        elif number != signal.SIGINT:
            self._process.send_signal(number)


def main(args: Sequence[str] | None = None) -> int:
    """Console entry; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m autopush.testing",
        usage="%(prog)s [--tls] [--option=OPTION ...] -- COMMAND ...",
        description="Runs a command beside a push service, which is in its environment.",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        help="a further option of autopush_standalone, as --option=--max_data=5000; repeatable",
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="https endpoints, for libraries that send to no others, such as npm web-push",
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="and its arguments")
    ns = parser.parse_args(args)
    service = PushService(ns.option, ns.tls)
    try:
        with service:
            return run(ns.command, service.facts)
    except StartFailed as exc:
        print(f"autopush.testing: the service did not start:\n{exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
