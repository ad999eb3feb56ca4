"""How many functions a message goes through: a count, so the machine does not matter.

    python bench/calls.py                   the figures; exit status 1 if one is above its bar
    python bench/calls.py --trace           also each call, indented by its depth
    python bench/calls.py --tree DIRECTORY  of another checkout

The service runs as a process of its own, as `python -m autopush` does, but for a profile function
(`sys.setprofile`) in each of its threads. This process is the sender and the user agent. After some
messages for the caches, it sends one of 1 KB with a VAPID token used before, on a connection that
is open; the user agent acknowledges it when the sender has its answer, as one afar does. So it goes
the longest of the usual ways, whatever the machine: sent, written, answered, acknowledged, deleted.
That is done several times, and the trace that came most often counts.

calls
    Python functions of `autopush` that were entered, in all threads. A coroutine counts each time
    it goes on, a comprehension as Python 3.11 has it: as a function.
functions, files
    How many different ones those are, and in how many files.
moves
    How often the next function entered is in another file than the one entered before: what
    whoever reads along has to open.
before the first rule
    The functions under way when the first rule of Web Push is applied, which is to open the token
    in the URL (`open_token`), from the one that is given the bytes to the one that calls it.
calls with libraries
    The first, and Python functions of others. Those written in C are never seen.

The commit 88736a3 makes 253 calls of 175 functions in 33 files with 137 moves, and nine functions
are under way before the first rule; with a sweep over HTTP connections, which comes once a second,
255 calls. Of all ways to count this is the nearest to what was measured there before this tool was
(255 calls, 164 functions, 31 files, 144 moves, nine functions): acknowledged before the write it
makes 184 calls, and one thread alone 212.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import runpy
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

BENCH = Path(__file__).resolve().parent
FIRST_RULE = "open_token"

WARM_UP = 8
"""Messages before the first that is counted."""

LAST_STEP = "_deleted"
"""The function which hears that the row is gone; only a little comes after that."""

QUIET = 0.15
"""Seconds without a call after which that is over, too."""

PATIENCE = 20
"""Seconds to wait for the last step, on a disk that is busy."""

TIMERS = {
    "HTTPServer._sweep",
    "SqliteFile._watch",
    "SqliteStore._watch",  # its name in older trees
    "SqliteStore._sweep_in_background",
    "Timeouts._tick",
    "Census._round",
}
"""What runs from time to time, message or not: it is left out."""

CONTROL = "AUTOPUSH_BENCH_CALLS"
"""Variable with the path of the socket by which the service is told when to count."""


class Event(NamedTuple):
    """A function is entered or left, by a return, an exception or an `await` that waits."""

    thread: int
    entered: bool
    file: str
    function: str


class Figure(NamedTuple):
    """:ivar bar: what it must not exceed; None: for information"""

    name: str
    value: int
    bar: int | None = None

    @property
    def passed(self) -> bool:
        return self.bar is None or self.value <= self.bar


# ------------------------------------------------------------------------ in the service's process


class Recorder:
    """Notes calls while it is told to."""

    def __init__(self) -> None:
        self._events: list[tuple[int, bool, Any]] = []
        self._on = False

    def profile(self, frame: Any, event: str, _arg: Any) -> None:
        """The profile function."""
        if self._on and event in ("call", "return"):
            self._events.append((threading.get_ident(), event == "call", frame.f_code))

    def obey(self, control: socket.socket) -> None:
        """Begin with each line; give what was noted when nothing has happened for a while."""
        sys.setprofile(None)
        with control, control.makefile("rw") as lines:
            for line in lines:
                if line == "begin\n":
                    self._events.clear()
                    self._on = True
                    answer: Any = None
                else:
                    answer = self._end()
                lines.write(json.dumps(answer) + "\n")
                lines.flush()

    def _end(self) -> list[Event]:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not self._has_seen(LAST_STEP):
            time.sleep(QUIET)
        count = -1
        while count != len(self._events):
            count = len(self._events)
            time.sleep(QUIET)
        self._on = False
        return [
            Event(thread, entered, code.co_filename, code.co_qualname)
            for thread, entered, code in self._events
        ]

    def _has_seen(self, function: str) -> bool:
        return any(code.co_name == function for _, _, code in self._events)


def serve() -> None:
    """Be `python -m autopush`, watched."""
    recorder = Recorder()
    control = socket.socket(socket.AF_UNIX)
    control.connect(os.environ[CONTROL])
    threading.Thread(target=recorder.obey, args=(control,), daemon=True).start()
    threading.setprofile(recorder.profile)
    sys.setprofile(recorder.profile)
    runpy.run_module("autopush", run_name="__main__", alter_sys=True)


# --------------------------------------------------------------------------------- in this process


class Watched:
    """The service, and the way to its recorder.

    :param tree: checkout whose service it is
    """

    def __init__(self, python: str, tree: Path) -> None:
        from process import MeasuredProcess, free_port

        self._home = tempfile.mkdtemp(prefix="autopush-bench-")
        path = f"{self._home}/control"
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(path)
            door.listen(1)
            port = free_port()
            words = [__file__, "--data_dir", f"{self._home}/data", "--port", str(port)]
            env = {"PYTHONPATH": str(tree), CONTROL: path}
            self._process = MeasuredProcess(python, words, b"autopush is ready", port, env=env)
            control, _ = door.accept()
        self.address = self._process.address
        self.url = self._process.url
        self._lines = control.makefile("rw")
        control.close()

    def _tell(self, word: str) -> Any:
        self._lines.write(word + "\n")
        self._lines.flush()
        return json.loads(self._lines.readline())

    def begin(self) -> None:
        """Count from now on."""
        self._tell("begin")

    def end(self) -> list[Event]:
        """Wait until all is quiet; what has happened."""
        return [Event(*event) for event in self._tell("end")]

    def close(self) -> None:
        """Stop it."""
        self._lines.close()
        self._process.close()
        shutil.rmtree(self._home, ignore_errors=True)


def record(service: Watched, count: int) -> Iterator[list[Event]]:
    """Send messages one by one; what happened in each."""
    from loadgen import Loop, Poster, connect_browsers
    from standalone import Sender

    loop, sender = Loop(), Sender(service.url)
    (browser,) = connect_browsers(loop, service.address, 1, key=sender.public)
    poster = Poster(loop, service.address)
    request = sender.request(browser)
    statuses: list[int] = []
    browser.delay = None
    poster.answered = lambda _, status: statuses.append(status)
    for number in range(WARM_UP + count):
        browser.ack = b""
        statuses.clear()
        service.begin()
        poster.send(request)
        loop.run(lambda: bool(browser.ack and statuses))
        if statuses != [201]:
            sys.exit(f"answered {statuses}")
        browser.send(browser.ack)
        events = service.end()
        if number >= WARM_UP:
            yield events


def own(events: list[Event], package: str) -> list[Event]:
    """Those of files below a folder, but for the timers of the process, with paths below it."""
    result: list[Event] = []
    depths: collections.Counter[int] = collections.Counter()
    timers: set[int] = set()
    for event in events:
        if not event.file.startswith(package):
            continue
        thread = event.thread
        if event.entered and not depths[thread] and event.function in TIMERS:
            timers.add(thread)
        if thread not in timers:
            result.append(event._replace(file=event.file.removeprefix(package)))
        depths[thread] = max(0, depths[thread] + (1 if event.entered else -1))
        if not depths[thread]:
            timers.discard(thread)
    return result


def with_stacks(events: list[Event]) -> Iterator[tuple[Event, tuple[Event, ...]]]:
    """Each function that is entered, and those which are under way in its thread."""
    stacks: dict[int, list[Event]] = collections.defaultdict(list)
    for event in events:
        stack = stacks[event.thread]
        if event.entered:
            yield event, tuple(stack)
            stack.append(event)
        elif stack:
            stack.pop()


def figures(events: list[Event], package: str) -> list[Figure]:
    """Count; see the module."""
    ours = own(events, package)
    entered = [event for event in ours if event.entered]
    files = [event.file for event in entered]
    moves = sum(last != file for last, file in itertools.pairwise(files))
    before = next(
        (len(stack) for event, stack in with_stacks(ours) if event.function == FIRST_RULE), None
    )
    if before is None:
        sys.exit(f"{FIRST_RULE} was not called")
    return [
        Figure("calls", len(entered), 200),
        Figure("functions", len({(event.file, event.function) for event in entered})),
        Figure("files", len(set(files))),
        Figure("moves between files", moves, 110),
        Figure("functions before the first rule", before, 5),
        Figure("calls with libraries", sum(event.entered for event in events)),
    ]


def trace(events: list[Event], package: str) -> Iterator[str]:
    """A line for each call; `>` where it is in another file than the last."""
    last = ""
    threads: list[int] = []
    for event, stack in with_stacks(own(events, package)):
        if event.thread not in threads:
            threads.append(event.thread)
        move = " " if event.file == last else ">"
        last = event.file
        thread = threads.index(event.thread) or " "
        yield f"{move} {thread} {'  ' * len(stack)}{event.function}  ({event.file})"


def most_common(traces: list[list[Event]], package: str) -> list[Event]:
    """The trace whose functions were entered most often in just this order; of several, the
    shortest: what comes between on a busy machine only adds to it."""

    def key(events: list[Event]) -> tuple[tuple[str, str], ...]:
        return tuple((event.file, event.function) for event in own(events, package))

    counts = collections.Counter(map(key, traces))
    common = min(counts, key=lambda functions: (-counts[functions], len(functions)))
    return [events for events in traces if key(events) == common][-1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=9, help="messages that are counted (9)")
    parser.add_argument("--trace", action="store_true", help="print each call")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the service")
    parser.add_argument("--tree", type=Path, default=BENCH.parent, help="checkout (this one)")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    tree = args.tree.resolve()
    package = f"{tree}/autopush/"
    service = Watched(args.python, tree)
    try:
        events = most_common(list(record(service, args.count)), package)
    finally:
        service.close()
    if args.trace:
        print(*trace(events, package), "", sep="\n")
    found = figures(events, package)
    for figure in found:
        bar = "" if figure.bar is None else f"<= {figure.bar:<4}"
        verdict = "" if figure.bar is None else ("ok" if figure.passed else "TOO MANY")
        print(f"{figure.name:<32} {figure.value:5} {bar} {verdict}".rstrip())
    if args.json:
        Path(args.json).write_text(json.dumps([figure._asdict() for figure in found], indent=2))
    return 0 if all(figure.passed for figure in found) else 1


if __name__ == "__main__":
    if CONTROL in os.environ:
        # The tree's own autopush, and nothing of this folder, as with `python -m autopush`.
        sys.path[:] = [path for path in sys.path if path != str(BENCH)]
        serve()
    else:
        sys.exit(main())
