"""The workers of one service, as the supervisor sees them: who runs, and who is started again when.

::

    starting ──ready──▶ serving ──ends──▶ waiting ──delay──▶ starting ...
        │                  │ no sign of life for HANGS_AFTER: killed
        └──ends────────────┴──────────▶ waiting

A worker that ends is started again at once, so that its users are back within a second. One that
ends again before it has served for :data:`STEADY` waits longer each time: it isn't going to work,
and must not keep the machine from those that do. Until all have been ready once the service is
starting: then whoever ends ends it.
"""

from __future__ import annotations

import enum
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from autopush.waiters import Waiters
from autopush.workers.channel import Channel

STEADY = 60
"""Seconds of serving after which what was before doesn't count any more."""

DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds until a worker is started again that has ended once, twice, ... without being steady."""

HANGS_AFTER = 60.0
"""Seconds without a sign of life after which a worker hangs for good. Nothing that a worker does
takes a tenth of that; a machine that swaps may make it long."""

LOOK_INTERVAL = 1.0
"""Seconds between two looks for those that hang."""

log = Logger()


class State(enum.Enum):
    """What a worker is at; see the module."""

    STARTING = "starting"
    SERVING = "serving"
    WAITING = "waiting"
    """To be started again."""
    STOPPED = "stopped"


class Process(Protocol):
    """A process that runs."""

    @property
    def pid(self) -> int: ...

    def signal(self, name: str) -> None:
        """Send ``TERM`` or ``KILL``, if it still runs."""


class Worker:
    """One of them.

    :param number: from 1
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = State.STOPPED
        self.process: Process | None = None
        self.channel: Channel | None = None
        self.failures = 0
        """How often it has ended without being steady."""
        self.restarts = 0
        self.since = 0.0
        """When it began to serve, seconds of the reactor's clock."""
        self.seen = 0.0
        """When it last gave a sign of life, or was started."""
        self.error = ""
        """Why its last start failed, if it said so."""

    @property
    def fails(self) -> bool:
        """Whether it ends again and again."""
        return self.state is not State.SERVING and self.failures > 1


class Keeper(Protocol):
    """Who does what the fleet decides."""

    def spawn(self, worker: Worker) -> Process:
        """Start the process of a worker.

        :raises OSError: that can't be done now
        """

    def rest(self, worker: Worker) -> None:
        """It will be away for a while: let the others have its connections."""

    def ready(self, worker: Worker, said: Any) -> None:
        """All serve, for the first time.

        :param said: what the last of them has to say about it (:class:`Readiness`)
        """

    def start_failed(self, worker: Worker) -> None:
        """The service can't start; all are stopped."""

    def gone(self, worker: Worker) -> None:
        """Its process has ended."""


class Fleet:
    """See the module.

    :param clock: IReactorTime
    """

    def __init__(self, clock: Any, keeper: Keeper, count: int) -> None:
        self.workers = [Worker(number) for number in range(1, count + 1)]
        self.started = False
        """Whether all have been ready once."""
        self.stopping = False
        self._clock = clock
        self._keeper = keeper
        self._timers: dict[Worker, Any] = {}
        self._stopped: Waiters[None] = Waiters()
        self._look: Any = None
        self._looked = 0.0

    def start(self) -> None:
        """Start all."""
        for worker in self.workers:
            self._spawn(worker)
        self._look_later()

    # ---- what workers say

    def ready(self, worker: Worker, said: Any) -> None:
        """A worker serves. If all are being stopped it was quick, and nobody is told."""
        if self.stopping:
            return
        worker.state = State.SERVING
        worker.since = worker.seen = self._clock.seconds()
        if self.started:
            log.info("Worker {worker} serves again", worker=worker.number)
        elif all(one.state is State.SERVING for one in self.workers):
            self.started = True
            self._keeper.ready(worker, said)

    def alive(self, worker: Worker) -> None:
        """A worker gives a sign of life."""
        worker.seen = self._clock.seconds()

    # ---- ends

    def ended(self, worker: Worker, how: str) -> None:
        """The process of a worker has ended.

        :param how: for the log
        """
        steady = worker.state is State.SERVING and self._clock.seconds() - worker.since >= STEADY
        worker.process = worker.channel = None
        worker.state = State.STOPPED
        self._keeper.gone(worker)
        if self.stopping:
            self._one_less()
        elif not self.started:
            self._keeper.start_failed(worker)
        else:
            worker.failures = 1 if steady else worker.failures + 1
            self._start_again(worker, how)

    def _start_again(self, worker: Worker, how: str) -> None:
        delay = DELAYS[min(worker.failures, len(DELAYS)) - 1]
        worker.state = State.WAITING
        if worker.error:
            how = f"{how}: {worker.error}"
        if delay:
            log.critical(
                "Worker {worker} has ended ({how}), {failures} times in a row, starting it again"
                " in {delay:g} s",
                worker=worker.number,
                how=how,
                failures=worker.failures,
                delay=delay,
            )
            self._keeper.rest(worker)
        else:
            log.error(
                "Worker {worker} has ended ({how}), starting it again",
                worker=worker.number,
                how=how,
            )
        self._timers[worker] = self._clock.callLater(delay, self._restart, worker)

    def _restart(self, worker: Worker) -> None:
        del self._timers[worker]
        try:
            self._spawn(worker)
        except OSError as error:  # of processes, files or memory there may be more later
            worker.failures += 1
            self._start_again(worker, f"not started, {error.strerror or error}")
        else:
            worker.restarts += 1

    def _spawn(self, worker: Worker) -> None:
        worker.state = State.STARTING
        worker.error = ""
        worker.seen = self._clock.seconds()
        worker.process = self._keeper.spawn(worker)

    def _look_later(self) -> None:
        self._looked = self._clock.seconds()
        self._look = self._clock.callLater(LOOK_INTERVAL, self._look_for_hanging)

    def _look_for_hanging(self) -> None:
        # Where we ourselves stood still (a terminal's Ctrl-Z), what they said is still to be read.
        now = self._clock.seconds()
        late = now - self._looked - LOOK_INTERVAL
        self._look_later()
        limit = now - HANGS_AFTER
        for worker in self.workers:
            worker.seen += late
            if worker.process is not None and worker.seen <= limit:
                log.critical(
                    "Worker {worker} gives no sign of life, killing it", worker=worker.number
                )
                worker.seen = now
                worker.process.signal("KILL")

    # ---- the end of all

    def stop(self) -> Deferred[None]:
        """Ask all to end in order; fires when they have."""
        self.stopping = True
        for timer in (self._look, *self._timers.values()):
            if timer is not None and timer.active():
                timer.cancel()
        self._timers.clear()
        self._signal("TERM")
        done = self._stopped.wait()
        self._one_less()
        return done

    def kill(self) -> None:
        """End all at once."""
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        for worker in self.workers:
            if worker.process is not None:
                worker.process.signal(name)

    def _one_less(self) -> None:
        if all(worker.process is None for worker in self.workers):
            self._stopped.fire(None)
