"""``drop_users``: delete the records of user agents that have not come back for months.

Router records never expire by themselves; messages and channels do. Only browsers' records are
looked at: users of the bridges never connect (spec/configuration 1.5, quirk C14).
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from autopush.app.progress import Progress, rate
from autopush.app.standalone import dsn_of
from autopush.config import AutopushConfig, DDBTableConfig
from autopush.db.offline import Offline, OfflineDynamo, offline_from_config
from autopush.exceptions import InvalidConfig, StoreError
from autopush.options.optionparser import Examples, OptionParser
from autopush.options.tables import COUNT, POSITIVE, SECONDS

EXAMPLES: Examples = (
    ("drop_users --dry_run", "how many users of DynamoDB would it be?"),
    ("drop_users --months-ago 6 --pause_time 5", "who has not come for half a year, slowly"),
    ("drop_users --data_dir /var/lib/autopush", "of a standalone service"),
)


def parse(args: Sequence[str] | None) -> Namespace:
    """Read the options.

    :param args: command line; None: ``sys.argv[1:]``
    :raises SystemExit: 0 for help, 2 for a bad option
    """
    parser = OptionParser(
        prog="drop_users",
        description="Deletes the records of browsers that have not connected for months.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--router_table_name", metavar="TEXT", env_var="ROUTER_TABLENAME", default="router",
        help="table of users",
    )  # fmt: skip
    parser.add_argument(
        "--months-ago", type=POSITIVE, metavar="N", default=2,
        help="drop whose last connect lies this many months back, or more",
    )  # fmt: skip
    parser.add_argument(
        "--batch_size", type=POSITIVE, metavar="N",
        help="users before each pause (default: 25; SQLite: 1000, in one write)",
    )  # fmt: skip
    parser.add_argument(
        "--pause_time", type=SECONDS, metavar="SECONDS",
        help="length of a pause (default: 1; SQLite: 0)",
    )  # fmt: skip
    parser.add_argument("--dry_run", action="store_true", help="count only: change nothing")
    parser.add_argument(
        "--limit", type=COUNT, metavar="N", default=0, help="stop after so many users, 0: all"
    )
    parser.add_argument(
        "--db_dsn", metavar="DSN", env_var="DB_DSN", default="dynamodb:",
        help="dynamodb:, sqlite:///path/file.db or postgresql://user@host/database",
    )  # fmt: skip
    parser.add_argument(
        "--data_dir", metavar="TEXT",
        help="data directory of a standalone service whose database to look at, without a db_dsn",
    )  # fmt: skip
    parser.add_argument(
        "--aws_ddb_endpoint", metavar="TEXT", env_var="AWS_LOCAL_DYNAMODB",
        help="DynamoDB endpoint, e.g. of a local DynamoDB",
    )  # fmt: skip
    return parser.parse_args(args)


def first_kept(months_ago: int, now: time.struct_time) -> int:
    """Return the smallest ``last_connect`` (spec/storage 7) that is too young to be dropped.

    :param now: the current local time
    """
    month = now.tm_year * 12 + now.tm_mon - 1 - months_ago + 1
    return int(f"{month // 12:04}{month % 12 + 1:02}000000")


class Pace(NamedTuple):
    """How fast users are deleted.

    :ivar told: whether each batch is a line where nobody sits at a terminal
    """

    batch: int
    pause: float
    told: bool


def pace(db: Offline, ns: Namespace) -> Pace:
    """Return what the options say, or what is right for the database: units of DynamoDB are shared
    with the nodes, while others take no longer for many than for one."""
    batch, pause = (1000, 0) if not isinstance(db, OfflineDynamo) else (25, 1)
    pause = pause if ns.pause_time is None else ns.pause_time
    return Pace(ns.batch_size or batch, pause, bool(pause) or ns.pause_time is not None)


def purge(
    db: Offline,
    ns: Namespace,
    before: int,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress | None = None,
) -> int:
    """Delete in batches; returns the number of users dropped (or, in a dry run, found).

    :raises StoreError: the database fails; what was deleted stays deleted
    """
    users = db.stale_users(before)
    if ns.limit:
        users = islice(users, ns.limit)
    speed = pace(db, ns)
    total = seen = 0
    while batch := list(islice(users, speed.batch)):
        seen += len(batch)
        dropped = len(batch) if ns.dry_run else db.drop_all(batch)
        total += dropped
        live = progress is not None and progress.live
        if ns.dry_run or live or not speed.told:
            if progress is not None:
                progress.update(seen)
        else:
            print(f"Deleted {dropped} user records, pausing for {speed.pause:g} seconds.")
        if not ns.dry_run:
            sleep(speed.pause)
    return total


def expected(db: Offline, ns: Namespace, before: int) -> int | None:
    """Return how many users will be looked at; None: that isn't known."""
    count = db.count_stale(before)
    return min(count, ns.limit) if count is not None and ns.limit else count


def drop_users(args: Sequence[str] | None = None, resource: Any = None) -> str | None:
    """Console entry; the result is for :func:`sys.exit`."""
    ns = parse(args)
    try:
        conf = AutopushConfig(
            db_dsn=dsn_of(ns),
            aws_ddb_endpoint=ns.aws_ddb_endpoint,
            router_table=DDBTableConfig(ns.router_table_name),
        )
        db = offline_from_config(conf, resource)
        print(f"Deleting users with a last_connect {ns.months_ago} months ago.")
        before = first_kept(ns.months_ago, time.localtime())
        doing = "Counting" if ns.dry_run else "Deleting"
        progress = Progress(doing, "users", expected(db, ns, before))
        total = purge(db, ns, before, progress=progress)
        took = rate(total, progress.finish(), "users")
    except (InvalidConfig, StoreError) as exc:
        return f"drop_users: error: {exc}"
    if ns.dry_run:
        print(f"Dry run: {total} user records would be deleted.")
    else:
        print(f"Finished old user purge. Deleted {total} user records {took}.")
    return None


if __name__ == "__main__":
    sys.exit(drop_users())
