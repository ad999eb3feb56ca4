"""What a worker is given by the supervisor when it starts.

It comes as JSON on standard input, where nobody else sees it: there are keys in it. All workers of
a service, those that are started again included, so have the options and keys the service was
started with, whatever files say by then.
"""

from __future__ import annotations

import math
import os
import sys
from argparse import Namespace
from typing import Any

import attrs
import orjson

from autopush.app.process import own_port
from autopush.app.standalone import NODE_NAME, standalone_config
from autopush.config import UNIX, AutopushConfig, SSLConfig

BOOT = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    " import json, sys; begin = sys.stdin.buffer.read() or sys.exit(1);"
    " sys.path[:] = json.loads(begin)['path'];"
    " from autopush.workers.application import run; sys.exit(run(begin))"
)
"""What Python is to execute.

A terminal sends SIGINT to everybody, the supervisor included, whose it is. There is nothing to read
if the supervisor was killed just now. Without its path Python may not find the package."""


def command(name: str) -> list[str]:
    """Return the command of a worker's process.

    :param name: tells people what it is
    """
    # -P: modules of the standard library aren't looked for where the service was started.
    return [sys.executable, "-P", "-c", BOOT, name]


CHANNEL = "channel"


@attrs.frozen
class Begin:
    """See the module.

    :ivar path: where modules are found
    :ivar number: of the worker, from 1
    :ivar options: the command's, keys included
    :ivar log_key: hides ids in logs
    :ivar descriptors: numbers of open files: the channel, and a listening socket for each option
        that has one
    :ivar sockets: paths of the workers' Unix sockets; empty: they have ports
    :ivar watchdog: seconds within which the service manager wants a sign of life; None: it doesn't
    """

    path: list[str]
    number: int
    options: dict[str, Any] = attrs.field(repr=False)
    log_key: str = attrs.field(repr=False)
    descriptors: dict[str, int]
    sockets: list[str]
    watchdog: float | None

    def dump(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps(attrs.asdict(self))

    @classmethod
    def load(cls, data: bytes) -> Begin:
        """Read what :meth:`dump` made."""
        return cls(**orjson.loads(data))

    @property
    def namespace(self) -> Namespace:
        """The options as they were parsed."""
        return Namespace(**self.options)


def host_of(number: int) -> str:
    """Return the host in a worker's node id. The first has that of a service of one process: whom
    its records lead to is the same then."""
    return NODE_NAME if number == 1 else f"worker-{number}.{NODE_NAME}"


def worker_config(begin: Begin) -> AutopushConfig:
    """Build the configuration of a worker.

    :raises InvalidConfig: options can't be used
    """
    conf, number = standalone_config(begin.namespace), begin.number
    conf.worker = number
    conf.memusage_port = own_port(conf.memusage_port, number)
    conf.router_port = own_port(conf.router_port, number)
    if begin.sockets:
        conf.worker_sockets = {host_of(n): path for n, path in enumerate(begin.sockets, 1)}
        conf.router_scheme, conf.router_ssl = "http", SSLConfig()
        conf.router_hostname = host_of(number)
        conf.router_host = UNIX + begin.sockets[number - 1]
    if conf.max_connections:
        conf.max_connections = math.ceil(conf.max_connections / conf.workers)
    conf.compute_urls()
    return conf


def environment() -> dict[str, str]:
    """Return the environment of a worker: the service manager is the supervisor's."""
    own = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    return {name: value for name, value in os.environ.items() if name not in own}
