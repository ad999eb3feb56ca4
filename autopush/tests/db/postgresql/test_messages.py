"""Batches of messages end where the same writes one after the other would
(db/postgresql/messages.py)."""

from __future__ import annotations

import random
import uuid
from typing import Any

from twisted.internet.defer import gatherResults

from autopush.tests.db.postgresql.support import PostgresqlCase
from autopush.tests.db.store_contract import CHID, CHID2, OTHER, TS, UAID, message, topic

CHANNELS = (uuid.UUID(CHID), uuid.UUID(CHID2))
USERS = (uuid.UUID(UAID), uuid.UUID(OTHER))


class TestBatches(PostgresqlCase):
    def some(self, rng: random.Random, number: int) -> Any:
        """A message, new or one of those before."""
        if rng.random() < 0.3:
            whose = {"uaid": rng.choice(USERS), "channel_id": rng.choice(CHANNELS)}
            return topic(rng.choice("ab"), f"t{number}", **whose)
        which = rng.randrange(40)
        whose = {"uaid": USERS[which % 2], "channel_id": CHANNELS[which // 2 % 2]}
        return message(TS + which // 4 % 8, version=f"v{which}", **whose)

    def rows(self) -> list[Any]:
        return self.sql("SELECT uaid, updateid, sortkey FROM messages ORDER BY uaid, sortkey")

    async def test_topics_and_places(self):
        for seed in range(8):
            rng = random.Random(seed)
            self.dsn = self.server.new_schema()
            store = await self.open_store(commit_delay=0.02)
            await store.set_pointer("m", UAID, TS + 3)
            kept: dict[Any, str] = {}
            for _ in range(3):
                batch = [self.some(rng, number) for number in range(rng.randrange(1, 20))]
                await gatherResults([store.store_message("m", one) for one in batch])
                for one in batch:
                    if one.topic:
                        kept[one.uaid.hex, one.sort_key] = one.version
                    else:
                        kept[one.uaid.hex, one.version] = one.version
            rows = self.rows()
            # Each message once, of a topic the last one.
            found = sorted((uaid, version) for uaid, version, _ in rows)
            wanted = sorted((key[0], version) for key, version in kept.items())
            self.assertEqual(found, wanted, seed)
            # No two of a user at one place, and none that a reader has passed.
            places = [(uaid, key.split(":")[1]) for uaid, _, key in rows if key.startswith("02:")]
            self.assertEqual(len(places), len(set(places)), seed)
            for uaid, place in places:
                self.assertTrue(uaid != UAID or int(place) > TS + 3, seed)
            await store.close()

    async def test_of_two_deletes_of_one_message_one_says_so(self):
        store = await self.open_store(commit_delay=0.02)
        await store.store_message("m", message())
        deletes = [store.delete_message("m", message()) for _ in range(2)]
        self.assertEqual(sorted(await gatherResults(deletes)), [False, True])

    async def test_a_plan_made_while_the_tables_were_empty_finds_by_key(self):
        """No statement goes through a whole table, whatever PostgreSQL thinks of its size."""
        import psycopg

        from autopush.db.postgresql import messages, records
        from autopush.db.postgresql.link import SETTINGS
        from autopush.db.postgresql.statements import Kind

        await self.open_store()
        kinds = [
            kind
            for module in (messages, records)
            for kind in vars(module).values()
            if isinstance(kind, Kind)
        ]
        self.assertGreater(len(kinds), 15)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for name, value in SETTINGS.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            for statement in {text for kind in kinds for text in kind.statements}:
                plan = connection.execute(
                    f"EXPLAIN {statement}".encode(), {"rows": "[]", "now": 1}
                ).fetchall()
                text = "\n".join(line for (line,) in plan)
                self.assertNotIn("Seq Scan on", text, statement)
