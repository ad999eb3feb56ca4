"""``autopush_data``: take users, channels and messages from one store to another (docs/moving).

The source may serve meanwhile and is only read. The target must not, until the last copy is done.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from autopush import clock
from autopush.app.progress import Progress, rate
from autopush.db.copying import BATCH, Copied, Copy, Totals, Verified, figures, verify
from autopush.db.open import POSTGRESQL, postgresql_parameters, sqlite_path
from autopush.db.sqlite.transfer import SqliteTransfer
from autopush.db.transfer import Nowhere, Transfer
from autopush.exceptions import InvalidConfig, StoreError
from autopush.options.optionparser import Examples, OptionParser
from autopush.options.tables import COUNT, POSITIVE, SECONDS

EXAMPLES: Examples = (
    (
        "autopush_data copy --from sqlite:///var/lib/autopush/autopush.sqlite3 --to dynamodb:",
        "to a cluster; say it again for what has changed since",
    ),
    (
        "autopush_data verify --from sqlite:///srv/push.db --to postgresql://db/push --sample 0",
        "compare all users, not just some",
    ),
    ("autopush_data stats --from dynamodb:", "users, channels, messages, bytes"),
)

ACTIONS = ("copy", "verify", "stats")

SHOWN_DIFFERENCES = 20
"""Lines of differences that are printed."""

SHOWN_UNREADABLE = 10
"""Users that are named because nothing can be done with their records."""


def parse(args: Sequence[str] | None) -> Namespace:
    """Read the options.

    :param args: command line; None: ``sys.argv[1:]``
    :raises SystemExit: 0 for help, 2 for a bad option
    """
    parser = OptionParser(
        prog="autopush_data",
        description="Copies what a store holds to another one, compares the two, or counts one.",
        examples=EXAMPLES,
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument(
        "--from", dest="source", metavar="DSN", required=True,
        help="store to read: dynamodb:, sqlite:///path/file.db or postgresql://user@host/database",
    )  # fmt: skip
    parser.add_argument("--to", dest="target", metavar="DSN", help="store to write or to compare")
    parser.add_argument("--dry_run", action="store_true", help="copy: count only, change nothing")
    parser.add_argument(
        "--replace", action="store_true",
        help="copy: also to a store with other users; what only that one has is lost",
    )  # fmt: skip
    parser.add_argument(
        "--batch_size", type=POSITIVE, metavar="N", default=BATCH,
        help="copy: users in one transaction, at most 100",
    )  # fmt: skip
    parser.add_argument(
        "--sample", type=COUNT, metavar="N", default=1000,
        help="verify: users to compare in all they have, 0: all",
    )  # fmt: skip
    _add_dynamodb(parser)
    ns = parser.parse_args(args)
    if ns.action != "stats" and not ns.target:
        parser.error(f"{ns.action} needs --to")
    return ns


def _add_dynamodb(parser: OptionParser) -> None:
    parser.add_argument(
        "--units", type=SECONDS, metavar="N", default=100,
        help="DynamoDB: capacity units a second, of reads and of writes; 0: as fast as it goes",
    )  # fmt: skip
    parser.add_argument(
        "--router_tablename", metavar="TEXT", env_var="ROUTER_TABLENAME", default="router",
        help="DynamoDB: table of users",
    )  # fmt: skip
    parser.add_argument(
        "--message_tablename", metavar="TEXT", env_var="MESSAGE_TABLENAME", default="message",
        help="table of messages, without the month",
    )  # fmt: skip
    parser.add_argument(
        "--no_table_rotation", action="store_true", help="DynamoDB: one table, not one a month"
    )
    parser.add_argument(
        "--aws_ddb_endpoint", metavar="TEXT", env_var="AWS_LOCAL_DYNAMODB",
        help="DynamoDB endpoint, e.g. of a local DynamoDB",
    )  # fmt: skip


def open_side(dsn: str, ns: Namespace, client: Any = None) -> Transfer:
    """Return one side of a copy.

    :param client: for DynamoDB, instead of an own one
    :raises InvalidConfig: there is no such back end
    """
    now = int(clock.now())
    if dsn.startswith(POSTGRESQL):
        parameters = postgresql_parameters(dsn)
        from autopush.db.postgresql.transfer import PostgresqlTransfer

        return PostgresqlTransfer(dsn, parameters, ns.message_tablename, now)
    if dsn != "dynamodb:":
        return SqliteTransfer(sqlite_path(dsn), ns.message_tablename, now)
    from autopush.db.dynamodb.client import caller, make_client
    from autopush.db.dynamodb.transfer import DynamoTransfer

    return DynamoTransfer(
        caller(client or make_client(endpoint_url=ns.aws_ddb_endpoint)),
        ns.router_tablename,
        ns.message_tablename,
        rotating=not ns.no_table_rotation,
        units=ns.units,
        now=now,
    )


def described(totals: Totals) -> str:
    """Return what a store holds, for people."""
    text = (
        f"{totals.users} users, {totals.channels} channels, {totals.messages} messages,"
        f" {totals.size} bytes"
    )
    if totals.oldest is not None:
        text += time.strftime(", oldest %Y-%m-%d %H:%M:%S UTC", time.gmtime(totals.oldest))
    if totals.left:
        text += f"; {totals.left} users that no node would know any more"
    if keys := totals.unreadable:
        named = ", ".join(keys[:SHOWN_UNREADABLE]) + (", ..." if keys[SHOWN_UNREADABLE:] else "")
        text += f"; {len(keys)} users left out whose record can't be read: {named}"
    return text


def copy(source: Transfer, target: Transfer, ns: Namespace) -> None:
    """Make one pass, and print what it did."""
    if ns.dry_run and not target.exists():
        target = Nowhere(target.described)
    if not ns.dry_run:
        target.prepare()
    doing = "Comparing" if ns.dry_run else "Copying"
    progress = Progress(doing, "users", source.count())
    pass_ = Copy(
        source, target, dry=ns.dry_run, replace=ns.replace,
        batch=min(ns.batch_size, BATCH), shown=progress.update,
    )  # fmt: skip
    done = pass_.run()
    took = rate(done.seen.users, progress.finish(), "users")
    for line in told(done, ns.dry_run):
        print(line)
    print(f"Finished {took}.")


def told(done: Copied, dry: bool) -> list[str]:
    """Return what a pass has done, a line each."""
    lines = ["Went on where the last copy had stopped."] if done.resumed else []
    would = "would be " if dry else ""
    return [
        *lines,
        f"{'Dry run: ' if dry else ''}{described(done.seen)}.",
        f"{done.written} users {would}written, {done.removed} {would}removed.",
    ]


def compare(source: Transfer, target: Transfer, ns: Namespace) -> str | None:
    """Compare, and print what was found; the result is for :func:`sys.exit`."""
    progress = Progress("Comparing", "users", source.count())
    found = verify(source, target, ns.sample, progress.update)
    progress.finish()
    for line in found_lines(found):
        print(line)
    return None if found.alike else "autopush_data: the two stores differ"


def found_lines(found: Verified) -> list[str]:
    """Return the result of a comparison, a line each."""
    ours, theirs = found.checksums
    lines = [
        f"from: {described(found.source)}",
        f"to:   {described(found.target)}",
        f"{found.sample} users compared: checksums {ours} and {theirs}",
        *found.differing[:SHOWN_DIFFERENCES],
    ]
    more = len(found.differing) - SHOWN_DIFFERENCES
    return [*lines, f"and {more} more differences"] if more > 0 else lines


def stats(source: Transfer) -> None:
    """Print what a store holds."""
    progress = Progress("Counting", "users", source.count())
    totals = figures(source, progress.update)
    progress.finish()
    print(described(totals))


def _act(ns: Namespace, client: Any) -> str | None:
    with closing(open_side(ns.source, ns, client)) as source:
        if not source.exists():
            return f"autopush_data: error: {source.described} doesn't exist"
        if ns.action == "stats":
            stats(source)
            return None
        with closing(open_side(ns.target, ns, client)) as target:
            if source.described == target.described:
                return "autopush_data: error: --from and --to are the same store"
            if ns.action == "copy":
                copy(source, target, ns)
                return None
            return compare(source, target, ns)


def main(args: Sequence[str] | None = None, client: Any = None) -> str | None:
    """Console entry; the result is for :func:`sys.exit`."""
    ns = parse(args)
    try:
        return _act(ns, client)
    except (InvalidConfig, StoreError) as exc:
        return f"autopush_data: error: {exc}"
    except KeyboardInterrupt:
        return "autopush_data: interrupted; the same command goes on from here"


if __name__ == "__main__":
    sys.exit(main())
