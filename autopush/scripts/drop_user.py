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
from typing import Any

from autopush.app.standalone import dsn_of
from autopush.config import AutopushConfig, DDBTableConfig
from autopush.db.offline import Offline, offline_from_config
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
        "--batch_size", type=POSITIVE, metavar="N", default=25, help="users before each pause"
    )
    parser.add_argument(
        "--pause_time", type=SECONDS, metavar="SECONDS", default=1, help="length of a pause"
    )
    parser.add_argument("--dry_run", action="store_true", help="count only: change nothing")
    parser.add_argument(
        "--limit", type=COUNT, metavar="N", default=0, help="stop after so many users, 0: all"
    )
    parser.add_argument(
        "--db_dsn", metavar="DSN", env_var="DB_DSN", default="dynamodb:",
        help="dynamodb: or sqlite:///path/file.db",
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


def purge(
    db: Offline,
    ns: Namespace,
    before: int,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Delete in batches; returns the number of users dropped (or, in a dry run, found).

    :raises StoreError: the database fails; what was deleted stays deleted
    """
    users = db.stale_users(before)
    if ns.limit:
        users = islice(users, ns.limit)
    total = 0
    while batch := list(islice(users, ns.batch_size)):
        if ns.dry_run:
            total += len(batch)
            continue
        dropped = sum(db.drop(user) for user in batch)
        total += dropped
        print(f"Deleted {dropped} user records, pausing for {ns.pause_time:g} seconds.")
        sleep(ns.pause_time)
    return total


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
        total = purge(db, ns, first_kept(ns.months_ago, time.localtime()))
    except (InvalidConfig, StoreError) as exc:
        return f"drop_users: error: {exc}"
    if ns.dry_run:
        print(f"Dry run: {total} user records would be deleted.")
    else:
        print(f"Finished old user purge. Deleted {total} user records.")
    return None


if __name__ == "__main__":
    sys.exit(drop_users())
