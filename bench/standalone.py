"""What the standalone service costs: CPU per notification and hello, memory per connection.

    python bench/standalone.py                     everything, about two minutes
    python bench/standalone.py direct hello        only these parts
    python bench/standalone.py --count 20000 --rounds 5 --json result.json

The server is a process of its own; this process is the load. See bench/README.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import random
import resource
import ssl
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from loadgen import Browser, Flow, Loop, Poster, Visitor, connect_browsers, subscribe
from process import TREE, ServerProcess

BODY = os.urandom(1024)
FEW = 100
"""Connections of the runs that are not about their number."""

FAR = 0.05
"""Seconds until an acknowledgement from afar."""

BUSY = 0.9
"""Share of a CPU from which on this process may be what is measured."""


class Figure(NamedTuple):
    """One line of the result.

    :ivar bar: what it must not exceed; None: for information
    """

    name: str
    value: float
    unit: str
    bar: float | None = None

    @property
    def passed(self) -> bool | None:
        return None if self.bar is None else self.value <= self.bar


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Sender:
    """An application server with a VAPID key."""

    def __init__(self, audience: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._audience = audience
        self._tokens = 0
        point = serialization.PublicFormat.UncompressedPoint
        public = self._key.public_key().public_bytes(serialization.Encoding.X962, point)
        self.public = b64(public)
        self.used = self.authorization()

    def authorization(self) -> str:
        """The value of an Authorization header nobody has seen before."""
        self._tokens += 1
        head = b64(b'{"typ":"JWT","alg":"ES256"}')
        claims = {
            "aud": self._audience,
            "exp": int(time.time()) + 43_200,
            "sub": f"mailto:{self._tokens}@example.com",
        }
        text = f"{head}.{b64(json.dumps(claims).encode())}"
        signature = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        raw = b"".join(part.to_bytes(32, "big") for part in signature)
        return f"vapid t={text}.{b64(raw)}, k={self.public}"

    def request(self, browser: Browser, authorization: str | None = None) -> bytes:
        """The bytes of a POST to a browser."""
        path = "/" + browser.endpoint.split("/", 3)[3]
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._audience.partition('//')[2]}\r\n"
            f"TTL: 60\r\nContent-Encoding: aes128gcm\r\nUser-Agent: bench\r\n"
            f"Authorization: {authorization or self.used}\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY


class Measured(Protocol):
    """What is measured: a process of ours, or the processes of a side of a comparison.

    :ivar address: where user agents connect
    :ivar endpoint: where endpoint URLs lead
    """

    @property
    def address(self) -> tuple[str, int]: ...
    @property
    def endpoint(self) -> tuple[str, int]: ...
    @property
    def url(self) -> str: ...
    def cpu(self) -> float: ...
    def memory(self) -> tuple[int, int]: ...
    def num_fds(self) -> int: ...
    def settle(self) -> None: ...
    def connections_gone(self, descriptors: int) -> None: ...


class Bench:
    """The parts; each returns figures."""

    def __init__(
        self, server: Measured, args: argparse.Namespace, tls: ssl.SSLContext | None = None
    ) -> None:
        self.server = server
        self.args = args
        self.loop = Loop(tls=tls)
        self.sender = Sender(server.url if tls is None else server.url.replace("http:", "https:"))
        self.load_share = 0.0
        self.posters = [Poster(self.loop, server.endpoint) for _ in range(args.concurrency)]
        self._idle: list[Browser] = []

    # ---- measuring

    def measure(self, work: Callable[[], object]) -> tuple[float, float]:
        """Run; returns (CPU seconds of the server, seconds), and notes how busy we were."""
        server = self.server
        server.settle()
        before, own, start = server.cpu(), time.process_time(), time.monotonic()
        work()
        seconds = time.monotonic() - start
        self.load_share = max(self.load_share, (time.process_time() - own) / seconds)
        server.settle()
        return server.cpu() - before, seconds

    def flow(self, requests: Sequence[tuple[bytes, Browser | None]], **kwargs: Any) -> list[float]:
        """Send; returns [µs of CPU a notification, notifications a second, latencies...]."""
        flow = Flow(self.loop, self.posters, requests, **kwargs)
        seconds = 0.0

        def work() -> None:
            nonlocal seconds
            seconds = flow.run()
            self.loop.run_out()

        cpu, _ = self.measure(work)
        return [cpu / flow.count * 1e6, flow.count / seconds, *flow.latencies]

    def rounds(self, run: Callable[[], list[float]]) -> tuple[float, float, list[float]]:
        """Median µs and rate of some rounds, and all latencies, sorted."""
        results = [run() for _ in range(self.args.rounds)]
        micros, rates = (statistics.median(r[i] for r in results) for i in (0, 1))
        return micros, rates, sorted(latency for r in results for latency in r[2:])

    def browsers(self, count: int, subscribe: bool = True) -> list[Browser]:
        """Connect new users."""
        key = self.sender.public if subscribe else None
        return connect_browsers(self.loop, self.server.address, count, key=key)

    def disconnect(self, browsers: Sequence[Browser]) -> None:
        """Let them go, and wait until the server has noticed."""
        left = self.server.num_fds() - len(browsers)
        for browser in browsers:
            browser.close()
        self.server.connections_gone(left)

    # ---- the parts

    def send(self, browsers: Sequence[Browser], fresh: bool = False) -> list[float]:
        """To each in turn; see :meth:`flow`."""
        count, sender = self.args.count, self.sender
        targets = [browsers[i % len(browsers)] for i in range(count)]
        return self.flow(
            [(sender.request(b, sender.authorization() if fresh else None), b) for b in targets]
        )

    def direct(self) -> list[Figure]:
        """To connected browsers, with a VAPID token used before."""
        browsers = self.browsers(FEW)
        self.send(browsers)  # warm up
        micros, rate, latencies = self.rounds(lambda: self.send(browsers))
        targets = [(self.sender.request(b), b) for b in browsers]
        half = Flow(self.loop, self.posters, targets * (self.args.count // FEW), rate / 2)
        half.run()
        self.disconnect(browsers)
        return [
            Figure("direct: CPU", micros, "µs", 300),
            Figure("direct: rate", rate, "/s"),
            *percentiles("direct: POST to frame at full load", latencies),
            *percentiles("direct: POST to frame at half load", sorted(half.latencies)),
        ]

    def fresh(self) -> list[Figure]:
        """To connected browsers, with VAPID tokens never seen."""
        browsers = self.browsers(FEW)
        micros, rate, _ = self.rounds(lambda: self.send(browsers, fresh=True))
        self.disconnect(browsers)
        return [
            Figure("direct, VAPID token never seen: CPU", micros, "µs", 450),
            Figure("direct, VAPID token never seen: rate", rate, "/s"),
        ]

    def late(self) -> list[Figure]:
        """To connected browsers far away, so that every message is stored and deleted again."""
        browsers = self.browsers(FEW)
        for browser in browsers:
            browser.delay = FAR
        micros, rate, _ = self.rounds(lambda: self.send(browsers))
        self.disconnect(browsers)
        name = f"direct, acknowledged after {FAR * 1000:g} ms"
        return [Figure(f"{name}: CPU", micros, "µs", 300), Figure(f"{name}: rate", rate, "/s")]

    def stored(self) -> list[Figure]:
        """To browsers that are away; then they fetch what waits for them."""
        browsers = self.browsers(FEW)
        self.disconnect(browsers)
        each = self.args.count // FEW
        requests = [(self.sender.request(b), None) for b in browsers] * each
        sent: list[list[float]] = []
        fetched: list[list[float]] = []
        for _ in range(self.args.rounds):
            sent.append(self.flow(requests))
            fetched.append(self._fetch([b.uaid or "" for b in browsers], len(requests)))
        micros, rate = (statistics.median(r[i] for r in sent) for i in (0, 1))
        return [
            Figure("stored: CPU", micros, "µs", 350),
            Figure("stored: rate", rate, "/s"),
            Figure(
                "stored, then fetched: CPU of the fetch",
                statistics.median(r[0] for r in fetched),
                "µs",
            ),
            Figure(
                "stored, then fetched: rate of the fetch",
                statistics.median(r[1] for r in fetched),
                "/s",
            ),
        ]

    def _fetch(self, uaids: Sequence[str], count: int) -> list[float]:
        arrived = 0

        def notified(browser: Browser) -> None:
            nonlocal arrived
            arrived += 1

        def ready(browser: Browser) -> None:
            browsers.append(browser)

        browsers: list[Browser] = []

        def work() -> None:
            for uaid in uaids:
                Browser(self.loop, self.server.address, ready, uaid).notified = notified
            self.loop.run(lambda: arrived == count)

        cpu, seconds = self.measure(work)
        self.disconnect(browsers)
        return [cpu / count * 1e6, count / seconds]

    def hello(self) -> list[Figure]:
        """WebSocket connections and hellos of new and of returning users."""
        count = self.args.count
        new: list[float] = []
        back: list[float] = []
        rates: list[float] = []
        for _ in range(self.args.rounds):
            users: list[Browser] = []
            cpu, seconds = self.measure(lambda: users.extend(self.browsers(count, False)))  # noqa: B023
            new.append(cpu / count * 1e6)
            rates.append(count / seconds)
            # Who has no channel isn't known when it returns.
            subscribe(self.loop, users, self.sender.public)
            self.disconnect(users)
            uaids = [user.uaid or "" for user in users]
            users = []
            cpu, _ = self.measure(
                lambda: users.extend(  # noqa: B023
                    connect_browsers(self.loop, self.server.address, count, uaids)  # noqa: B023
                )
            )
            back.append(cpu / count * 1e6)
            self.disconnect(users)
        return [
            Figure("connect and hello, new user: CPU", statistics.median(new), "µs", 500),
            Figure("connect and hello, new user: rate", statistics.median(rates), "/s"),
            Figure("connect and hello, returning user: CPU", statistics.median(back), "µs"),
        ]

    def visit(self) -> list[Figure]:
        """From the TCP connection to its end after a close frame, of new and of known users."""
        count, known = self.args.count, self.browsers(self.args.count)
        self.disconnect(known)
        uaids = [user.uaid or "" for user in known]
        new: list[float] = []
        back: list[float] = []
        for _ in range(self.args.rounds):
            new.append(self._visits(None) / count * 1e6)
            back.append(self._visits(uaids) / count * 1e6)
        return [
            Figure("connect, hello, close, new user: CPU", statistics.median(new), "µs", 500),
            Figure("connect, hello, close, returning user: CPU", statistics.median(back), "µs"),
        ]

    def _visits(self, uaids: Sequence[str] | None) -> float:
        count, address = self.args.count, self.server.address
        return self.measure(
            lambda: connect_browsers(self.loop, address, count, uaids, browser=Visitor)
        )[0]

    def idle(self) -> list[Figure]:
        """Memory of idle connections; and what a notification costs among many of them."""
        figures: list[Figure] = []
        few = self.browsers(FEW)
        self.send(few)  # warm up
        before = self._median(few)
        self.server.settle()
        base = self.server.memory()
        idle: list[Browser] = []
        for count in sorted(self.args.connections):
            idle += self.browsers(count - len(idle), False)
            self.server.settle()
            rss, pss = (
                (now - then) / len(idle) / 1024
                for now, then in zip(self.server.memory(), base, strict=True)
            )
            bar = 6 if count >= 10_000 else None
            figures += [
                Figure(f"idle connection, RSS, of {count}", rss, "KiB", bar),
                Figure(f"idle connection, PSS, of {count}", pss, "KiB"),
            ]
        among_many = self._median(few)
        subscribe(self.loop, idle, self.sender.public)
        random.shuffle(idle)
        to_many = self._median(idle)
        self.disconnect(idle)
        # A machine may slow down or speed up meanwhile: compare with before and after.
        among_few = (before + self._median(few)) / 2
        self.disconnect(few)
        return [
            *figures,
            Figure(f"direct, with {FEW} connections: CPU", among_few, "µs"),
            Figure(f"direct, same with {len(idle)} more idle ones: CPU", among_many, "µs"),
            Figure("direct, the latter in relation", among_many / among_few * 100, "%", 110),
            Figure(f"direct, to ever others of {len(idle)}: CPU", to_many, "µs"),
        ]

    def _median(self, browsers: Sequence[Browser]) -> float:
        return statistics.median(self.send(browsers)[0] for _ in range(self.args.rounds))


# Memory first: what the other parts leave to be used again would not count.
PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "idle": Bench.idle,
    "direct": Bench.direct,
    "fresh": Bench.fresh,
    "late": Bench.late,
    "stored": Bench.stored,
    "hello": Bench.hello,
    "visit": Bench.visit,
}


def percentiles(name: str, latencies: Sequence[float]) -> list[Figure]:
    """Median and 99th percentile of sorted seconds, as ms."""
    return [
        Figure(f"{name}, p{p}", latencies[len(latencies) * p // 100] * 1000, "ms") for p in (50, 99)
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none: all"
    )
    parser.add_argument("--count", type=int, default=2000, help="operations a round (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians count (3)")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at a time (32)")
    parser.add_argument(
        "--connections",
        type=int,
        nargs="+",
        default=[5000, 10_000],
        metavar="N",
        help="numbers of idle connections (5000 10000)",
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter of the server")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="WORD",
        help="further word for the server's command line; repeatable",
    )
    parser.add_argument(
        "--tls", action="store_true", help="all over TLS (the server gets --self_signed)"
    )
    parser.add_argument(
        "--tree", default=TREE, metavar="DIRECTORY", help="checkout to measure, not this one"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--profile", metavar="FILE", help="run the server under cProfile")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if args.count < FEW:
        parser.error(f"--count must be at least {FEW}")
    return args


def trusting() -> ssl.SSLContext:
    """For clients that take any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def cores() -> tuple[int | None, int | None]:
    """One CPU for the server and one for us, if there are two."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


def report(figures: Sequence[Figure], load_share: float, args: argparse.Namespace) -> bool:
    """Print the table, write the file; returns whether every bar is kept."""
    marks = {None: "", True: "ok", False: "TOO MUCH"}
    width = max(len(figure.name) for figure in figures)
    print()
    for figure in figures:
        bar = f"<= {figure.bar:g}" if figure.bar is not None else ""
        print(
            f"{figure.name:<{width}} {figure.value:10.1f} {figure.unit:<4} {bar:<7}"
            f" {marks[figure.passed]}".rstrip()
        )
    print(f"\nload generator: at most {load_share:.0%} of a CPU")
    if load_share > BUSY:
        print("  it may have been the bottleneck: rates are too low; CPU figures stand")
    if args.json:
        result = {
            "python": platform.python_version(),
            "machine": platform.platform(),
            "cpus": os.cpu_count(),
            "count": args.count,
            "rounds": args.rounds,
            "concurrency": args.concurrency,
            "load_generator_cpu": round(load_share, 3),
            "figures": [
                {**figure._asdict(), "value": round(figure.value, 3), "passed": figure.passed}
                for figure in figures
            ],
        }
        Path(args.json).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return all(figure.passed is not False for figure in figures)


def main() -> int:
    args = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < max(args.connections) + 200:
        sys.exit(f"only {hard} files may be open (ulimit -n): choose fewer --connections")
    server_core, own_core = cores()
    if own_core is not None:
        os.sched_setaffinity(0, [own_core])
    options = [*args.option, "--self_signed"] if args.tls else args.option
    server = ServerProcess(args.python, options, server_core, args.profile, args.tree)
    try:
        bench = Bench(server, args, trusting() if args.tls else None)
        figures: list[Figure] = []
        for name in sorted(args.parts, key=list(PARTS).index) if args.parts else PARTS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            figures += PARTS[name](bench)
        kept = report(figures, bench.load_share, args)
    finally:
        server.close()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
