"""Records are counted in slices, and those nobody needs are forgotten."""

from __future__ import annotations

from unittest import mock

from twisted.internet.defer import gatherResults

from autopush.constants import MAX_EXPIRY
from autopush.db.interface import Forgotten, Survey
from autopush.db.sqlite import store as sqlite_module
from autopush.tests.db.sqlite.test_store import SqliteCase
from autopush.tests.db.store_contract import CHID, NODE, START

DAY = 86_400
BEFORE = int((START - 180 * DAY) * 1000)
OLD = BEFORE - 1
ALL = Forgotten(BEFORE, NODE, frozenset())


def uaid(number: int) -> str:
    return f"{number:032x}"


class TestSurvey(SqliteCase):
    async def open(self, **kwargs):
        self.store = await self.open_store(**kwargs)

    async def add(self, number, connected_at=OLD, channel=False, **values):
        await self.store.register_user(
            {
                "uaid": uaid(number),
                "router_type": "webpush",
                "connected_at": connected_at,
                "node_id": NODE,
                **values,
            }
        )
        if channel:
            await self.store.add_channel("m", uaid(number), CHID)

    async def remaining(self):
        rows = self.sql("SELECT uaid FROM users ORDER BY uaid")
        return [int(row[0], 16) for row in rows]

    async def test_only_counted(self):
        await self.open()
        for number in range(3):
            await self.add(number)
        self.assertEqual(await self.store.survey("", None), Survey(3, 0, None))
        self.assertEqual(await self.remaining(), [0, 1, 2])

    async def test_who_has_no_channel_and_was_not_seen_is_forgotten(self):
        await self.open()
        await self.add(1)
        await self.add(2, node_id=None)
        await self.add(3, connected_at=BEFORE)
        await self.add(4, channel=True)
        await self.add(5, router_type="fcm")
        await self.add(6, router_type="simplepush")
        await self.add(7, node_id="http://other.example:8081")
        await self.add(8)
        spared = ALL._replace(connected=frozenset({uaid(8)}))
        self.assertEqual(await self.store.survey("", spared), Survey(6, 2, None))
        self.assertEqual(await self.remaining(), [3, 4, 5, 6, 7, 8])

    async def test_who_has_unsubscribed_was_seen_as_long_as_it_was_connected(self):
        """Its channel row is refreshed, while ``connected_at`` stays."""
        await self.open()
        await self.add(1, channel=True)
        await self.store.remove_channel("m", uaid(1), CHID)
        self.assertEqual(await self.store.survey("", ALL), Survey(1, 0, None))
        self.time += MAX_EXPIRY + 1
        while await self.store.sweep():
            pass
        self.assertEqual(await self.store.survey("", ALL), Survey(0, 1, None))

    async def test_channels_that_have_expired_are_none(self):
        await self.open()
        await self.add(1, channel=True)
        self.time += MAX_EXPIRY + 1
        await self.store.sweep()
        self.assertEqual(await self.store.survey("", ALL), Survey(0, 1, None))

    async def test_in_slices(self):
        await self.open()
        for number in range(5):
            await self.add(number, connected_at=OLD if number % 2 else BEFORE)
        with mock.patch.object(sqlite_module, "SURVEY_SLICE", 2):
            after, found = "", []
            while after is not None:
                found.append(await self.store.survey(after, ALL))
                after = found[-1].last
        self.assertEqual([one[:2] for one in found], [(1, 1), (1, 1), (1, 0)])
        self.assertEqual(await self.remaining(), [0, 2, 4])

    async def test_hashed_uaids(self):
        await self.open(key_hash="k")
        await self.add(1)
        await self.add(2)
        spared = ALL._replace(connected=frozenset({uaid(1)}))
        self.assertEqual(await self.store.survey("", spared), Survey(1, 1, None))
        self.assertIsNotNone(await self.store.get_user(uaid(1)))
        self.assertIsNone(await self.store.get_user(uaid(2)))

    async def test_records_that_cannot_be_read_stay(self):
        await self.open()
        await self.add(1)
        for number, text in ((2, "{}"), (3, "no JSON"), (4, '{"connected_at": "x"}'), (5, "[]")):
            self.sql("INSERT INTO users VALUES (?, ?)", uaid(number), text)
        self.assertEqual(await self.store.survey("", ALL), Survey(4, 1, None))

    async def test_hello_at_the_same_moment(self):
        """Whichever comes first: a record that a hello has taken over is not forgotten, and a
        hello that comes too late is told so."""
        await self.open(commit_delay=0.05)
        back = {"router_type": "webpush", "connected_at": int(START * 1000), "node_id": NODE}
        await self.add(1)
        hello, survey = await gatherResults(
            [self.store.register_user({"uaid": uaid(1), **back}), self.store.survey("", ALL)]
        )
        self.assertEqual((bool(hello.previous), survey), (True, Survey(1, 0, None)))
        await self.add(2)
        survey, hello = await gatherResults(
            [self.store.survey("", ALL), self.store.register_user({"uaid": uaid(2), **back})]
        )
        self.assertEqual((hello.previous, survey), ({}, Survey(1, 1, None)))

    async def test_subscription_at_the_same_moment(self):
        await self.open(commit_delay=0.05)
        await self.add(1)
        _, survey = await gatherResults(
            [self.store.add_channel("m", uaid(1), CHID), self.store.survey("", ALL)]
        )
        self.assertEqual(survey, Survey(1, 0, None))
        self.assertEqual(await self.remaining(), [1])

    async def test_what_is_remembered_of_a_record_goes_with_it(self):
        await self.open()
        await self.add(1)
        self.assertIsNotNone(await self.store.get_user(uaid(1)))
        await self.store.survey("", ALL)
        self.assertIsNone(await self.store.get_user(uaid(1)))
