"""A worker: the standalone application on sockets it is given, and led by a supervisor."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush import constants
from autopush.app.process import Listener, bind, use_monotonic_clock
from autopush.app.service import setup_logging
from autopush.app.standalone import has_own_endpoint_port
from autopush.app.starterrors import EXPECTED, is_expected, start_error_text
from autopush.app.supervised import Readiness
from autopush.app.systemd import ServiceManager, Watchdog
from autopush.exceptions import StoreError
from autopush.http import PrometheusHTTPFactory
from autopush.logging import hide_ids, redaction
from autopush.main import StandaloneApplication
from autopush.metrics import IMetrics, registry_of
from autopush.net.eager import adopt
from autopush.net.nodeclient import NodeClient
from autopush.net.proxyprotocol import HAProxyServerEndpoint
from autopush.types import JSONDict
from autopush.web.health import HEALTH_WITHIN
from autopush.workers.begin import CHANNEL, Begin, worker_config
from autopush.workers.channel import Channel, tell_now
from autopush.workers.fleet import HANGS_AFTER
from autopush.workers.link import WorkerClient, link_factory

reactor: Any = _reactor

SIGN_WITHIN = HANGS_AFTER / 4
"""Seconds within which a worker gives a sign of life."""

FORGET_INTERVAL = 86_400
"""Seconds between two looks for records to forget that lead to a worker other than the first, which
does the counting."""

WHOLE_WITHIN = 8.0
"""Seconds the supervisor gets to ask all workers how they are, each of which has five."""

log = Logger()


class Superior(ServiceManager):
    """The supervisor, in the place of the service manager.

    :param within: seconds within which it wants to hear that we live
    """

    def __init__(self, within: float) -> None:
        super().__init__({})
        self.watchdog_period = within
        self.channel: Channel | None = None
        self.readiness: Readiness | None = None

    def ready(self, status: str) -> None:
        """Everything listens, or is reloaded."""
        self._tell("ready", None if self.readiness is None else list(self.readiness))

    def alive(self) -> None:
        """We live."""
        self._tell("alive")

    def _tell(self, what: str, value: Any = None) -> None:
        if self.channel is not None:
            self.channel.tell(what, value)


class WorkerApplication(StandaloneApplication):
    """See the module.

    :param begin: what the supervisor gave us
    """

    def __init__(self, begin: Begin) -> None:
        conf = worker_config(begin)
        redaction.hide(conf.access_keys)
        super().__init__(conf, own_endpoint_port=has_own_endpoint_port(begin.namespace))
        self.begin = begin
        self.superior = Superior(min(SIGN_WITHIN, begin.watchdog or SIGN_WITHIN))
        self.lifecycle.manager = self.superior
        for factory in (self.endpoint_factory, self.internal_router_factory):
            factory.whole = self.whole

    # ---- what is different

    def setup(self, rotate_tables: bool = True) -> None:
        super().setup(rotate_tables)
        self.metrics.on_fetch(self._report)
        Watchdog(self.superior, self._probe).setServiceParent(self)

    def make_agent(self) -> NodeClient:
        if not self.conf.worker_sockets:
            return super().make_agent()
        timeout = constants.DEFAULT_ROUTER_TIMEOUT
        return WorkerClient(reactor, self.conf.worker_sockets, self.conf.connect_timeout, timeout)

    def add_router_port(self, factory: Any) -> Listener:
        if not self.conf.worker_sockets:
            return super().add_router_port(factory)
        path, answering = str(self.conf.router_host), link_factory(reactor, self.node)
        listener = Listener(lambda: bind(reactor, path, 0, answering), "workers")
        listener.setServiceParent(self)
        return listener

    def add_watchdog(self) -> None:
        """There is another one."""

    def add_census(self) -> None:
        """The first worker counts for all."""
        if self.begin.number == 1:
            super().add_census()
        else:
            self.add_timer(FORGET_INTERVAL, self.census.begin)

    def bind(
        self, option: str, host: str, port: int, factory: Any, ssl_cf: Any = None
    ) -> IListeningPort:
        descriptor = self.begin.descriptors.get(option)
        if descriptor is None:
            return super().bind(option, host, port, factory, ssl_cf)
        listening: IListeningPort = adopt(
            reactor, socket.socket(fileno=descriptor), factory, ssl_cf
        )
        return listening

    def bind_proxied(self, endpoint: HAProxyServerEndpoint, factory: Any) -> IListeningPort:
        given = socket.socket(fileno=self.begin.descriptors["proxy_protocol_port"])
        return endpoint.bind(factory, lambda wrapped: adopt(reactor, given, wrapped))

    def show_metrics(self, factory: PrometheusHTTPFactory) -> None:
        """The supervisor does."""

    def announce(self, readiness: Readiness) -> None:
        """Have the supervisor say it, when all are ready."""
        self.superior.readiness = readiness

    def report_start_error(self, failure: Failure) -> None:
        if not is_expected(failure.value):
            log.failure("Unexpected error", failure=failure)
        tell_now(self.begin.descriptors[CHANNEL], "failed", start_error_text(failure.value))

    def on_next_signal(self) -> None:
        """Go on: who asks again, as a service manager does that asks all, asks the supervisor."""
        ignore_signals(signal.SIGTERM, signal.SIGINT)

    # ---- the channel

    def connect(self) -> None:
        """Begin to listen to the supervisor."""
        channel = Channel(
            reactor,
            {"reload": lambda _: self.lifecycle.reload()},
            {"figures": self._figures, "health": self._health},
            self._alone,
        )
        self.superior.channel = channel
        factory = Factory.forProtocol(lambda: channel)
        factory.noisy = False
        reactor.adoptStreamConnection(self.begin.descriptors[CHANNEL], socket.AF_UNIX, factory)

    def _alone(self) -> None:
        """The supervisor has gone: nobody would start us again, or stop us."""
        if self._stopping is None:
            log.error("The supervisor has ended, shutting down")
            with contextlib.suppress(ReactorNotRunning):
                reactor.stop()

    def _probe(self) -> Deferred[Any]:
        """What proves that we live: the event loop; with a service manager's watchdog the store,
        too, as in a service of one process."""
        return succeed(None) if self.begin.watchdog is None else self.db.alive()

    def _figures(self) -> Any:
        if not self.conf.prometheus_port:
            return []
        from autopush.metrics.merged import dump

        return dump(registry_of(self.metrics))

    def _report(self, metrics: IMetrics) -> None:
        tags = [f"worker:{self.begin.number}"]
        metrics.gauge("worker.connections", len(self.clients), tags=tags)

    def _health(self) -> Deferred[JSONDict]:
        return Deferred.fromCoroutine(self._look())

    async def _look(self) -> JSONDict:
        try:
            parts = await self.db.health().addTimeout(HEALTH_WITHIN / 3, reactor)
            errors = [f"{name}: {error}" for name, error in parts.items() if error is not None]
        except (StoreError, TimeoutError, CancelledError) as error:
            errors = [str(error) or "the store doesn't answer"]
        users = self.node.users if self.begin.number == 1 else None
        return {"clients": len(self.clients), "users": users, "errors": errors}

    def whole(self) -> Deferred[JSONDict]:
        """Ask the supervisor how all workers are."""
        assert self.superior.channel is not None
        return self.superior.channel.ask("whole", WHOLE_WITHIN)


def ignore_signals(*numbers: int) -> None:
    """Take no notice of these from now on."""
    for number in numbers:
        with contextlib.suppress(ValueError):  # not in the main thread: a test
            signal.signal(number, signal.SIG_IGN)


def run(data: bytes) -> int | None:
    """Run a worker; returns its exit status.

    :param data: a dumped :class:`Begin`
    """
    # A terminal sends it to everybody, the supervisor included.
    ignore_signals(signal.SIGINT)
    begin = Begin.load(data)
    ns = begin.namespace
    use_monotonic_clock(reactor)
    try:
        setup_logging(ns, StandaloneApplication.logger_name, ns.human_logs, begin.number)
        hide_ids(begin.log_key)
        app = WorkerApplication(begin)
        app.setup()
        app.connect()
    except EXPECTED as exc:
        tell_now(begin.descriptors[CHANNEL], "failed", start_error_text(exc))
        return 1
    return app.run()
