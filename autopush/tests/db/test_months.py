"""Which months there are, and when they change (spec/storage 8)."""

from __future__ import annotations

from datetime import date
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from autopush.db.months import (
    RotatingMonths,
    make_rotating_tablename,
    message_tables,
    step_months,
)
from autopush.tests.db.dynamodb.rotation_support import at


class TestNames(SynchronousTestCase):
    """8.1"""

    def test_name_of_a_month(self):
        self.assertEqual(
            make_rotating_tablename("message", date=date(2026, 3, 31)), "message_2026_03"
        )

    def test_months_are_calendar_months(self):
        self.assertEqual(step_months(date(2026, 1, 31), 1), date(2026, 2, 1))
        self.assertEqual(step_months(date(2026, 1, 31), -1), date(2025, 12, 1))
        self.assertEqual(step_months(date(2026, 12, 1), 14), date(2028, 2, 1))

    def test_only_message_tables_are_taken(self):
        # quirk S6
        names = [
            "message_2026_11",
            "message",
            "message_2026_9",
            "message_2026_13",
            "messages_2026_12",
            "message_int_test_2026_12",
            "my_message_2026_12",
            "message_2026_02",
        ]
        self.assertEqual(
            message_tables("message", names), ["message", "message_2026_02", "message_2026_11"]
        )


class TestRotatingMonths(SynchronousTestCase):
    """What a date means, without tables."""

    def setUp(self) -> None:
        self.time = at("2026-11-15 12:00")
        self.months = RotatingMonths("message", lambda: self.time)

    def accepted(self) -> list[str]:
        names = [f"message_{year}_{month:02}" for year in (2026, 2027) for month in range(1, 13)]
        return [name for name in names if self.months.accepts(name)]

    def test_both_neighbours_are_accepted(self):
        # quirk S18: clocks and time zones differ
        self.assertEqual(self.accepted(), ["message_2026_10", "message_2026_11", "message_2026_12"])

    def test_anything_else_is_not(self):
        for month in (None, "", 11, "other_2026_11", "message"):
            self.assertFalse(self.months.accepts(month))

    def test_accepted_months_follow_the_calendar_by_themselves(self):
        # quirk S4: none is forgotten, none is kept for ever
        self.time = at("2026-12-01 00:00")
        self.assertEqual(self.accepted(), ["message_2026_11", "message_2026_12", "message_2027_01"])

    def test_needed_tables(self):
        self.assertEqual(self.months.needed(), ["message_2026_11"])
        self.assertEqual(self.months.needed_at_start(), ["message_2026_10", "message_2026_11"])

    def test_next_month_is_needed_on_the_last_day_once(self):
        # quirk S3
        self.time = at("2026-11-30 00:00")
        self.assertEqual(self.months.needed(), ["message_2026_11", "message_2026_12"])
        self.time = at("2026-11-29 23:59")
        self.assertEqual(self.months.needed(), ["message_2026_11"])

    def test_current_changes_only_when_told(self):
        self.time = at("2026-12-01 00:00")
        self.assertEqual(self.months.current, "message_2026_11")
        self.assertTrue(self.months.adopt("message_2026_12"))
        self.assertFalse(self.months.adopt("message_2026_12"))
        self.assertEqual(self.months.current, "message_2026_12")

    def test_current_month_stays_accepted_while_its_successor_cannot_be_made(self):
        self.time = at("2027-01-02 00:00")
        self.assertEqual(self.months.current, "message_2026_11")
        self.assertTrue(self.months.accepts("message_2026_11"))

    def test_local_time_zone_does_not_matter(self):
        with mock.patch.dict("os.environ", TZ="Pacific/Kiritimati"):
            import time

            time.tzset()
            self.addCleanup(time.tzset)
            self.time = at("2026-11-30 23:00")
            self.assertEqual(self.months.this_month(), "message_2026_11")


class TestSettled(SynchronousTestCase):
    """When registrations look twice."""

    def settled(self, when: str, month: str) -> bool:
        months = RotatingMonths("message", lambda: at(when))
        return months.settled(f"message_{month}")

    def test_users_of_the_current_month(self):
        self.assertTrue(self.settled("2026-12-15 12:00", "2026_12"))

    def test_users_who_have_not_moved_yet(self):
        self.assertFalse(self.settled("2026-12-15 12:00", "2026_11"))

    def test_everybody_while_the_months_change(self):
        for when in ("2026-11-30 00:01", "2026-11-30 23:59"):
            self.assertFalse(self.settled(when, "2026_11"))
        for when in ("2026-12-01 00:01", "2026-12-01 23:59"):
            self.assertFalse(self.settled(when, "2026_12"))
        self.assertTrue(self.settled("2026-12-02 00:01", "2026_12"))
