"""The process that starts the workers of a service, and serves nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import reactor as _reactor
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    gatherResults,
)
from twisted.internet.error import ProcessExitedAlready, ReactorNotRunning
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from autopush import __version__
from autopush.app.lifecycle import Lifecycle
from autopush.app.overview import Whole
from autopush.app.process import Listener, Timer, bind, one_signal_is_enough
from autopush.app.service import STOP_WITHIN, reopen_logs
from autopush.app.standalone import DataDir, StartError, has_own_endpoint_port
from autopush.app.starterrors import is_expected, say_error
from autopush.app.supervised import Readiness, say_ready
from autopush.app.systemd import PINGS_PER_PERIOD
from autopush.config import UNIX, AutopushConfig
from autopush.http import PrometheusHTTPFactory
from autopush.metrics import IMetrics
from autopush.options.commands import STANDALONE
from autopush.options.places import Options, places
from autopush.types import JSONDict
from autopush.workers.begin import CHANNEL, Begin, command, environment
from autopush.workers.channel import Channel, ChannelError
from autopush.workers.fleet import Fleet, Process, State, Worker
from autopush.workers.sockets import Listening, forget, socket_paths

reactor: Any = _reactor

FIRST_DESCRIPTOR = 3
"""Of those a worker is given; before are the three that every process has."""

ENDED_WITHIN = STOP_WITHIN + 2
"""Seconds after which workers that haven't ended in order are killed."""

log = Logger()


class Child(ProcessProtocol):
    """The process of a worker.

    :param begin: for its standard input
    """

    transport: Any

    def __init__(self, fleet: Fleet, worker: Worker, begin: bytes) -> None:
        self._fleet = fleet
        self._worker = worker
        self._begin = begin
        self._how = ""
        self._silent = False

    def connectionMade(self) -> None:
        self.transport.write(self._begin)
        self.transport.closeStdin()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return int(self.transport.pid)

    def signal(self, name: str) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    def processExited(self, reason: Failure) -> None:
        error: Any = reason.value
        number = getattr(error, "signal", None)
        self._how = f"signal {number}" if number else f"exit status {error.exitCode}"
        self._ended()

    def silent(self) -> None:
        """All was read that it had to say."""
        self._silent = True
        self._ended()

    def _ended(self) -> None:
        # What it said last may be why.
        if self._how and self._silent:
            self._fleet.ended(self._worker, self._how)


class Supervisor(MultiService):
    """See the module.

    :param ns: the options, as the workers are to have them
    :param conf: what they mean
    :param data_dir: stays locked until the last worker has ended
    :param log_key: hides ids in logs
    :raises CannotListenError: a port is in use or not ours to use
    """

    def __init__(
        self, ns: Namespace, conf: AutopushConfig, data_dir: DataDir, log_key: str
    ) -> None:
        super().__init__()
        self.conf = conf
        self.exit_status: int | None = None
        self.lifecycle = Lifecycle(reactor, self._reload)
        self.fleet = Fleet(reactor, self, conf.workers)
        self._ns = ns
        self._data_dir = data_dir
        self._log_key = log_key
        self._listening = listen(ns, conf)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._sockets = [] if conf.router_port else self._socket_paths()
        self._overview = Whole(conf.workers, reactor)
        self._metrics: IMetrics | None = None
        self._merged: Any = None
        if conf.prometheus_port:
            self._add_metrics()
        period = self.lifecycle.manager.watchdog_period
        if period is not None:
            alive = Timer(period / PINGS_PER_PERIOD, self.lifecycle.manager.alive)
            alive.setServiceParent(self)

    # ---- running

    def run(self) -> int | None:
        """Run until a signal, or an error while starting.

        :returns: exit status, None for 0
        """
        self.lifecycle.prepare()
        reactor.addSystemEventTrigger("before", "shutdown", self._shutdown)
        reactor.callWhenRunning(self._start)
        reactor.run()
        return self.exit_status

    def _start(self) -> None:
        one_signal_is_enough()
        try:
            self.startService()
            self.fleet.start()
        except Exception as error:
            if not is_expected(error):
                log.failure("Unexpected error")
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.exit_status is None:
            self.exit_status = 1
            say_error(STANDALONE.name, error, self._ns)
            with contextlib.suppress(ReactorNotRunning):
                reactor.stop()

    def _shutdown(self) -> Deferred[None]:
        self._kill_at_next_signal()
        self.lifecycle.stopping()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        # Nobody waits at a port at which nothing will come any more.
        for listening in self._listening.values():
            listening.close()
        stopped = self.fleet.stop()
        try:
            await stopped.addTimeout(ENDED_WITHIN, reactor)
        except (TimeoutError, CancelledError):
            log.error("Killing workers that don't end")
            self.fleet.kill()
        await self.stopService()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _kill_at_next_signal(self) -> None:
        def leave(number: int, frame: Any) -> None:
            self.fleet.kill()
            os._exit(1)

        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread: a test
                signal.signal(number, leave)

    def _reload(self) -> None:
        """Do what SIGHUP asks for, and have the workers do it."""
        for worker in self.fleet.workers:
            if worker.channel is not None:
                worker.channel.tell("reload")
        reopen_logs()

    def _socket_paths(self) -> list[str]:
        """Paths of Unix sockets that nobody else may reach."""
        try:
            return socket_paths(str(self._data_dir.path), self.conf.workers)
        except OSError:
            self._temporary = tempfile.TemporaryDirectory(prefix="autopush-")
            return socket_paths(self._temporary.name, self.conf.workers)

    # ---- for the fleet

    def spawn(self, worker: Worker) -> Process:
        """Start a worker's process.

        :raises OSError: that can't be done now
        """
        ours, its = socket.socketpair()
        with ours, its:
            child = self._spawn(worker, its)
            worker.channel = self._channel(worker, ours, child.silent)
        return child

    def _spawn(self, worker: Worker, its: socket.socket) -> Child:
        index = worker.number - 1
        given: dict[str, int] = {CHANNEL: its.fileno()}
        for option, listening in self._listening.items():
            listening.resume(index)
            given[option] = listening.sockets[index].fileno()
        if self._data_dir.descriptor is not None:
            # It holds the lock of the directory as long as it runs, whatever becomes of us.
            given["lock"] = self._data_dir.descriptor
        numbers = {option: n for n, option in enumerate(given, FIRST_DESCRIPTOR)}
        begin = Begin(
            sys.path,
            worker.number,
            vars(self._ns),
            self._log_key,
            numbers,
            self._sockets,
            self.lifecycle.manager.watchdog_period,
        )
        child = Child(self.fleet, worker, begin.dump())
        files: dict[int, Any] = {0: "w", 1: 1, 2: 2}
        files.update((numbers[option], descriptor) for option, descriptor in given.items())
        name = f"{STANDALONE.name}: worker {worker.number}"
        with sigint_blocked():
            reactor.spawnProcess(
                child, sys.executable, command(name), environment(), childFDs=files
            )
        return child

    def _channel(self, worker: Worker, ours: socket.socket, ended: Callable[[], None]) -> Channel:
        def failed(text: str) -> None:
            worker.error = text

        channel = Channel(
            reactor,
            {
                "ready": lambda said: self.fleet.ready(worker, said),
                "alive": lambda _: self.fleet.alive(worker),
                "failed": failed,
            },
            {"whole": self.whole, "overview": self.overview},
            ended,
        )
        factory = Factory.forProtocol(lambda: channel)
        factory.noisy = False
        reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        return channel

    def rest(self, worker: Worker) -> None:
        """Let the others have its connections."""
        for listening in self._listening.values():
            listening.rest(worker.number - 1)

    def ready(self, worker: Worker, said: list[Any]) -> None:
        """All serve."""
        readiness = Readiness(*said)
        readiness = readiness._replace(facts=readiness.facts | {"pid": os.getpid()})
        try:
            say_ready(readiness, self._ns.ready_file)
        except OSError as error:
            self._fail(error)
            return
        status = f"Serving with {self.conf.workers} workers, version {__version__}"
        self.lifecycle.started(status, None)

    def start_failed(self, worker: Worker) -> None:
        """Say why the service can't start."""
        self._fail(StartError(worker.error or f"Worker {worker.number} has ended while starting"))

    def gone(self, worker: Worker) -> None:
        """Keep what it has counted."""
        self._overview.ended(worker.number)
        if self._sockets:
            forget(self._sockets[worker.number - 1])
        if self._merged is not None:
            self._merged.ended(worker.number)

    # ---- figures of the whole

    async def whole(self) -> JSONDict:
        """How all workers are, for ``/health``."""
        workers: JSONDict = {}
        clients, users = 0, None
        for worker, answer in await self._ask_all("health"):
            name = str(worker.number)
            if isinstance(answer, str):
                # One that has ended is back in a moment.
                broken = worker.fails or worker.state is State.SERVING
                status = "NOT OK" if broken else "starting"
                workers[name] = {"status": status, "error": answer}
                continue
            clients += answer["clients"]
            users = answer["users"] if users is None else users
            workers[name] = {"status": "OK", "clients": answer["clients"]}
            if answer["errors"]:
                workers[name].update(status="NOT OK", error="; ".join(answer["errors"]))
        return {"clients": clients, "users": users, "workers": workers}

    async def overview(self) -> JSONDict:
        """What the page shows the operator."""
        return self._overview.show(
            {
                worker.number: None if isinstance(answer, str) else answer
                for worker, answer in await self._ask_all("overview")
            }
        )

    async def _ask_all(self, what: str) -> list[tuple[Worker, Any]]:
        """Return what each worker answers, or a text: why it doesn't."""
        workers = self.fleet.workers
        answers = await gatherResults([self._ask(one, what) for one in workers])
        return list(zip(workers, answers, strict=True))

    def _ask(self, worker: Worker, what: str) -> Deferred[Any]:
        """Fires with the answer of a worker, or a text: why there is none."""
        if worker.channel is None or worker.state is not State.SERVING:
            asked: Deferred[Any] = Deferred()
            asked.callback(f"the worker is {worker.state.value}")
            return asked
        return worker.channel.ask(what).addErrback(_why)

    def _add_metrics(self) -> None:
        from autopush.metrics.merged import Merged
        from autopush.metrics.prometheus import PrometheusMetrics

        self._metrics = PrometheusMetrics()
        self._metrics.on_fetch(self._report)
        self._merged = Merged()
        factory = PrometheusHTTPFactory(self.conf, self._merged.registry)
        factory.refresh = self._refresh
        conf = self.conf
        listener = Listener(
            lambda: bind(reactor, conf.prometheus_host, conf.prometheus_port or 0, factory),
            "prometheus_port",
        )
        listener.setServiceParent(self)

    async def _refresh(self) -> None:
        """Take the figures of now from all workers."""
        from autopush.metrics.merged import dump

        assert self._metrics is not None
        own: Any = self._metrics
        parts = {
            worker.number: None if isinstance(answer, str) else answer
            for worker, answer in await self._ask_all("figures")
            # One that has ended meanwhile has been counted.
            if worker.state is State.SERVING
        }
        self._merged.update({0: dump(own.registry), **parts})

    def _report(self, metrics: IMetrics) -> None:
        workers = self.fleet.workers
        metrics.gauge("workers", len(workers))
        metrics.gauge("workers.up", sum(one.state is State.SERVING for one in workers))
        for one in workers:
            tags = [f"worker:{one.number}"]
            metrics.gauge("worker.restarts", one.restarts, tags=tags)


@contextlib.contextmanager
def sigint_blocked() -> Iterator[None]:
    """Have processes that are started meanwhile never see SIGINT: before they could say that they
    ignore it, Python would end with a traceback. What we get ourselves waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _why(failure: Failure) -> str:
    failure.trap(ChannelError)
    return failure.getErrorMessage()


def listen(ns: Namespace, conf: AutopushConfig) -> dict[str, Listening]:
    """Make the sockets of the service, by their options, and note in those which ports they are.

    :raises CannotListenError: one is in use or not ours to use; then there is none
    """
    made: dict[str, Listening] = {}
    with contextlib.ExitStack() as failing:
        for option, listening in _listen(ns, conf):
            failing.callback(listening.close)
            made[option] = listening
        failing.pop_all()
    return made


def _listen(ns: Namespace, conf: AutopushConfig) -> Iterator[tuple[str, Listening]]:
    host, count = conf.host, conf.workers
    public = Listening(host, ns.port, count)
    yield "port", public
    separate = has_own_endpoint_port(ns)
    if not host.startswith(UNIX):
        ns.port = public.port
    if separate:
        api = Listening(host, ns.endpoint_port, count)
        ns.endpoint_port = api.port
        yield "endpoint_port", api
    if conf.proxy_protocol_port:
        where = "" if host.startswith(UNIX) else host
        yield "proxy_protocol_port", Listening(where, conf.proxy_protocol_port, count)


def worker_options(ns: Namespace, conf: AutopushConfig, human: bool) -> Namespace:
    """Return the options of the workers: those given, and the keys of the data directory."""
    options = Options(
        **{
            **vars(ns),
            "human_logs": human,
            "crypto_key": conf.crypto_keys,
            "auth_key": conf.bear_hash_key,
            "access_key": conf.access_keys,
            "data_dir": conf.data_dir,
        }
    )
    options.places = places(ns)
    return options


def supervise(ns: Namespace, conf: AutopushConfig, data_dir: DataDir, human: bool) -> int | None:
    """Run the service with several workers; returns its exit status.

    :param conf: with the keys of the data directory
    :param human: whether the log is text for people
    :raises CannotListenError: a port is in use or not ours to use
    """
    options = worker_options(ns, conf, human)
    return Supervisor(options, conf, data_dir, data_dir.log_key()).run()
