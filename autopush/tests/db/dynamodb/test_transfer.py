"""Tables of DynamoDB as one side of a copy: docs/moving, spec/storage 8."""

from __future__ import annotations

import pytest

from autopush.db.dynamodb.client import caller
from autopush.db.dynamodb.items import CHANNEL_ROW, row_key
from autopush.db.dynamodb.transfer import DynamoTransfer, Pace, consumed, read_row, write_row
from autopush.db.sqlite.records import NEVER
from autopush.db.transfer import Mark, portable
from autopush.exceptions import StoreBusy
from autopush.tests.db.dynamodb.support import client
from autopush.tests.db.transfer_support import FAR, NOW, dynamo_side, held, message, user

CHID = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"


@pytest.fixture
def side():
    return dynamo_side()


def put(table, item):
    client().put_item(TableName=table, Item=item)


def month(side, delta):
    return side._months().neighbours()[1 + delta]


def move_record(side, one, **values):
    """Change the record of a user."""
    item = {"uaid": {"S": one.key}, **side._record(one)}
    put(side._table, {**item, **{name: {"S": text} for name, text in values.items()}})


def test_months(side):
    """Users of last month are there; what has no table that counts is of nobody's."""
    for number, name in enumerate([month(side, -1), month(side, 0), "message_2020_01"]):
        move_record(side, user(number), current_month=name)
    page = side.page("", 10)
    assert {one.key for one in page.users} == {user(0).key, user(1).key}
    assert page.left == 1
    assert side.present([user(number).key for number in range(4)]) == {user(0).key, user(1).key}
    assert {one.record["current_month"] for one in page.users} == {""}


def test_a_move_that_was_interrupted(side):
    """Channels and messages are in the old month, but for what has come since."""
    old, new = month(side, -1), month(side, 0)
    one = user(1)
    move_record(side, one, current_month=new, moving_from=old)
    for table, chid, number in ((old, CHID, 1), (old, CHID, 2), (new, OTHER, 3)):
        put(table, write_row(one.key, message(number, chid)))
    for table, chid, more in (
        (old, CHID, {"current_timestamp": {"N": str(NOW * 1_000_000 + 1)}}),
        (new, OTHER, {}),
    ):
        row = row_key(one.key, CHANNEL_ROW)
        put(table, {**row, "chids": {"SS": [chid]}, "expiry": {"N": str(FAR)}, **more})
    found = held(side)[one.key]
    assert found.channels == {CHID, OTHER}
    assert found.messages == (message(2, CHID), message(3, OTHER))


def test_a_row_counts_whatever_its_expiry(side):
    side.replace([user(1, expiry=NOW - 1)], {})
    found = held(side)[user(1).key]
    assert found.channels == user(1).channels
    assert found.expiry > NOW


def test_users_of_bridges(side):
    """Their channels are in the record, and in a row for nodes of 1.58.3, which may remove some."""
    one = portable("a" * 32, {"router_type": "fcm"}, [CHID, OTHER], expiry=NEVER, now=NOW)
    side.replace([one], {})
    assert held(side) == {one.key: one}
    key = row_key(one.key, CHANNEL_ROW)
    row = client().get_item(TableName=month(side, 0), Key=key)["Item"]
    assert set(row["kept"]["SS"]) == set(row["chids"]["SS"]) == {CHID, OTHER}
    put(month(side, 0), {**row, "chids": {"SS": [OTHER]}})
    assert held(side)[one.key].channels == {OTHER}


def test_what_an_earlier_user_left_does_not_come_back(side):
    """A record that was removed leaves rows, which must not be taken for those of the next."""
    side.replace([user(1)], {})
    side.remove([user(1).key])
    assert held(side) == {}
    side.replace([user(1, messages=[])], {})
    assert held(side)[user(1).key].messages == ()


def test_without_rotation():
    side = dynamo_side(rotating=False)
    side.replace([user(1)], {})
    assert held(side) == {user(1).key: user(1)}
    assert side._all_tables() == [side._prefix]


def test_the_mark_is_no_user(side):
    assert side.get_mark() is None
    side.set_mark(Mark("sqlite:///x", "copy", "k"))
    assert side.get_mark() == Mark("sqlite:///x", "copy", "k")
    assert held(side) == {} and side.load(["autopush_data"]) == {}


def test_rows_that_no_node_can_read_stay_behind(side):
    row = write_row("u", message(1, CHID))
    assert read_row(row) == message(1, CHID)
    assert read_row({**row, "headers": {"S": "x"}}) is None
    assert read_row({**row, "timestamp": {"NULL": True}}) is None
    assert read_row({**row, "ttl": {"NULL": True}}).ttl == 0
    low = message(1, CHID, urgency="low", live=1, headers=None, data=None)
    assert read_row(write_row("u", low)) == low


def test_pace():
    """No more than so many units a second, over time."""
    slept = []
    pace = Pace(10, slept.append, lambda: sum(slept))
    for _ in range(20):
        pace.spend(5)
    assert sum(slept) == pytest.approx(10)
    Pace(0, slept.append).spend(1000)
    assert sum(slept) == pytest.approx(10)


def test_units():
    assert consumed({}) == 0
    assert consumed({"ConsumedCapacity": {"CapacityUnits": 2.5}}) == 2.5
    assert consumed({"ConsumedCapacity": [{"CapacityUnits": 2.5}, {"CapacityUnits": 1}]}) == 3.5


def test_what_the_server_leaves_out_is_asked_for_again(side):
    """Under load DynamoDB does a part of a batch."""
    plain, left = caller(client()), []

    def call(operation, /, **parameters):
        wanted = parameters.get("RequestItems")
        if operation == "batch_write_item" and len(wanted[next(iter(wanted))]) > 1:
            ((table, changes),) = wanted.items()
            left.append(len(changes) - 1)
            answer = plain(operation, RequestItems={table: changes[:1]})
            return {**answer, "UnprocessedItems": {table: changes[1:]}}
        return plain(operation, **parameters)

    target = DynamoTransfer(
        call, side._table, side._prefix, rotating=True, now=NOW, sleep=lambda _: None
    )
    target.replace([user(1), user(2)], {})
    assert held(side) == {user(1).key: user(1), user(2).key: user(2)}
    assert left == [3, 2, 1, 1]

    def busy(operation, /, **parameters):
        return {"UnprocessedItems": parameters["RequestItems"]}

    target = DynamoTransfer(
        busy, side._table, side._prefix, rotating=True, now=NOW, sleep=lambda _: None
    )
    with pytest.raises(StoreBusy):
        target.remove([user(1).key])
