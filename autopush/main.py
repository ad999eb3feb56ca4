"""The applications: connection node, endpoint node, and both in one process.

Source: spec/python-api 2.13, spec/configuration 6, 7 and 12.
"""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush import __version__
from autopush.addresses import without_password
from autopush.app.certificate import make_certificate
from autopush.app.copies import backup, restore
from autopush.app.ephemeral import ephemeral_directory
from autopush.app.figures import Figures
from autopush.app.overview import SAMPLE_INTERVAL, Overview
from autopush.app.process import Listener, use_monotonic_clock
from autopush.app.service import (
    REPORT_INTERVAL,
    AutopushMultiService,
    setup_logging,
    warn_of_random_key,
)
from autopush.app.standalone import (
    DataDir,
    data_dir_dsn,
    has_own_endpoint_port,
    standalone_config,
    use_data_dir,
)
from autopush.app.starterrors import EXPECTED, is_expected, say_error
from autopush.app.supervised import Readiness, end_with, say_ready
from autopush.clock import Shift
from autopush.config import UNIX, WILDCARD_HOSTS, AutopushConfig
from autopush.http import (
    EndpointHTTPFactory,
    InternalRouterHTTPFactory,
    StandaloneHTTPFactory,
)
from autopush.logging import hide_ids
from autopush.options.commands import CONNECTION, ENDPOINT, STANDALONE
from autopush.router import routers_from_config
from autopush.session import Node, census, upkeep
from autopush.session.census import Census
from autopush.web.page.handlers import Page
from autopush.websocket import ConnectionWSSite, PushServerFactory

if TYPE_CHECKING:
    from autopush.control.control import Control

reactor: Any = _reactor

__all__ = [
    "AutopushMultiService",
    "ConnectionApplication",
    "EndpointApplication",
    "StandaloneApplication",
]

log = Logger()

PROG = STANDALONE.name

CLOSE_SPREAD = 1.5
"""Seconds over which WebSockets are closed at shutdown, so that not all come back at once."""


def check_configuration(command: str, ns: Namespace) -> int:
    """Do what ``--check`` is for; returns the exit status."""
    from autopush.doctor import check  # brings modules a service needs not

    return check(command, ns)


def control_mode() -> Control:
    """What ``--control`` is for. Nothing may have asked for the time before."""
    from autopush.control.control import Control  # brings a WebSocket client

    return Control(Shift(reactor), reactor)


async def drain_node(node: Node, factory: PushServerFactory, spread: float = CLOSE_SPREAD) -> None:
    """Close all WebSockets, saving what is un-acknowledged, and wait for their ends."""
    await factory.shutdown(spread)
    await node.shutdown()


class EndpointApplication(AutopushMultiService):
    """An endpoint node: the HTTP API."""

    config_files = ENDPOINT.config_files
    command = ENDPOINT.name
    check = staticmethod(check_configuration)
    logger_name = "Autoendpoint"
    metrics_prefix = "autoendpoint."
    parse_args = staticmethod(ENDPOINT.parse)

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
    """A connection node: the WebSockets and what other nodes may ask of them.

    :cvar websocket_factory: makes the factory of the WebSockets; a subclass may have another
    :cvar websocket_site_factory: makes what listens for them
    """

    config_files = CONNECTION.config_files
    command = CONNECTION.name
    check = staticmethod(check_configuration)
    parse_args = staticmethod(CONNECTION.parse)
    node: Node
    websocket_factory: Callable[..., PushServerFactory] = PushServerFactory
    websocket_site_factory: Callable[..., ConnectionWSSite] = ConnectionWSSite

    def __init__(self, conf: AutopushConfig, resource: Any = None) -> None:
        super().__init__(conf, resource)
        self.node = Node(conf, self.db, self.metrics, reactor, self.agent)
        self.clients = self.node.clients
        self.internal_router_factory = InternalRouterHTTPFactory(
            conf, self.db, self.clients, metrics=self.metrics, node=self.node, clock=reactor
        )
        self.websockets = self.websocket_factory(conf, self.node, reactor)
        self.websocket_site = self.websocket_site_factory(
            conf, self.websockets, metrics=self.metrics, clock=reactor
        )

    def setup(self, rotate_tables: bool = True) -> None:
        super().setup(rotate_tables)
        self.add_timer(upkeep.STEP, self.node.upkeep.step)
        self.add_megaphone(self.node)
        self.add_internal_router()
        self.add_memusage()
        self.add_websocket()

    def add_internal_router(self) -> None:
        """Add the listener for other nodes."""
        self.add_router_port(self.internal_router_factory)

    def add_websocket(self) -> None:
        """Add the listener for user agents."""
        factory = self.websocket_site
        self.add_maybe_ssl(self.conf.port, factory, factory.ssl_cf())

    def warn(self, ns: Namespace) -> None:
        warn_of_random_key(ns)

    def drain(self) -> Deferred[Any]:
        return gatherResults(
            [
                super().drain(),
                Deferred.fromCoroutine(drain_node(self.node, self.websockets)),
            ]
        )

    @classmethod
    def from_argparse(cls, ns: Any, resource: Any = None) -> ConnectionApplication:
        return cls._from_argparse(ns, resource)


class StandaloneApplication(AutopushMultiService):
    """Both nodes and the store in one process.

    :param own_endpoint_port: whether the HTTP API has a port of its own
    :param control: the test mode, if the service runs in it
    :ivar ready_file: where to say that it serves
    :ivar overview: what the page shows the operator; None: nothing
    :ivar close_spread: seconds over which WebSockets are closed at the end
    :cvar websocket_factory: makes the factory of the WebSockets; a subclass may have another
    :cvar websocket_site_factory: makes what listens for them, if the HTTP API has a port of its own
    """

    config_files = STANDALONE.config_files
    command = PROG
    check = staticmethod(check_configuration)
    parse_args = staticmethod(STANDALONE.parse)
    node: Node
    websocket_factory: Callable[..., PushServerFactory] = PushServerFactory
    websocket_site_factory: Callable[..., ConnectionWSSite] = ConnectionWSSite
    memusage_host = "127.0.0.1"

    def __init__(
        self,
        conf: AutopushConfig,
        resource: Any = None,
        own_endpoint_port: bool = False,
        control: Control | None = None,
    ) -> None:
        super().__init__(conf, resource)
        self.own_endpoint_port = own_endpoint_port
        self.control = control
        self.ready_file: str | None = None
        self.close_spread = CLOSE_SPREAD
        common: dict[str, Any] = {"metrics": self.metrics, "clock": reactor}
        self.node = Node(
            conf, self.db, self.metrics, reactor, self.agent if conf.has_peers else None
        )
        self.census = Census(self.node, conf.forget_after)
        self.clients = self.node.clients
        self.routers = routers_from_config(
            conf, self.db, self.agent, self.node, metrics=self.metrics
        )
        self.endpoint_factory = self._make_endpoint_factory(node=self.node, **common)
        self.websockets = self.websocket_factory(conf, self.node, reactor)
        self.websockets.refused = self.endpoint_factory.refused  # the page shows them together
        self.websocket_site = self.websocket_site_factory(conf, self.websockets, **common)
        self.internal_router_factory = InternalRouterHTTPFactory(
            conf, self.db, self.clients, node=self.node, **common
        )
        self.overview: Overview | None = None
        self._public: Listener | None = None
        self._endpoint: Listener | None = None
        self._internal: Listener | None = None
        self._control: Listener | None = None
        self._agents: Listener | None = None

    def _make_endpoint_factory(self, **common: Any) -> EndpointHTTPFactory:
        """The HTTP API, with the page if there is to be one."""
        conf, page = self.conf, None
        if conf.page in ("info", "full"):
            page = Page(token=conf.page_token, separate=self.own_endpoint_port)
        if self.control is not None:
            api: EndpointHTTPFactory = self.control.endpoint(
                page, conf, self.db, self.routers, **common
            )
            return api
        if page is None:
            return EndpointHTTPFactory(conf, self.db, self.routers, **common)
        return StandaloneHTTPFactory(conf, self.db, self.routers, page=page, **common)

    def add_overview(self) -> None:
        """Give the page its figures."""
        endpoint = self.endpoint_factory
        if self.control is not None:
            return  # it has other things to show
        if isinstance(endpoint, StandaloneHTTPFactory) and self.conf.page == "full":
            figures = Figures(self.db, self.lifecycle.tls, self.node, reactor)
            self.overview = Overview(figures, self.node, self.census, endpoint, reactor)
            self.add_timer(SAMPLE_INTERVAL, self.overview.sample)
            endpoint.page.figures = self.overview.show

    def setup(self, rotate_tables: bool = True) -> None:
        super().setup(rotate_tables)
        self.add_timer(upkeep.STEP, self.node.upkeep.step)
        self.add_overview()
        self.add_megaphone(self.node)
        self.add_census()
        endpoint, conf = self.endpoint_factory, self.conf
        ssl_cf = endpoint.ssl_cf()
        if self.own_endpoint_port:
            site = self.websocket_site
            self._public = self.listen(conf.port, site, site.ssl_cf())
            self._endpoint = self.listen(
                conf.endpoint_port, endpoint, ssl_cf, None, "endpoint_port"
            )
        else:
            endpoint.upgrade_factory = self.websockets
            self._public = self._endpoint = self.listen(conf.port, endpoint, ssl_cf)
        self.add_proxy_protocol(endpoint, ssl_cf)
        self.add_memusage()
        if conf.has_peers:
            self._internal = self.add_router_port(self.internal_router_factory)

    def add_control(self, port: int) -> None:
        """Add the listeners of the test mode: the control API, and the one of its user agents."""
        assert self.control is not None
        server = self.control.serve(self.conf, self.endpoint_factory, self.node)
        loopback = self.memusage_host
        self._control = self.listen(port, server, None, loopback, "control_port")
        self._agents = self.listen(0, self.websocket_site, None, loopback, "control")

    def add_census(self) -> None:
        """Count users now and then."""
        self.add_timer(census.ROUND_INTERVAL, self.census.begin)
        self.add_timer(REPORT_INTERVAL, self.census.report)

    def startService(self) -> None:
        super().startService()
        self._use_bound_ports()
        if self._agents is not None and self.control is not None:
            self.control.started(self._agents.number)
        self.announce(Readiness(self.start_text(), self.start_text(show_key=True), self.facts()))

    def announce(self, readiness: Readiness) -> None:
        """Tell the operator, or the program that waits for it, that the service is ready."""
        say_ready(readiness, self.ready_file)

    def facts(self) -> dict[str, Any]:
        """What a program that started the service wants to know."""
        facts = {
            "version": __version__,
            "pid": os.getpid(),
            "url": self.conf.endpoint_url,
            "websocket_url": self._websocket_address(),
            "data_dir": self.conf.data_dir,
            "certificate": self.conf.ssl.cert or None,
        }
        if self.control is not None and self._control is not None:
            facts["control_url"] = self.control.url(self._control.number)
            facts["firefox_preferences"] = self.control.preferences()
        return facts

    def _websocket_address(self) -> str:
        """Where user agents connect, with an access key if they need one.

        In the test mode it is a port without TLS, so that no browser has to trust a certificate.
        """
        if self.control is not None:
            return self.control.rig.websocket_url
        keys = self.conf.access_keys
        return f"{self.websocket_url}{keys[0] if keys else ''}"

    def _use_bound_ports(self) -> None:
        """With port 0 the URLs are known only now."""
        assert self._public is not None and self._endpoint is not None
        self.conf.port = self._public.number
        self.conf.endpoint_port = self._endpoint.number
        self.conf.compute_urls()

    def start_text(self, show_key: bool = False) -> str:
        """What the operator wants to know after the start; ends with the line tools wait for.

        :param show_key: the access key as well, which only somebody at a terminal may see: no log
            keeps it
        """
        conf = self.conf
        keys = conf.access_keys
        key = (keys[0] if show_key else "<access key>") if keys else ""
        websocket = f"{self.websocket_url}{key}"
        lines = [
            f"autopush {__version__}",
            f"  WebSocket:  {websocket}",
            f"  HTTP API:   {conf.endpoint_url}",
            f"  data:       {conf.data_dir}",
            "  Firefox, in about:config:",
            f"    dom.push.serverURL = {websocket}",
        ]
        if conf.db_dsn != data_dir_dsn(conf.data_dir or ""):
            lines.insert(4, f"  database:   {without_password(conf.db_dsn)}")
        if conf.workers > 1:
            lines.insert(4, f"  workers:    {conf.workers}")
        if self._internal is not None and conf.router_port:
            lines.insert(3, f"  other nodes: {self._internal.address}")
        if websocket.startswith("ws:"):
            lines.append("    dom.push.testing.allowInsecureServerURL = true")
        if not conf.public_url and (conf.host in WILDCARD_HOSTS or conf.host.startswith(UNIX)):
            lines.append("  If others reach this service at another address, pass --public_url.")
        if conf.page in ("info", "full"):
            lines.insert(3, f"  page:       {conf.endpoint_url}/{key}")
        if self.control is not None and self._control is not None:
            lines.insert(3, f"  control API: {self.control.url(self._control.number)}")
        if key:
            lines.append(f"  Registration over HTTP: {conf.endpoint_url}/{key}/v1/...")
            lines.append("  Only who has an access key gets in: these addresses are secret.")
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
        say_error(PROG, failure.value, self.options)

    def drain(self) -> Deferred[Any]:
        if self.control is not None:
            self.control.stop()
        closing = drain_node(self.node, self.websockets, self.close_spread)
        return gatherResults([super().drain(), Deferred.fromCoroutine(closing)])

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
            return cls.check(cls.command, ns)
        control: Control | None = None
        if ns.control:
            control = control_mode()
        else:
            use_monotonic_clock(reactor)
        try:
            if ns.backup or ns.restore:
                print(backup(ns) if ns.backup else restore(ns))
                return 0
            human = ns.human_logs
            if human is None:
                human = ns.log_output == "stdout" and sys.stdout.isatty()
            setup_logging(ns, cls.logger_name, human)
            with contextlib.ExitStack() as ending:
                if ns.ephemeral:
                    ns.data_dir = ending.enter_context(ephemeral_directory())
                conf = standalone_config(ns)
                data_dir = DataDir(ns.data_dir)
                ending.callback(data_dir.release)
                if ns.self_signed:
                    ns.ssl_key, ns.ssl_cert = make_certificate(data_dir.path)
                    conf = standalone_config(ns)
                use_data_dir(conf, data_dir, ns)
                hide_ids(data_dir.log_key())
                if ns.parent is not None:
                    end_with(reactor, ns.parent)
                if conf.workers == 1:
                    return cls._prepared(ns, conf, resource, control).run()
                from autopush.workers.supervisor import supervise  # brings what one needs not

                return supervise(ns, conf, data_dir, human)
        except EXPECTED as exc:
            say_error(PROG, exc, ns)
            return 1

    @classmethod
    def _prepared(
        cls, ns: Namespace, conf: AutopushConfig, resource: Any, control: Control | None
    ) -> StandaloneApplication:
        """Return the application of these options, set up."""
        app = cls(conf, resource, has_own_endpoint_port(ns), control)
        app.options = ns
        app.setup()
        app.ready_file = ns.ready_file
        if control is not None:
            app.add_control(ns.control_port)
        if ns.ephemeral:
            app.close_spread = 0
        return app
