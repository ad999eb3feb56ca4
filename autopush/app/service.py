"""What the applications have in common: options become a configuration, that becomes services,
those run.

Source: spec/python-api 2.13, spec/configuration 6, 7, 11 and 12.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from twisted.application.service import MultiService
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

import autopush.logging
from autopush import __version__, constants, useragent
from autopush.app.figures import LOOK_INTERVAL, Figures
from autopush.app.lifecycle import Lifecycle
from autopush.app.process import (
    BACKLOG,
    Listener,
    Timer,
    bind,
    freeze_garbage,
    one_signal_is_enough,
    second_signal_exits,
    surviving,
    use_monotonic_clock,
    within,
)
from autopush.app.starterrors import EXPECTED, is_expected, start_error_text
from autopush.config import UNIX, AutopushConfig
from autopush.db import store_from_dsn
from autopush.http import (
    MemUsageHTTPFactory,
    PrometheusHTTPFactory,
)
from autopush.logging import PushLogger
from autopush.metrics import from_config as metrics_from_config, periodic_reporter, registry_of
from autopush.net.nodeclient import NodeClient
from autopush.net.proxyprotocol import HAProxyServerEndpoint
from autopush.options.commands import SHARED_FILES
from autopush.router.interface import IRouter
from autopush.session import Node
from autopush.ssl import monkey_patch_ssl_wrap_socket, undo_monkey_patch_ssl_wrap_socket
from autopush.web.memusage import note_frozen

reactor: Any = _reactor

log = Logger("autopush.main")
"""Operators know the applications' events by this name."""


REPORT_INTERVAL = 15
"""Seconds between reports of the periodic metrics."""

ROTATE_INTERVAL = 60
"""Seconds between two looks at the calendar (spec/storage 8.3)."""

STOP_WITHIN = 4.0
"""Seconds an orderly shutdown may take; what is not done by then is left undone."""


class AutopushMultiService(MultiService):
    """What the applications have in common.

    :param conf: the configuration
    :param resource: DynamoDB resource to use instead of an own one (tests)
    """

    shared_config_files: ClassVar[tuple[str, ...]] = SHARED_FILES
    config_files: ClassVar[tuple[str, ...]] = ()
    command = ""
    """Name of the console script."""
    check: ClassVar[staticmethod[[str, Namespace], int] | None] = None
    """What ``--check`` does: gets command and options, returns the exit status."""
    logger_name = "Autopush"
    metrics_prefix = ""
    """Of the periodic metrics (spec/observability 7.4)."""
    memusage_host: str | None = None
    """Address of the memory API; None: ``conf.host``, or this machine's own if that is a file."""
    node: Node | None = None
    """The connection node in this process, if any."""
    on_next_signal = staticmethod(second_signal_exits)
    """Decides what signals do once the shutdown has begun."""
    options: Namespace | None = None
    """What it was started with, to tell which of that is in the way."""

    def __init__(self, conf: AutopushConfig, resource: Any = None) -> None:
        super().__init__()
        self.conf = conf
        self.metrics = metrics_from_config(conf)
        self.db = store_from_dsn(conf, reactor, resource)
        self.agent = self.make_agent()
        self.http_factories: list[Any] = []
        self.routers: dict[str, IRouter] = {}
        self.exit_status: int | None = None
        self.lifecycle = Lifecycle(reactor, reopen_logs)
        self._stopping: Deferred[None] | None = None

    # ---- to be extended

    @staticmethod
    def parse_args(config_files: Sequence[str], args: Sequence[str] | None) -> Namespace:
        """Read the options.

        :param args: command line; None: ``sys.argv[1:]``
        """
        raise NotImplementedError

    def setup(self, rotate_tables: bool = True) -> None:
        """Add the services; nothing listens yet."""
        if not self.conf.no_sslcontext_cache:
            monkey_patch_ssl_wrap_socket()
        self.add_prometheus()
        self.add_timer(
            REPORT_INTERVAL,
            periodic_reporter,
            self.metrics,
            self.metrics_prefix,
            self.db.pool_figures,
        )
        if rotate_tables:
            self.add_timer(ROTATE_INTERVAL, self.db.rotate)
        self.add_watchdog()

    # ---- building blocks

    def make_agent(self) -> NodeClient:
        """Return the client for other nodes."""
        timeout = constants.DEFAULT_ROUTER_TIMEOUT
        return NodeClient(reactor, self.conf.connect_timeout, timeout)

    def add_watchdog(self) -> None:
        """Tell the service manager that we live, if it wants to know."""
        watchdog = self.lifecycle.watchdog(self.db.alive)
        if watchdog is not None:
            watchdog.setServiceParent(self)

    def listen(
        self,
        port: int | None,
        factory: Any,
        ssl_cf: Any = None,
        host: str | None = None,
        option: str = "port",
    ) -> Listener:
        """Add a listener for an HTTP application.

        :param host: default: ``conf.host``
        :param option: names the port
        """
        address = self.conf.host if host is None else host
        listener = Listener(lambda: self.bind(option, address, port or 0, factory, ssl_cf), option)
        listener.setServiceParent(self)
        self.lifecycle.add_tls(ssl_cf)
        if factory not in self.http_factories:
            self.http_factories.append(factory)
        return listener

    def bind(
        self, option: str, host: str, port: int, factory: Any, ssl_cf: Any = None
    ) -> IListeningPort:
        """Begin to listen.

        :param option: names the port
        :param host: address, or ``unix:<path>``
        :raises CannotListenError: in use or not ours to use
        """
        return bind(reactor, host, port, factory, ssl_cf)

    def add_maybe_ssl(self, port: int | None, factory: Any, ssl_cf: Any) -> None:
        """Add a TCP listener, or a TLS one if there is a context factory."""
        self.listen(port, factory, ssl_cf)

    def add_timer(self, step: float, function: Any, *args: Any, **kwargs: Any) -> None:
        """Call a function every ``step`` seconds, first at start; it may fail or return a
        Deferred."""
        Timer(step, surviving(function, *args, **kwargs)).setServiceParent(self)

    def add_megaphone(self, node: Node) -> None:
        """Add what fetches broadcasts, if there is a source of some."""
        if self.conf.megaphone_api_url:
            from autopush.app.megaphone import Megaphone  # treq doubles the time a start takes

            Megaphone(self.conf, node.broadcasts, self.metrics, reactor).setServiceParent(self)

    def add_memusage(self) -> None:
        """Add the memory API's listener if it has a port."""
        conf = self.conf
        if conf.memusage_port:
            host = self.memusage_host or ("127.0.0.1" if conf.host.startswith(UNIX) else conf.host)
            self.listen(conf.memusage_port, MemUsageHTTPFactory(conf), None, host, "memusage_port")

    def add_prometheus(self) -> None:
        """Add the listener for Prometheus if it has a port, and what only that shows."""
        conf = self.conf
        if conf.prometheus_port:
            figures = Figures(self.db, self.lifecycle.tls, self.node, reactor)
            self.metrics.on_fetch(figures.report)
            self.add_timer(LOOK_INTERVAL, figures.look)
            self.show_metrics(PrometheusHTTPFactory(conf, registry_of(self.metrics)))

    def show_metrics(self, factory: PrometheusHTTPFactory) -> None:
        """Add the listener at which Prometheus fetches them."""
        conf = self.conf
        self.listen(
            conf.prometheus_port, factory, host=conf.prometheus_host, option="prometheus_port"
        )

    def add_router_port(self, factory: Any) -> Listener:
        """Add the listener for other nodes."""
        conf = self.conf
        host = conf.router_host or conf.host
        return self.listen(conf.router_port, factory, factory.ssl_cf(), host, "router_port")

    def add_proxy_protocol(self, factory: Any, ssl_cf: Any) -> None:
        """Add the listener behind HAProxy if it has a port."""
        if self.conf.proxy_protocol_port:
            interface = "" if self.conf.host.startswith(UNIX) else self.conf.host
            endpoint = HAProxyServerEndpoint(
                reactor,
                self.conf.proxy_protocol_port,
                ssl_cf,
                interface=interface,
                backlog=BACKLOG,
            )
            self.lifecycle.add_tls(ssl_cf)
            listener = Listener(lambda: self.bind_proxied(endpoint, factory), "proxy_protocol_port")
            listener.setServiceParent(self)

    def bind_proxied(self, endpoint: HAProxyServerEndpoint, factory: Any) -> IListeningPort:
        """Begin to listen behind HAProxy; as :meth:`bind`."""
        return endpoint.bind(factory)

    # ---- running

    def run(self) -> int | None:
        """Run until a signal or an error while starting.

        :returns: exit status, None for 0
        """
        reactor.suggestThreadPoolSize(constants.THREAD_POOL_SIZE)
        self.lifecycle.prepare()
        reactor.addSystemEventTrigger("before", "shutdown", self._shutdown)
        reactor.callWhenRunning(self._start)
        reactor.run()
        return self.exit_status

    def _start(self) -> None:
        one_signal_is_enough()
        Deferred.fromCoroutine(self.start()).addErrback(self._start_failed)

    async def start(self) -> None:
        """Open the store, then everything else."""
        self.metrics.start()
        await self.db.setup()
        if self._stopping is None:
            useragent.preload()
            self.startService()
            if self.conf.memusage_port:
                note_frozen()
            freeze_garbage()
            self.lifecycle.started(f"Serving, version {__version__}", self.conf.max_connections)

    def _start_failed(self, failure: Failure) -> None:
        self.exit_status = 1
        self.report_start_error(failure)
        with contextlib.suppress(ReactorNotRunning):
            reactor.stop()

    def report_start_error(self, failure: Failure) -> None:
        """Say why the start failed."""
        text = start_error_text(failure.value, self.options)
        if is_expected(failure.value):
            log.critical("{error}", error=text)
        else:
            log.failure("{error}", failure=failure, error=text)

    def _shutdown(self) -> Deferred[None]:
        self.on_next_signal()
        self.lifecycle.stopping()
        return self.stopService()

    def stopService(self) -> Deferred[None]:
        """Stop in order: accept nothing, save, close with a close frame, flush the store.

        :returns: fires when all is done, or after ``STOP_WITHIN`` seconds
        """
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop())
        return self._stopping

    async def _stop(self) -> None:
        end: float = reactor.seconds() + STOP_WITHIN

        def left(reserve: float) -> float:
            now: float = reactor.seconds()
            return end - now - reserve

        await within(left(3), reactor, super().stopService(), "listeners")
        await within(left(1), reactor, self.drain(), "connections")
        for factory in self.http_factories:
            factory.tell_counted()
        await within(left(0.5), reactor, self.agent.close(), "other nodes")
        await within(left(0.5), reactor, self.close_routers(), "bridges")
        await within(left(0.25), reactor, self.metrics.stop(), "metrics")
        await within(left(0), reactor, self.db.close(), "the store")
        undo_monkey_patch_ssl_wrap_socket()

    def drain(self) -> Deferred[Any]:
        """Let go of what is connected; fires when all has gone."""
        return gatherResults([factory.drain() for factory in self.http_factories])

    def close_routers(self) -> Deferred[Any]:
        """Close the bridges' connections."""
        closing = [maybeDeferred(router.close) for router in self.routers.values()]
        return gatherResults(closing, consumeErrors=True)

    def warn(self, ns: Namespace) -> None:
        """Log what an operator should know about the configuration."""

    # ---- from options

    @classmethod
    def _from_argparse(cls, ns: Any, resource: Any = None, **kwargs: Any) -> Self:
        """Build an application whose pre-flight UAID is one nobody else uses."""
        kwargs.setdefault("preflight_uaid", f"deadbeef00000000deadbeef{uuid.uuid4().hex[:8]}")
        conf = AutopushConfig.from_argparse(ns, **kwargs)
        return cls(conf, resource=resource)

    @classmethod
    def from_argparse(cls, ns: Any, resource: Any = None) -> Self:
        """Build an application from parsed options.

        :raises InvalidConfig: they can't be used
        """
        return cls._from_argparse(ns, resource)

    @classmethod
    def main(
        cls, args: Sequence[str] | None = None, use_files: bool = True, resource: Any = None
    ) -> int | None:
        """Console entry.

        :param args: command line; None: ``sys.argv[1:]``
        :param use_files: whether to read the default configuration files
        :returns: exit status: 1 if the configuration can't be used, else that of :meth:`run`
        """
        ns = cls.parse_args(cls.config_files if use_files else (), args)
        if ns.check and cls.check is not None:
            return cls.check(cls.command, ns)
        use_monotonic_clock(reactor)
        try:
            setup_logging(ns, cls.logger_name, human=ns.human_logs)
            app = cls.from_argparse(ns, resource=resource)
            app.options = ns
            app.warn(ns)
            app.setup()
        except EXPECTED as exc:
            log.critical("{error}", error=start_error_text(exc, ns))
            return 1
        return app.run()


def setup_logging(ns: Namespace, logger_name: str, human: bool, worker: int | None = None) -> None:
    """Start logging as the options say.

    :param worker: number of this process, if it is one of several of a service
    :raises InvalidConfig: Sentry or Firehose can't be used
    :raises OSError: the output file can't be opened
    """
    PushLogger.setup_logging(
        logger_name,
        log_level=ns.log_level or ("debug" if ns.debug else "info"),
        log_format="text" if human else "json",
        log_output=ns.log_output,
        sentry_dsn=os.environ.get("SENTRY_DSN"),
        firehose_delivery_stream=getattr(ns, "firehose_stream_name", None),
        no_aws=ns.no_aws,
        worker=worker,
    )


def reopen_logs() -> None:
    """Go on in a new log file where the old one has been moved away.

    :raises OSError: it can't be opened
    """
    autopush.logging.reopen()


def warn_of_random_key(ns: Namespace) -> None:
    """Endpoints made with a random key end with the process (spec/configuration C1)."""
    if not any(ns.crypto_key or ()):
        log.warn("No crypto_key: endpoint URLs made by this process end with it")
