"""The same load against two services that speak the protocol, in turn, and how they compare.

    python bench/compare.py . ../autopush-2.0              two checkouts of ours
    python bench/compare.py . bench/sides/autopush-rs.toml  another service, by a file that says
                                                           what to start (bench/side.py)
    python bench/compare.py . ../old --parts direct hello --rounds 7 --json result.json

The rounds alternate, so that a machine that gets slower or faster does so for both, and medians are
compared. CPU is that of all processes of a side, a database of its own included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from side import Side, SideError
from standalone import FEW, PARTS, Bench, cores

ONCE = {"idle"}
"""Parts that only the first round of a process can measure: memory that is free is used again."""

COMPARED = {"µs", "KiB"}
"""Units of the figures that are compared. Rates and latencies say more about the load generator."""


class Comparison:
    """The figures of both sides.

    :param benches: one for each side
    """

    def __init__(self, benches: Sequence[Bench]) -> None:
        self._benches = benches
        self.values: dict[str, list[list[float]]] = {}
        self.units: dict[str, str] = {}

    def round(self, part: str, swapped: bool) -> None:
        """One part, once against each side.

        :param swapped: the second side comes first
        """
        for number in (1, 0) if swapped else (0, 1):
            for figure in PARTS[part](self._benches[number]):
                if figure.unit in COMPARED:
                    both = self.values.setdefault(figure.name, [[], []])
                    both[number].append(figure.value)
                    self.units[figure.name] = figure.unit

    def rows(self) -> list[dict[str, Any]]:
        """Name, unit, median of each side, and how many times the first the second is."""
        rows = []
        for name, both in self.values.items():
            first, second = (statistics.median(values) for values in both)
            rows.append(
                {
                    "name": name,
                    "unit": self.units[name],
                    "first": round(first, 3),
                    "second": round(second, 3),
                    "ratio": round(second / first, 3) if first else None,
                }
            )
        return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, help="a checkout, or a TOML file")
    parser.add_argument("second", type=Path, help="the same")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=list(PARTS),
        default=list(PARTS),
        metavar="PART",
        help=f"of {', '.join(PARTS)} (all)",
    )
    parser.add_argument("--count", type=int, default=2000, help="operations a round (2000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians count (5)")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at a time (32)")
    parser.add_argument(
        "--connections", type=int, nargs=1, default=[5000], metavar="N", help="idle ones (5000)"
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter of checkouts")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="WORD",
        help="further word for the command of checkouts; repeatable",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    if args.count < FEW:
        parser.error(f"--count must be at least {FEW}")
    return args


def compare(benches: Sequence[Bench], parts: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Measure both, round by round."""
    comparison = Comparison(benches)
    for number in range(rounds):
        for part in sorted(parts, key=list(PARTS).index):
            if number == 0 or part not in ONCE:
                print(f"round {number + 1} of {rounds}: {part} ...", file=sys.stderr, flush=True)
                comparison.round(part, swapped=bool(number % 2))
    return comparison.rows()


def report(rows: Sequence[dict[str, Any]], sides: Sequence[Side], args: argparse.Namespace) -> None:
    """Print the table, and write the file."""
    names = [side.name for side in sides]
    width = max(len(row["name"]) for row in rows)
    print(f"\n{'':<{width}} {names[0]:>14} {names[1]:>14}      second / first")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:6.2f}"
        print(
            f"{row['name']:<{width}} {row['first']:14.1f} {row['second']:14.1f} {row['unit']:<4}"
            f" {ratio}"
        )
    if args.json:
        result = {
            "python": platform.python_version(),
            "machine": platform.platform(),
            "cpus": os.cpu_count(),
            "count": args.count,
            "rounds": args.rounds,
            "sides": names,
            "figures": rows,
        }
        Path(args.json).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def main() -> int:
    args = arguments()
    rounds, args.rounds = args.rounds, 1  # what each part is told
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    theirs, own = cores()
    if own is not None:
        os.sched_setaffinity(0, [own])
    with ExitStack() as stack:
        sides: list[Side] = []
        for where in (args.first, args.second):
            try:
                side = Side(where, args.python, args.option, theirs)
            except SideError as error:
                sys.exit(str(error))
            stack.callback(side.close)
            sides.append(side)
        rows = compare([Bench(side, args) for side in sides], args.parts, rounds)
        args.rounds = rounds
        report(rows, sides, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
