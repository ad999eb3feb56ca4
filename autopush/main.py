"""The applications: options become a configuration, that becomes services, those run.

Source: python-api.md 2.13, configuration.md 6, 7, 11 and 12.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, ClassVar

from twisted.application.service import MultiService
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

import autopush.logging
from autopush import __version__, constants, useragent
from autopush.config import WILDCARD_HOSTS, AutopushConfig
from autopush.db import store_from_dsn
from autopush.exceptions import InvalidConfig
from autopush.haproxy import HAProxyServerEndpoint
from autopush.http import (
    EndpointHTTPFactory,
    InternalRouterHTTPFactory,
    MemUsageHTTPFactory,
    PrometheusHTTPFactory,
    WebSocketHTTPFactory,
)
from autopush.lifecycle import Lifecycle
from autopush.logging import PushLogger
from autopush.main_argparse import parse_connection, parse_endpoint, parse_standalone
from autopush.memusage import note_frozen
from autopush.metrics import from_config as metrics_from_config
from autopush.metrics import periodic_reporter, registry_of
from autopush.nodeclient import NodeClient
from autopush.process import (
    BACKLOG,
    UNIX,
    Listener,
    Timer,
    bind,
    freeze_garbage,
    second_signal_exits,
    surviving,
    use_monotonic_clock,
    within,
)
from autopush.router import routers_from_config
from autopush.router.interface import IRouter
from autopush.session import Node
from autopush.ssl import monkey_patch_ssl_wrap_socket, undo_monkey_patch_ssl_wrap_socket
from autopush.standalone import (
    DataDir,
    backup,
    has_own_endpoint_port,
    standalone_config,
    use_data_dir,
)
from autopush.starterrors import EXPECTED, is_expected, say_error, start_error_text
from autopush.websocket import PushServerFactory

reactor: Any = _reactor

log = Logger()

PROG = "autopush_standalone"

LOG_LEVELS = ("debug", "info", "warn", "error", "critical")

REPORT_INTERVAL = 15
"""Seconds between reports of the periodic metrics."""

ROTATE_INTERVAL = 60
"""Seconds between two looks at the calendar (storage.md 8.3)."""

STOP_WITHIN = 4.0
"""Seconds an orderly shutdown may take; what is not done by then is left undone."""

CLOSE_SPREAD = 1.5
"""Seconds over which WebSockets are closed at shutdown, so that not all come back at once."""


class AutopushMultiService(MultiService):
    """What the applications have in common.

    :param conf: the configuration
    :param resource: DynamoDB resource to use instead of an own one (tests)
    """

    shared_config_files: ClassVar[tuple[str, ...]] = (
        "/etc/autopush_shared.ini",
        "configs/autopush_shared.ini",
        "~/.autopush_shared.ini",
        ".autopush_shared.ini",
    )
    config_files: ClassVar[tuple[str, ...]] = ()
    command = ""
    """Name of the console script."""
    logger_name = "Autopush"
    metrics_prefix = ""
    """Of the periodic metrics (observability.md 7.4)."""
    memusage_host: str | None = None
    """Address of the memory API; None: ``conf.host``."""

    def __init__(self, conf: AutopushConfig, resource: Any = None) -> None:
        super().__init__()
        self.conf = conf
        self.metrics = metrics_from_config(conf)
        self.db = store_from_dsn(conf, reactor, resource)
        self.agent = NodeClient(reactor, conf.connect_timeout, constants.DEFAULT_ROUTER_TIMEOUT)
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
        self.add_timer(REPORT_INTERVAL, periodic_reporter, self.metrics, self.metrics_prefix)
        if rotate_tables:
            self.add_timer(ROTATE_INTERVAL, self.db.rotate)
        watchdog = self.lifecycle.watchdog(self.db.alive)
        if watchdog is not None:
            watchdog.setServiceParent(self)

    # ---- building blocks

    def listen(
        self, port: int | None, factory: Any, ssl_cf: Any = None, host: str | None = None
    ) -> Listener:
        """Add a listener for an HTTP application.

        :param host: default: ``conf.host``
        """
        address = self.conf.host if host is None else host
        listener = Listener(lambda: bind(reactor, address, port or 0, factory, ssl_cf))
        listener.setServiceParent(self)
        self.lifecycle.add_tls(ssl_cf)
        if factory not in self.http_factories:
            self.http_factories.append(factory)
        return listener

    def add_maybe_ssl(self, port: int | None, factory: Any, ssl_cf: Any) -> None:
        """Add a TCP listener, or a TLS one if there is a context factory."""
        self.listen(port, factory, ssl_cf)

    def add_timer(self, step: float, function: Any, *args: Any) -> None:
        """Call a function every ``step`` seconds, first at start; it may fail or return a
        Deferred."""
        Timer(step, surviving(function, *args)).setServiceParent(self)

    def add_memusage(self) -> None:
        """Add the memory API's listener if it has a port."""
        if self.conf.memusage_port:
            factory = MemUsageHTTPFactory(self.conf)
            self.listen(self.conf.memusage_port, factory, host=self.memusage_host)

    def add_prometheus(self) -> None:
        """Add the listener for Prometheus if it has a port."""
        conf = self.conf
        if conf.prometheus_port:
            self.listen(
                conf.prometheus_port,
                PrometheusHTTPFactory(conf, registry_of(self.metrics)),
                host=conf.prometheus_host,
            )

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
            Listener(lambda: endpoint.bind(factory)).setServiceParent(self)

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
        text = start_error_text(failure.value)
        if is_expected(failure.value):
            log.critical("{error}", error=text)
        else:
            log.failure("{error}", failure=failure, error=text)

    def _shutdown(self) -> Deferred[None]:
        second_signal_exits()
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
        end = reactor.seconds() + STOP_WITHIN

        def left(reserve: float) -> float:
            return end - reactor.seconds() - reserve

        await within(left(3), reactor, super().stopService(), "listeners")
        await within(left(1), reactor, self.drain(), "connections")
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
    def _from_argparse(cls, ns: Any, resource: Any = None, **kwargs: Any) -> Any:
        """Build an application whose pre-flight UAID is one nobody else uses."""
        kwargs.setdefault("preflight_uaid", f"deadbeef00000000deadbeef{uuid.uuid4().hex[:8]}")
        conf = AutopushConfig.from_argparse(ns, **kwargs)
        return cls(conf, resource=resource)

    @classmethod
    def from_argparse(cls, ns: Any, resource: Any = None) -> Any:
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
        if ns.check:
            return check_configuration(cls.command, ns)
        use_monotonic_clock(reactor)
        try:
            setup_logging(ns, cls.logger_name, human=ns.human_logs)
            app = cls.from_argparse(ns, resource=resource)
            app.warn(ns)
            app.setup()
        except EXPECTED as exc:
            log.critical("{error}", error=start_error_text(exc))
            return 1
        return app.run()


def check_configuration(command: str, ns: Namespace) -> int:
    """Do what ``--check`` is for; returns the exit status."""
    from autopush.doctor import check  # brings modules a service needs not

    return check(command, ns)


def setup_logging(ns: Namespace, logger_name: str, human: bool) -> None:
    """Start logging as the options say; with a bad level, at level info.

    :raises InvalidConfig: unknown log level, or Sentry or Firehose can't be used
    :raises OSError: the output file can't be opened
    """
    level = ns.log_level or ("debug" if ns.debug else "info")
    PushLogger.setup_logging(
        logger_name,
        log_level=level if level in LOG_LEVELS else "info",
        log_format="text" if human else "json",
        log_output=ns.log_output,
        sentry_dsn=os.environ.get("SENTRY_DSN"),
        firehose_delivery_stream=getattr(ns, "firehose_stream_name", None),
        no_aws=ns.no_aws,
    )
    if level not in LOG_LEVELS:
        raise InvalidConfig(f"Invalid log_level: {level!r}, must be one of {', '.join(LOG_LEVELS)}")


def reopen_logs() -> None:
    """Go on in a new log file where the old one has been moved away.

    :raises OSError: it can't be opened
    """
    autopush.logging.reopen()


def warn_of_random_key(ns: Namespace) -> None:
    """Endpoints made with a random key end with the process (configuration.md C1)."""
    if not any(ns.crypto_key or ()):
        log.warn("No crypto_key: endpoint URLs made by this process end with it")


async def drain_node(node: Node, factory: PushServerFactory) -> None:
    """Close all WebSockets, saving what is un-acknowledged, and wait for their ends."""
    await factory.shutdown(CLOSE_SPREAD)
    await node.shutdown()


class EndpointApplication(AutopushMultiService):
    """An endpoint node: the HTTP API."""

    config_files = (
        *AutopushMultiService.shared_config_files,
        "/etc/autopush_endpoint.ini",
        "configs/autopush_endpoint.ini",
        "~/.autopush_endpoint.ini",
        ".autopush_endpoint.ini",
    )
    command = "autoendpoint"
    logger_name = "Autoendpoint"
    metrics_prefix = "autoendpoint."
    parse_args = staticmethod(parse_endpoint)

    def __init__(self, conf: AutopushConfig, resource: Any = None) -> None:
        super().__init__(conf, resource)
        self.routers = routers_from_config(conf, self.db, self.agent, metrics=self.metrics)
        self.endpoint_factory = EndpointHTTPFactory(
            conf, self.db, self.routers, metrics=self.metrics, clock=reactor
        )

    def setup(self, rotate_tables: bool = True) -> None:
        super().setup(rotate_tables)
        self.add_endpoint()
        self.add_memusage()

    def add_endpoint(self) -> None:
        """Add the public listeners."""
        ssl_cf = self.endpoint_factory.ssl_cf()
        self.add_maybe_ssl(self.conf.port, self.endpoint_factory, ssl_cf)
        self.add_proxy_protocol(self.endpoint_factory, ssl_cf)

    def warn(self, ns: Namespace) -> None:
        warn_of_random_key(ns)
        if not self.conf.bear_hash_key:
            log.warn("No auth_key: anybody who knows a UAID may change its registration")

    @classmethod
    def from_argparse(cls, ns: Any, resource: Any = None) -> EndpointApplication:
        return cls._from_argparse(ns, resource)


class ConnectionApplication(AutopushMultiService):
    """A connection node: the WebSockets and what other nodes may ask of them."""

    config_files = (
        *AutopushMultiService.shared_config_files,
        "/etc/autopush_connection.ini",
        "configs/autopush_connection.ini",
        "~/.autopush_connection.ini",
        ".autopush_connection.ini",
    )
    command = "autopush"
    parse_args = staticmethod(parse_connection)

    def __init__(self, conf: AutopushConfig, resource: Any = None) -> None:
        super().__init__(conf, resource)
        self.node = Node(conf, self.db, self.metrics, reactor, self.agent)
        self.clients = self.node.clients
        self.internal_router_factory = InternalRouterHTTPFactory(
            conf, self.db, self.clients, metrics=self.metrics, node=self.node, clock=reactor
        )
        self.websocket_factory = PushServerFactory(conf, self.node, reactor)
        self.websocket_site_factory = WebSocketHTTPFactory(
            conf, self.websocket_factory, metrics=self.metrics, clock=reactor
        )

    def setup(self, rotate_tables: bool = True) -> None:
        super().setup(rotate_tables)
        self.add_internal_router()
        self.add_memusage()
        self.add_websocket()

    def add_internal_router(self) -> None:
        """Add the listener for other nodes."""
        factory = self.internal_router_factory
        self.add_maybe_ssl(self.conf.router_port, factory, factory.ssl_cf())

    def add_websocket(self) -> None:
        """Add the listener for user agents."""
        factory = self.websocket_site_factory
        self.add_maybe_ssl(self.conf.port, factory, factory.ssl_cf())

    def warn(self, ns: Namespace) -> None:
        warn_of_random_key(ns)

    def drain(self) -> Deferred[Any]:
        return gatherResults(
            [
                super().drain(),
                Deferred.fromCoroutine(drain_node(self.node, self.websocket_factory)),
            ]
        )

    @classmethod
    def from_argparse(cls, ns: Any, resource: Any = None) -> ConnectionApplication:
        return cls._from_argparse(ns, resource)


class StandaloneApplication(AutopushMultiService):
    """Both nodes and the store in one process.

    :param own_endpoint_port: whether the HTTP API has a port of its own
    """

    config_files = (
        "/etc/autopush_standalone.ini",
        "configs/autopush_standalone.ini",
        "~/.autopush_standalone.ini",
        ".autopush_standalone.ini",
    )
    command = PROG
    parse_args = staticmethod(parse_standalone)
    memusage_host = "127.0.0.1"

    def __init__(
        self, conf: AutopushConfig, resource: Any = None, own_endpoint_port: bool = False
    ) -> None:
        super().__init__(conf, resource)
        self.own_endpoint_port = own_endpoint_port
        common: dict[str, Any] = {"metrics": self.metrics, "clock": reactor}
        self.node = Node(
            conf, self.db, self.metrics, reactor, self.agent if conf.router_port else None
        )
        self.clients = self.node.clients
        self.routers = routers_from_config(
            conf, self.db, self.agent, self.node, metrics=self.metrics
        )
        self.endpoint_factory = EndpointHTTPFactory(
            conf, self.db, self.routers, node=self.node, **common
        )
        self.websocket_factory = PushServerFactory(conf, self.node, reactor)
        self.websocket_site_factory = WebSocketHTTPFactory(conf, self.websocket_factory, **common)
        self.internal_router_factory = InternalRouterHTTPFactory(
            conf, self.db, self.clients, node=self.node, **common
        )
        self._public: Listener | None = None
        self._endpoint: Listener | None = None

    def setup(self, rotate_tables: bool = True) -> None:
        super().setup(rotate_tables)
        endpoint, conf = self.endpoint_factory, self.conf
        ssl_cf = endpoint.ssl_cf()
        if self.own_endpoint_port:
            site = self.websocket_site_factory
            self._public = self.listen(conf.port, site, site.ssl_cf())
            self._endpoint = self.listen(conf.endpoint_port, endpoint, ssl_cf)
        else:
            endpoint.upgrade_factory = self.websocket_factory
            self._public = self._endpoint = self.listen(conf.port, endpoint, ssl_cf)
        self.add_proxy_protocol(endpoint, ssl_cf)
        self.add_memusage()
        if conf.router_port:
            internal = self.internal_router_factory
            self.listen(conf.router_port, internal, internal.ssl_cf())

    def startService(self) -> None:
        super().startService()
        self._use_bound_ports()
        print(self.start_text(), flush=True)

    def _use_bound_ports(self) -> None:
        """With port 0 the URLs are known only now."""
        assert self._public is not None and self._endpoint is not None
        self.conf.port = self._public.number
        self.conf.endpoint_port = self._endpoint.number
        self.conf.compute_urls()

    def start_text(self) -> str:
        """What the operator wants to know after the start; ends with the line tools wait for."""
        conf = self.conf
        websocket = self.websocket_url
        lines = [
            f"autopush {__version__}",
            f"  WebSocket:  {websocket}",
            f"  HTTP API:   {conf.endpoint_url}",
            f"  data:       {conf.data_dir or conf.db_dsn}",
            "  Firefox, in about:config:",
            f"    dom.push.serverURL = {websocket}",
        ]
        if websocket.startswith("ws:"):
            lines.append("    dom.push.testing.allowInsecureServerURL = true")
        if not conf.public_url and (conf.host in WILDCARD_HOSTS or conf.host.startswith(UNIX)):
            lines.append("  If others reach this service at another address, pass --public_url.")
        return "\n".join([*lines, "autopush is ready"])

    @property
    def websocket_url(self) -> str:
        """Where user agents connect, as far as we know."""
        if self.own_endpoint_port:
            return self.conf.ws_url
        scheme, _, rest = self.conf.endpoint_url.partition("://")
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/"

    def report_start_error(self, failure: Failure) -> None:
        if not is_expected(failure.value):
            log.failure("Unexpected error", failure=failure)
        say_error(PROG, failure.value)

    def drain(self) -> Deferred[Any]:
        return gatherResults(
            [
                super().drain(),
                Deferred.fromCoroutine(drain_node(self.node, self.websocket_factory)),
            ]
        )

    @classmethod
    def from_argparse(cls, ns: Any, resource: Any = None) -> StandaloneApplication:
        """Build the service from parsed options; without a data directory's lock and keys."""
        return cls(standalone_config(ns), resource, has_own_endpoint_port(ns))

    @classmethod
    def main(
        cls, args: Sequence[str] | None = None, use_files: bool = True, resource: Any = None
    ) -> int | None:
        ns = cls.parse_args(cls.config_files if use_files else (), args)
        if ns.check:
            return check_configuration(cls.command, ns)
        use_monotonic_clock(reactor)
        data_dir: DataDir | None = None
        try:
            if ns.backup:
                print(backup(ns))
                return 0
            human = ns.human_logs
            if human is None:
                human = ns.log_output == "stdout" and sys.stdout.isatty()
            setup_logging(ns, cls.logger_name, human)
            conf = standalone_config(ns)
            data_dir = DataDir(ns.data_dir)
            use_data_dir(conf, data_dir, ns)
            app = cls(conf, resource, has_own_endpoint_port(ns))
            app.setup()
            return app.run()
        except EXPECTED as exc:
            say_error(PROG, exc)
            return 1
        finally:
            if data_dir is not None:
                data_dir.release()
