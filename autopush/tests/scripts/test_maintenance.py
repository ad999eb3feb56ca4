"""maintenance.py: spec/storage 13, spec/configuration 1.6, quirk D7."""

from __future__ import annotations

import datetime
import importlib.util

import boto3
import pytest
from moto import mock_aws

from autopush.tests import TREE

SOURCE = TREE / "maintenance.py"
SPEC = importlib.util.spec_from_file_location("maintenance", SOURCE)
assert SPEC is not None and SPEC.loader is not None
maintenance = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(maintenance)

THIS, NEXT = "message_2026_12", "message_2027_01"


class LastDay(datetime.datetime):
    """New Year's Eve, late, in UTC."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 12, 31, 23, 59, tzinfo=datetime.UTC).astimezone(tz)


@pytest.fixture
def client(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_LOCAL_DYNAMODB", "MESSAGE_TABLENAME", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(maintenance.datetime, "datetime", LastDay)
    with mock_aws():
        yield boto3.client("dynamodb", region_name="us-east-1")


def units(read, write):
    return {
        "BillingMode": "PROVISIONED",
        "ProvisionedThroughput": {"ReadCapacityUnits": read, "WriteCapacityUnits": write},
    }


def capacity(client, name):
    return maintenance.capacity(client.describe_table(TableName=name)["Table"])


def expiring(client, name):
    ttl = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    return ttl.get("TimeToLiveStatus"), ttl.get("AttributeName")


@pytest.mark.parametrize(
    ("delta", "name"),
    [
        (0, "message_2026_12"),
        (1, "message_2027_01"),
        (-1, "message_2026_11"),
        (13, "message_2028_01"),
        (-12, "message_2025_12"),
    ],
)
def test_table_names_roll_over_the_year(client, delta, name):
    assert maintenance.make_rotating_tablename("message", delta) == name


def test_next_month_is_created_like_this_month(client):
    maintenance.create(client, THIS, units(7, 9))
    assert maintenance.table_maintenance({"some": "event"}, None) is None
    table = client.describe_table(TableName=NEXT)["Table"]
    assert maintenance.capacity(table) == units(7, 9)
    assert {key["AttributeName"]: key["KeyType"] for key in table["KeySchema"]} == {
        "uaid": "HASH",
        "chidmessageid": "RANGE",
    }
    assert {kind["AttributeType"] for kind in table["AttributeDefinitions"]} == {"S"}


def test_expiry_is_enabled_on_both_tables(client):
    """Quirk D7: also on a table that was made without."""
    maintenance.create(client, THIS, units(5, 5))
    assert expiring(client, THIS)[0] == "DISABLED"
    for _ in range(2):
        maintenance.table_maintenance(None, None)
        assert expiring(client, THIS) == expiring(client, NEXT) == ("ENABLED", "expiry")


def test_next_month_with_other_units_is_changed(client):
    maintenance.create(client, THIS, units(50, 60))
    maintenance.create(client, NEXT, units(5, 5))
    maintenance.table_maintenance(None, None)
    assert capacity(client, NEXT) == units(50, 60)


def test_next_month_with_the_same_units_is_left_alone(client):
    maintenance.create(client, THIS, units(5, 5))
    maintenance.create(client, NEXT, units(5, 5))
    calls = []
    client.meta.events.register(
        "before-call.dynamodb", lambda model, **kw: calls.append(model.name)
    )
    maintenance.maintain(client, "message")
    assert calls.count("DescribeTable") == 2
    assert not {"CreateTable", "UpdateTable"} & set(calls)


def test_tables_paid_by_request(client):
    maintenance.create(client, THIS, {"BillingMode": "PAY_PER_REQUEST"})
    maintenance.table_maintenance(None, None)
    assert capacity(client, NEXT) == {"BillingMode": "PAY_PER_REQUEST"}


def test_this_month_missing_is_an_error(client):
    with pytest.raises(LookupError, match=THIS):
        maintenance.table_maintenance(None, None)
    assert not maintenance.table_exists(NEXT)


def test_cron(client, monkeypatch):
    monkeypatch.setattr("sys.argv", ["maintenance.py", "--message_tablename", "other"])
    assert maintenance.main() == "maintenance: error: There is no table other_2026_12"
    maintenance.create(client, "other_2026_12", units(5, 5))
    assert maintenance.main() is None
    assert maintenance.table_exists("other_2027_01")


def test_it_says_what_it_does(client, monkeypatch, capsys):
    """And nothing when there was nothing to do: cron sends that by mail."""
    monkeypatch.setattr("sys.argv", ["maintenance.py"])
    maintenance.create(client, THIS, units(5, 5))
    assert maintenance.main() is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"Creating {NEXT}, sized as {THIS}; that may take some minutes.",
        f"Expired rows of {THIS} will be removed.",
        f"Expired rows of {NEXT} will be removed.",
    ]
    assert lines[3].startswith("Done, 3 changes in ")
    assert maintenance.main() is None
    assert capsys.readouterr().out == ""
    client.update_table(TableName=THIS, **units(7, 5))
    assert maintenance.main() is None
    assert capsys.readouterr().out.startswith(f"Sizing {NEXT} as {THIS}.\nDone, 1 changes in ")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert maintenance.main() is None
    assert capsys.readouterr().out == "Nothing is to be done.\n"


def test_it_stands_alone():
    """A Lambda function has boto3 and nothing of ours."""
    source = SOURCE.read_text()
    assert "import autopush" not in source
    assert "from autopush" not in source


@pytest.mark.parametrize("network", [True, False])
def test_no_credentials_or_network_is_one_line(monkeypatch, network):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it may know credentials of other tests
    if network:
        monkeypatch.delenv("AWS_LOCAL_DYNAMODB", raising=False)
    else:
        monkeypatch.setenv("AWS_LOCAL_DYNAMODB", "http://127.0.0.1:1")
    monkeypatch.setattr("sys.argv", ["maintenance.py"])
    text = maintenance.main()
    assert str(text).startswith("maintenance: error: ")
    assert ("credentials" if network else "connect") in str(text)
