"""What broadcasts cost: memory per subscribed connection, and messages while a change is told.

    python bench/broadcast.py                          20,000 connections, about three minutes
    python bench/broadcast.py --connections 5000       fewer

The server is a process of its own; this process is the load, and the source of broadcasts. See
bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from loadgen import Browser, Flow
from process import ServerProcess
from standalone import FEW, Bench, Figure, cores, percentiles, report

NAME = "remote-settings/monitor_changes"

PER_CONNECTION = 100
"""Bytes a subscription may cost."""

SPREAD = 60.0
"""Seconds in which a change must have been told to all."""

POLL = 1
"""Seconds between two looks at the source."""

P99 = 30.0
"""Milliseconds from a POST to its frame meanwhile."""

RATE = 200
"""Messages a second meanwhile."""


class Source:
    """An HTTP server with one broadcast, in a thread of its own."""

    def __init__(self) -> None:
        self.version = 1
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"broadcasts": {NAME: str(source.version)}}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Broadcast(Bench):
    """The measurement."""

    def __init__(self, server: ServerProcess, args: argparse.Namespace, source: Source) -> None:
        super().__init__(server, args)
        self.source = source
        self._told = 0
        self._last = 0.0

    def run(self, count: int) -> list[Figure]:
        """Connect, subscribe, change, and send meanwhile."""
        few = self.browsers(FEW)
        self.send(few)  # warm up
        idle = self.browsers(count, False)
        for browser in idle:
            browser.told = self._heard
        before = self._memory()
        self._subscribe(idle)
        cost = (self._memory() - before) / count
        requests = [(self.sender.request(b), b) for b in few]
        quiet = self._send(requests, self.args.seconds)
        self._told = 0
        self.source.version += 1
        start = time.monotonic()
        cpu = self.server.cpu()
        latencies = self._send(requests, SPREAD + POLL, count)
        cpu = self.server.cpu() - cpu
        took = self._last - start
        silent = self._cpu_of(requests, took)
        return [
            Figure(f"subscription, RSS, of {count}", cost, "B", PER_CONNECTION),
            Figure("change: told", self._told / count * 100, "%"),
            Figure("change: until all were told", took, "s", SPREAD + POLL + 1),
            Figure("change: CPU a connection", max(0.0, cpu - silent) / count * 1e6, "µs"),
            *percentiles("POST to frame, before", quiet),
            *(
                figure._replace(bar=P99 if figure.name.endswith("p99") else None)
                for figure in percentiles("POST to frame, while it is told", latencies)
            ),
        ]

    def _heard(self, browser: Browser) -> None:
        self._told += 1
        self._last = time.monotonic()

    def _memory(self) -> float:
        self.server.settle()
        return float(self.server.memory()[0])

    def _subscribe(self, browsers: Sequence[Browser]) -> None:
        """All of them, some at a time: nobody is told anything who has version 0."""
        for start in range(0, len(browsers), FEW):
            some = browsers[start : start + FEW]
            wanted = self._told + len(some)
            for browser in some:
                browser.say({"messageType": "broadcast_subscribe", "broadcasts": {NAME: "0"}})
            self.loop.run(lambda: self._told == wanted)  # noqa: B023

    def _send(self, requests: Sequence[Any], seconds: float, told: int = 0) -> list[float]:
        """Latencies, sorted, of messages at an even rate; until so many have been told, if any."""
        end, latencies = time.monotonic() + seconds, []
        while time.monotonic() < end and not (told and self._told >= told):
            flow = Flow(self.loop, self.posters, requests, RATE)
            flow.run()
            latencies += flow.latencies
        return sorted(latencies)

    def _cpu_of(self, requests: Sequence[Any], seconds: float) -> float:
        """CPU seconds of the same messages when nothing is told."""
        before, some = self.server.cpu(), min(seconds, 2 * self.args.seconds)
        self._send(requests, some)
        return (self.server.cpu() - before) * seconds / some


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=20_000, metavar="N")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of messages before the change (5)"
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter of the server")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    args.count, args.rounds, args.concurrency = 1000, 1, 32
    return args


def main() -> int:
    args = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < args.connections + 400:
        sys.exit(f"only {hard} files may be open (ulimit -n): choose fewer --connections")
    server_core, own_core = cores()
    if own_core is not None:
        os.sched_setaffinity(0, [own_core])
    source = Source()
    words = ["--megaphone_api_url", source.url, "--megaphone_poll_interval", str(POLL)]
    server = ServerProcess(args.python, words, server_core, None)
    try:
        bench = Broadcast(server, args, source)
        kept = report(bench.run(args.connections), bench.load_share, args)
    finally:
        server.close()
        source.close()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
