"""Does memory grow? Mixed load for a long time, and what the memory of the service is made of.

    python bench/soak.py                          an hour
    python bench/soak.py --minutes 10 --warm 4 --json result.json
    nice python bench/soak.py --pause 5            a moderate load, beside other work

First the caches are filled: what a service remembers is bounded (docs/running.rst, Memory), and the
mix alone would need an hour to get there, which would look like growth. ``--fill`` users connect
and subscribe, each is sent a message by a sender of its own, with a key and a token never seen, and
when it is away a second one, which is stored. That is what a day brings to a service of that size.

Then, in turn: messages acknowledged at once, acknowledged late, with tokens never seen, stored and
fetched, and users who come and go. After each turn the service is asked for its memory
(``--memusage_port``). Fails if after the warm-up, of which filling is a part, its own memory is
ever more than ``--within`` percent above what it was at the end of that. Pages of the database that
the kernel shows it (``file``) grow with the database, are everybody's, and don't count.

Limits are those of the standalone service as it comes, with two exceptions: the one sender and the
hundred users of the mix may be sent a hundred times as much a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from loadgen import connect_browsers
from process import ServerProcess, free_port
from standalone import FEW, PARTS, Bench, Sender, cores

MIX = [part for part in PARTS if part != "idle"]
LIMITS = {
    "msg_limit": 0,
    "max_stored": 10_000,
    "max_stored_bytes": 64 * 1024 * 1024,
    "rate_subscription": 60_000,
    "burst_subscription": 100_000,
    "rate_sender": 6_000_000,
    "burst_sender": 10_000_000,
}
"""Of the standalone service; see the module for the rates."""

GROWN = 15
"""Types of objects shown that have become more."""

MiB = 1024 * 1024


class Sample(NamedTuple):
    """The memory of the service at one time.

    :ivar minute: since the start
    :ivar own: what the kernel counts as the process' own (RssAnon), bytes
    :ivar file: pages of files it has looked at (RssFile, RssShmem), bytes
    :ivar malloc: got from the system by the C library's allocator, bytes
    :ivar malloc_free: of these, not in use
    :ivar sqlite: in use by SQLite, bytes
    :ivar blocks: objects and the like in Python's own allocator
    :ivar objects: those that the garbage collector knows, by type
    """

    minute: float
    own: int
    file: int
    malloc: int
    malloc_free: int
    sqlite: int
    blocks: int
    objects: Counter[str]

    def line(self) -> str:
        """One row of the table."""
        sizes = (self.own, self.file, self.malloc, self.malloc_free, self.sqlite)
        columns = "".join(f"{size / MiB:12.2f}" for size in sizes)
        return f"{self.minute:8.1f}{columns}{self.blocks:12}{self.objects.total():12}"


HEAD = (
    f"{'minute':>8}{'own MiB':>12}{'file':>12}{'malloc':>12}{'free in it':>12}{'SQLite':>12}"
    f"{'blocks':>12}{'objects':>12}"
)


def sample(server: ServerProcess, port: int, minute: float) -> Sample:
    """Ask the service for its memory."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_memusage") as answer:
        text = answer.read().decode()
    # The totals stand behind the arenas.
    totals = text[text.rindex("</heap>") :]
    free = sum(int(n) for n in re.findall(r'<total type="(?:fast|rest)" .*?size="(\d+)"', totals))
    system = sum(
        int(n)
        for pattern in (
            r'<system type="current" size="(\d+)"',
            r'type="mmap" count="\d+" size="(\d+)"',
        )
        for n in re.findall(pattern, totals)
    )
    objects = Counter(
        {name: int(count) for name, count in re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE)}
    )
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    resident = {
        name: int(size) * 1024
        for name, size in re.findall(r"^Rss(\w+):\s+(\d+) kB", status, re.MULTILINE)
    }
    return Sample(
        minute,
        resident["Anon"],
        resident["File"] + resident["Shmem"],
        system,
        free,
        number(r"^SQLite: (\d+) bytes", text),
        number(r"^allocated blocks: (\d+)", text),
        objects,
    )


def number(pattern: str, text: str) -> int:
    """The number a line of the memory report has; 0 without such a line."""
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long (60)")
    parser.add_argument("--warm", type=float, default=5, help="minutes that don't count (5)")
    parser.add_argument(
        "--fill", type=int, default=20_000, help="users whose visit fills the caches first (20000)"
    )
    parser.add_argument(
        "--pause", type=float, default=0, help="seconds between two parts, for a lower load (0)"
    )
    parser.add_argument("--within", type=float, default=2, help="percent it may have more (2)")
    parser.add_argument(
        "--parts", nargs="+", choices=MIX, default=MIX, metavar="PART", help=f"of {', '.join(MIX)}"
    )
    parser.add_argument("--count", type=int, default=10_000, help="operations a part (10000)")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at a time (32)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the server")
    parser.add_argument("--json", metavar="FILE", help="write the samples there, too")
    args = parser.parse_args()
    if args.count < FEW:
        parser.error(f"--count must be at least {FEW}")
    args.rounds, args.connections = 1, [0]
    return args


def fill(bench: Bench, users: int) -> None:
    """Bring what the service remembers to its bounds, with as many users at a time as there are
    later."""
    while users > 0:
        count = min(users, bench.args.count)
        users -= count
        # Not restricted to a key, as each has a sender of its own.
        browsers = connect_browsers(bench.loop, bench.server.address, count, key="")
        senders = [(Sender(bench.server.url), browser) for browser in browsers]
        bench.flow([(sender.request(browser), browser) for sender, browser in senders])
        bench.disconnect(browsers)
        bench.flow([(sender.request(browser), None) for sender, browser in senders])


def soak(server: ServerProcess, port: int, args: argparse.Namespace) -> list[Sample]:
    """Load it for so long; returns the samples, and prints one a minute or so."""
    bench = Bench(server, args)
    start = time.monotonic()
    samples: list[Sample] = []
    printed = -1.0
    print(HEAD)
    fill(bench, args.fill)
    while not samples or samples[-1].minute < args.minutes:
        for part in args.parts:
            PARTS[part](bench)
            time.sleep(args.pause)
        samples.append(sample(server, port, (time.monotonic() - start) / 60))
        if samples[-1].minute >= printed + 1:
            printed = samples[-1].minute
            print(samples[-1].line(), flush=True)
    return samples


def report(samples: list[Sample], args: argparse.Namespace) -> bool:
    """Say what has grown; returns whether it stayed within its bounds."""
    warm = [one for one in samples if one.minute >= args.warm] or samples[-1:]
    base, last = warm[0], warm[-1]
    most = max(warm, key=lambda one: one.own)
    percent = (most.own / base.own - 1) * 100
    kept = percent <= args.within
    print(
        f"\nOwn memory at minute {base.minute:.1f}: {base.own / MiB:.2f} MiB; at most"
        f" {most.own / MiB:.2f} MiB (minute {most.minute:.1f}): {percent:+.2f} %,"
        f" bar {args.within:g} %: {'ok' if kept else 'TOO MUCH'}"
    )
    for name, then, now in (
        ("malloc", base.malloc, last.malloc),
        ("free in it", base.malloc_free, last.malloc_free),
        ("SQLite", base.sqlite, last.sqlite),
    ):
        print(f"  {name}: {then / MiB:.2f} -> {now / MiB:.2f} MiB ({(now - then) / MiB:+.2f})")
    print(f"  blocks: {base.blocks} -> {last.blocks} ({last.blocks - base.blocks:+})")
    grown = last.objects - base.objects
    for name, count in grown.most_common(GROWN):
        print(f"  {name}: {base.objects[name]} -> {last.objects[name]} (+{count})")
    if args.json:
        rows: list[dict[str, Any]] = [one._asdict() for one in samples]
        Path(args.json).write_text(json.dumps({"within": kept, "samples": rows}, indent=1) + "\n")
    return kept


def main() -> int:
    args = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    theirs, own = cores()
    if own is not None:
        os.sched_setaffinity(0, [own])
    port = free_port()
    limits = [word for name, value in LIMITS.items() for word in (f"--{name}", str(value))]
    server = ServerProcess(args.python, ["--memusage_port", str(port), *limits], theirs, None)
    try:
        return 0 if report(soak(server, port, args), args) else 1
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
