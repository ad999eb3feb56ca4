"""What a cluster costs: CPU of an endpoint node and of a connection node.

    python bench/cluster.py                        all kinds of store, some minutes
    python bench/cluster.py sqlite --parts direct  only this
    python bench/cluster.py dynamodb --json result.json

The nodes are processes of their own. In place of DynamoDB stands canned_dynamodb.py, a process,
too, so that only the client's cost is in the figures. This process is the load. See README.md here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cryptography.fernet import Fernet
from loadgen import Browser, Flow, Loop, Poster, connect_browsers, subscribe
from metering import Units
from process import TREE, MeasuredProcess, free_port
from standalone import FEW, Figure, Sender

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autopush.tests.db.postgresql.server import Server

STORES = ("dynamodb", "stock", "sqlite", "postgresql")
"""``stock`` is DynamoDB by botocore's own way, as where a proxy stands before it."""
ENTRY = "import sys; from autopush.__main__ import {0} as main; {1}sys.exit(main())"
STOCK = "import autopush.db.dynamodb.client as c; c.use_thin_transport = lambda *a: None; "


class Bars(NamedTuple):
    """CPU, µs, that must not be exceeded."""

    direct_endpoint: float
    direct_node: float
    stored_endpoint: float
    hello_new: float
    hello_back: float


BARS = {
    "dynamodb": Bars(1400, 150, 3200, 1500, 3500),
    "stock": Bars(1400, 150, 3200, 1500, 3500),
    "sqlite": Bars(350, 150, 450, 500, 600),
    "postgresql": Bars(300, 150, 450, 500, 450),
}


class Cluster:
    """One connection node, one endpoint node, and their store."""

    def __init__(self, store: str, args: argparse.Namespace) -> None:
        self.store = store
        self.python = args.python
        self.tree = args.tree
        self.canned: MeasuredProcess | None = None
        self.metered = args.units and store in ("dynamodb", "stock")
        self._directory = tempfile.TemporaryDirectory(prefix="autopush-bench-")
        usable = sorted(os.sched_getaffinity(0)) if args.pin else []
        first, last = (usable[0], usable[-1]) if len(usable) > 1 else (None, None)
        env = {}
        options = ["--db_dsn", f"sqlite://{self._directory.name}/db.sqlite3"]
        self.server: Server | None = None
        if store == "postgresql":
            # With its settings for a crash of the machine: what commits cost belongs to the rates.
            self.server = Server("-c", "fsync=on", "-c", "full_page_writes=on").start()
            options = ["--db_dsn", self.server.new_schema()]
        elif store != "sqlite":
            port = free_port()
            script = str(Path(__file__).with_name("canned_dynamodb.py"))
            ready = b"canned DynamoDB is ready"
            self.canned = MeasuredProcess(args.python, [script, str(port)], ready, port, last)
            env["AWS_LOCAL_DYNAMODB"] = f"http://127.0.0.1:{port}"
            options = ["--db_dsn", "dynamodb:"]
        api, public, internal = free_port(), free_port(), free_port()
        options += ["--hostname", "127.0.0.1", "--no_aws", "--statsd_host", ""]
        options += ["--crypto_key", Fernet.generate_key().decode(), "--endpoint_port", str(api)]
        options += ["--msg_limit", "1000000", *args.option]
        stock = STOCK if store == "stock" else ""
        node = ["-c", ENTRY.format("connection", stock), *options]
        node += ["--port", str(public), "--router_port", str(internal)]
        endpoint = ["-c", ENTRY.format("endpoint", stock), *options, "--port", str(api)]
        profiles = [None, None]
        if args.profile:
            profiles = [f"{args.profile}.{store}.{part}" for part in ("node", "endpoint")]
        self.node = self._start(node, public, first, profiles[0], env)
        self.endpoint = self._start(endpoint, api, first, profiles[1], env)

    def _start(self, words: list[str], port: int, core: int | None, profile: str | None, env: Any):
        if profile:
            # cProfile takes a file, not -c.
            script = Path(self._directory.name) / f"{Path(profile).name}.py"
            script.write_text(words[1])
            words = [str(script), *words[2:]]
        return MeasuredProcess(self.python, words, None, port, core, profile, env, self.tree)

    @property
    def calls(self) -> dict[str, int]:
        """How often DynamoDB was asked for what, so far."""
        return self._ask("calls") if self.canned is not None else {}

    @property
    def units(self) -> Units:
        """What that has cost."""
        return Units(*self._ask("units")) if self.metered else Units()

    def _ask(self, path: str) -> Any:
        assert self.canned is not None
        with urllib.request.urlopen(f"{self.canned.url}/{path}") as answer:
            return json.load(answer)

    def close(self) -> None:
        """Stop all."""
        for process in (self.endpoint, self.node, self.canned):
            if process is not None:
                process.close()
        if self.server is not None:
            self.server.close()
        self._directory.cleanup()


class Cost(NamedTuple):
    """What some operations cost, each: µs of CPU, calls of DynamoDB, and its units."""

    endpoint: float
    node: float
    calls: dict[str, float]
    rate: float
    units: Units


class Bench:
    """The parts; each returns figures."""

    def __init__(self, cluster: Cluster, args: argparse.Namespace) -> None:
        self.cluster = cluster
        self.args = args
        self.loop = Loop()
        self.sender = Sender(cluster.endpoint.url)
        address = cluster.endpoint.address
        self.posters = [Poster(self.loop, address) for _ in range(args.concurrency)]
        self.bars = BARS[cluster.store]

    # ---- measuring

    def measure(self, work: Callable[[], float], count: int) -> Cost:
        """Run ``work``, which returns seconds."""
        endpoint, node = self.cluster.endpoint, self.cluster.node
        for process in (endpoint, node):
            process.settle()
        calls, units = self.cluster.calls, self.cluster.units
        before = endpoint.cpu(), node.cpu()
        seconds = work()
        for process in (endpoint, node):
            process.settle()
        spent = endpoint.cpu() - before[0], node.cpu() - before[1]
        after = self.cluster.calls
        made = {
            name: (total - calls.get(name, 0)) / count
            for name, total in after.items()
            if total > calls.get(name, 0)
        }
        used = self.cluster.units.minus(units).each(count)
        return Cost(spent[0] / count * 1e6, spent[1] / count * 1e6, made, count / seconds, used)

    def rounds(self, run: Callable[[], Cost]) -> Cost:
        """Medians of some rounds."""
        costs = [run() for _ in range(self.args.rounds)]
        endpoint, node, rate = (
            statistics.median(getattr(cost, name) for cost in costs)
            for name in ("endpoint", "node", "rate")
        )
        return Cost(endpoint, node, costs[-1].calls, rate, costs[-1].units)

    def send(self, requests: Sequence[tuple[bytes, Browser | None]]) -> Cost:
        """Send notifications."""
        return self.measure(Flow(self.loop, self.posters, requests).run, len(requests))

    def browsers(self, count: int, uaids: Sequence[str] | None = None, key: str | None = None):
        """Connect users."""
        return connect_browsers(self.loop, self.cluster.node.address, count, uaids, key)

    def disconnect(self, browsers: Sequence[Browser]) -> None:
        """Let them go, and wait until the node has noticed."""
        node = self.cluster.node
        left = node.process.num_fds() - len(browsers)
        for browser in browsers:
            browser.close()
        node.connections_gone(left)

    def _figure(self, name: str, value: float, bar: float | None = None, unit: str = "µs"):
        return Figure(f"{self.cluster.store}: {name}", value, unit, bar)

    def _calls(self, name: str, cost: Cost) -> list[Figure]:
        if not cost.calls:
            return []
        text = ", ".join(f"{call} {times:.2f}" for call, times in sorted(cost.calls.items()))
        units = zip(("router RCU", "WCU", "messages RCU", "WCU"), cost.units, strict=True)
        used = ", ".join(f"{what} {count:.2f}" for what, count in units)
        figures = [self._figure(f"{name}: calls ({text})", sum(cost.calls.values()), None, "")]
        if self.cluster.metered:
            figures.append(self._figure(f"{name}: units ({used})", sum(cost.units), None, ""))
        return figures

    # ---- the parts

    def direct(self) -> list[Figure]:
        """To connected browsers."""
        browsers = self.browsers(FEW, key=self.sender.public)
        targets = [browsers[i % FEW] for i in range(self.args.count)]
        requests = [(self.sender.request(browser), browser) for browser in targets]
        self.send(requests)  # warm up
        cost = self.rounds(lambda: self.send(requests))
        self.disconnect(browsers)
        return [
            self._figure("direct: endpoint node", cost.endpoint, self.bars.direct_endpoint),
            self._figure("direct: connection node", cost.node, self.bars.direct_node),
            self._figure("direct: rate", cost.rate, None, "/s"),
            *self._calls("direct", cost),
        ]

    def stored(self) -> list[Figure]:
        """To browsers that are away; then they fetch what waits for them."""
        browsers = self.browsers(FEW, key=self.sender.public)
        self.disconnect(browsers)
        requests = [(self.sender.request(b), None) for b in browsers]
        requests *= self.args.count // FEW
        uaids = [browser.uaid or "" for browser in browsers]
        fetched: list[Cost] = []

        def run() -> Cost:
            cost = self.send(requests)
            fetched.append(self._fetch(uaids, len(requests)))
            return cost

        cost = self.rounds(run)
        fetch = statistics.median(cost.node for cost in fetched)
        return [
            self._figure("stored: endpoint node", cost.endpoint, self.bars.stored_endpoint),
            self._figure("stored: rate", cost.rate, None, "/s"),
            *self._calls("stored", cost),
            self._figure("stored, then fetched: connection node", fetch),
            *self._calls("fetched", fetched[-1]),
        ]

    def _fetch(self, uaids: Sequence[str], count: int) -> Cost:
        browsers: list[Browser] = []
        arrived = 0

        def notified(browser: Browser) -> None:
            nonlocal arrived
            arrived += 1

        def work() -> float:
            for uaid in uaids:
                Browser(
                    self.loop, self.cluster.node.address, browsers.append, uaid
                ).notified = notified
            self.loop.run(lambda: arrived == count)
            return 1.0

        cost = self.measure(work, count)
        self.disconnect(browsers)
        return cost

    def hello(self) -> list[Figure]:
        """Connections and hellos of new and of returning users."""
        new: list[Cost] = []
        subscribed: list[Cost] = []
        back: list[Cost] = []
        for _ in range(self.args.rounds):
            users: list[Browser] = []
            new.append(self._hello(users, None))
            # Who has no channel isn't known when it returns.
            subscribed.append(self._subscribe(users))
            self.disconnect(users)
            uaids = [user.uaid or "" for user in users]
            users = []
            back.append(self._hello(users, uaids))
            self.disconnect(users)
        figures: list[Figure] = []
        for name, costs, bar in (
            ("connect and hello, new user", new, self.bars.hello_new),
            ("first subscription", subscribed, None),
            ("connect and hello, returning user", back, self.bars.hello_back),
        ):
            micros = statistics.median(cost.node for cost in costs)
            rate = statistics.median(cost.rate for cost in costs)
            figures += [
                self._figure(name, micros, bar),
                self._figure(f"{name}: rate", rate, None, "/s"),
                *self._calls(name.removeprefix("connect and "), costs[-1]),
            ]
        return figures

    def _subscribe(self, users: Sequence[Browser]) -> Cost:
        def work() -> float:
            start = os.times().elapsed
            subscribe(self.loop, users, self.sender.public)
            return os.times().elapsed - start

        return self.measure(work, len(users))

    def _hello(self, users: list[Browser], uaids: Sequence[str] | None) -> Cost:
        count = self.args.count

        def work() -> float:
            start = os.times().elapsed
            users.extend(self.browsers(count, uaids))
            return os.times().elapsed - start

        return self.measure(work, count)


PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "direct": Bench.direct,
    "stored": Bench.stored,
    "hello": Bench.hello,
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="*", help=f"of {', '.join(STORES)}; all by default")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--count", type=int, default=2000, help="operations a round (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians count (3)")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at a time (32)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the nodes")
    parser.add_argument(
        "--tree", default=TREE, metavar="DIRECTORY", help="checkout to measure, not this one"
    )
    parser.add_argument("--pin", action="store_true", help="nodes on one CPU, the rest on another")
    parser.add_argument(
        "--option", action="append", default=[], metavar="WORD",
        help="further word for the nodes' command lines; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--units", action="store_true", help="count DynamoDB's units, too: its answers take longer"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--profile", metavar="FILE", help="cProfile of the nodes into FILE.<store>.<node>"
    )
    args = parser.parse_args()
    if set(args.stores) - set(STORES):
        parser.error(f"stores are {', '.join(STORES)}")
    if args.count < FEW:
        parser.error(f"--count must be at least {FEW}")
    return args


def main() -> int:
    """Run and print; returns the exit status."""
    args = arguments()
    figures: list[Figure] = []
    for store in args.stores or STORES:
        cluster = Cluster(store, args)
        try:
            bench = Bench(cluster, args)
            for name in args.parts:
                print(f"{store}: {name} ...", file=sys.stderr, flush=True)
                figures += PARTS[name](bench)
        finally:
            cluster.close()
    marks = {None: "", True: "ok", False: "TOO MUCH"}
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        bar = f"<= {figure.bar:g}" if figure.bar is not None else ""
        line = f"{figure.name:<{width}} {figure.value:10.1f} {figure.unit:<3} {bar:<8}"
        print(f"{line} {marks[figure.passed]}".rstrip())
    if args.json:
        rows = [{**figure._asdict(), "passed": figure.passed} for figure in figures]
        Path(args.json).write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    return 0 if all(figure.passed is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
