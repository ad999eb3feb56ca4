"""Next month's message table, made and sized before it is needed.

Runs as an AWS Lambda function (handler ``maintenance.table_maintenance``) or from cron
(``python maintenance.py``), once a day or so. It stands alone: this file, boto3, no autopush.

The function needs these permissions, besides those for its logs: dynamodb:DescribeTable,
dynamodb:CreateTable, dynamodb:UpdateTable, dynamodb:DescribeTimeToLive, dynamodb:UpdateTimeToLive.
Source: spec/storage 13, spec/configuration 1.6; expiry as in quirk D7.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

MESSAGE_TABLE_PREFIX = "message"
"""Change it here before deploying the function; from cron there is an option."""

REGION = "us-east-1"

EXPIRY = "expiry"
"""Attribute with the time after which DynamoDB may remove a row."""


def get_month(delta: int = 0) -> datetime.date:
    """Return the first day of the month ``delta`` months from now (UTC, as the nodes)."""
    today = datetime.datetime.now(datetime.UTC)
    months = today.year * 12 + today.month - 1 + delta
    return datetime.date(months // 12, months % 12 + 1, 1)


def make_rotating_tablename(prefix: str, delta: int = 0) -> str:
    """Return the name of the message table ``delta`` months from now."""
    return f"{prefix}_{get_month(delta):%Y_%m}"


def describe(client: Any, tablename: str) -> dict[str, Any] | None:
    """Return the table's description, None if there is no such table."""
    try:
        description: dict[str, Any] = client.describe_table(TableName=tablename)["Table"]
    except client.exceptions.ResourceNotFoundException:
        return None
    return description


def table_exists(tablename: str, client: Any = None) -> bool:
    """Whether there is such a table."""
    return describe(client or make_client(), tablename) is not None


def capacity(description: dict[str, Any]) -> dict[str, Any]:
    """Return what a table is paid by, as ``create_table`` and ``update_table`` want it."""
    mode = description.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
    if mode == "PAY_PER_REQUEST":
        return {"BillingMode": mode}
    units = description["ProvisionedThroughput"]
    return {
        "BillingMode": mode,
        "ProvisionedThroughput": {
            name: units[name] for name in ("ReadCapacityUnits", "WriteCapacityUnits")
        },
    }


def create(client: Any, tablename: str, units: dict[str, Any]) -> None:
    """Create a message table; it takes a while until it can be used."""
    client.create_table(
        TableName=tablename,
        KeySchema=[
            {"AttributeName": "uaid", "KeyType": "HASH"},
            {"AttributeName": "chidmessageid", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "uaid", "AttributeType": "S"},
            {"AttributeName": "chidmessageid", "AttributeType": "S"},
        ],
        **units,
    )


def expire(client: Any, tablename: str) -> bool:
    """Have DynamoDB remove expired rows; whether it didn't yet."""
    answer = client.describe_time_to_live(TableName=tablename)
    state = answer["TimeToLiveDescription"].get("TimeToLiveStatus")
    if state in ("ENABLED", "ENABLING"):
        return False
    client.update_time_to_live(
        TableName=tablename,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRY},
    )
    return True


def quiet(text: str) -> None:
    """Say nothing: a function's log has its duration and its errors."""


def maintain(client: Any, prefix: str, say: Callable[[str], None] = quiet) -> int:
    """Make next month's table like this month's.

    :param say: is told what is done, before it is waited for
    :returns: how many things were to be done
    :raises LookupError: this month's table does not exist
    :raises botocore.exceptions.ClientError: DynamoDB refuses
    """
    current = make_rotating_tablename(prefix)
    description = describe(client, current)
    if description is None:
        raise LookupError(f"There is no table {current}")
    units = capacity(description)
    following = make_rotating_tablename(prefix, 1)
    description = describe(client, following)
    changes = 0
    if description is None:
        changes += 1
        say(f"Creating {following}, sized as {current}; that may take some minutes.")
        try:
            create(client, following, units)
        except client.exceptions.ResourceInUseException:
            pass  # a node was faster
        client.get_waiter("table_exists").wait(
            TableName=following, WaiterConfig={"Delay": 2, "MaxAttempts": 60}
        )
    elif capacity(description) != units:
        changes += 1
        say(f"Sizing {following} as {current}.")
        client.update_table(TableName=following, **units)
    for tablename in (current, following):
        if expire(client, tablename):
            changes += 1
            say(f"Expired rows of {tablename} will be removed.")
    return changes


def make_client(region: str = REGION) -> Any:
    """Return a client; ``AWS_LOCAL_DYNAMODB`` leads it to a local DynamoDB."""
    endpoint = os.environ.get("AWS_LOCAL_DYNAMODB")
    if not endpoint:
        return boto3.client("dynamodb", region_name=region)
    return boto3.client(
        "dynamodb",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id="Bogus",
        aws_secret_access_key="Bogus",
    )


def table_maintenance(event: Any, context: Any) -> None:
    """Lambda handler; both arguments are ignored."""
    maintain(make_client(), MESSAGE_TABLE_PREFIX)


def main() -> str | None:
    """Run from cron; the result is for ``sys.exit``."""
    parser = argparse.ArgumentParser(description="Makes next month's message table.")
    parser.add_argument(
        "--message_tablename",
        default=os.environ.get("MESSAGE_TABLENAME") or MESSAGE_TABLE_PREFIX,
        metavar="TEXT",
        help="prefix of message tables (%(default)s)",
    )
    parser.add_argument(
        "--region",
        default=os.environ.get("AWS_DEFAULT_REGION") or REGION,
        metavar="TEXT",
        help="AWS region (%(default)s)",
    )
    args = parser.parse_args()
    began = time.monotonic()
    try:
        changes = maintain(
            make_client(args.region), args.message_tablename, partial(print, flush=True)
        )
    except (LookupError, ClientError, BotoCoreError, ValueError) as error:
        return f"maintenance: error: {error}"
    if changes:
        print(f"Done, {changes} changes in {time.monotonic() - began:.0f} s.")
    elif sys.stdout.isatty():  # cron sends what is written by mail
        print("Nothing is to be done.")
    return None


if __name__ == "__main__":
    raise SystemExit(main())
