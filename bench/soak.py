"""Does memory grow? Mixed load for a long time, and what the memory of the service is made of.

    python bench/soak.py                          an hour
    python bench/soak.py --minutes 10 --warm 2 --json result.json

In turn: messages acknowledged at once, acknowledged late, with tokens never seen, stored and
fetched, and users who come and go. After each turn the service is asked for its memory
(``--memusage_port``). Fails if after the warm-up its own memory is ever more than ``--within``
percent above what it was then. Pages of the database that the kernel shows it (``file``) grow with
the database, are everybody's, and don't count.
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

from process import ServerProcess, free_port
from standalone import FEW, PARTS, Bench, cores

MIX = [part for part in PARTS if part != "idle"]
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


def soak(server: ServerProcess, port: int, args: argparse.Namespace) -> list[Sample]:
    """Load it for so long; returns the samples, and prints one a minute or so."""
    bench = Bench(server, args)
    start = time.monotonic()
    samples: list[Sample] = []
    printed = -1.0
    print(HEAD)
    while not samples or samples[-1].minute < args.minutes:
        for part in args.parts:
            PARTS[part](bench)
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
    server = ServerProcess(args.python, ["--memusage_port", str(port)], theirs, None)
    try:
        return 0 if report(soak(server, port, args), args) else 1
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
