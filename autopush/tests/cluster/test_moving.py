"""One machine becomes a cluster, and one machine again, as docs/moving says: nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from autopush.tests.cluster.harness import STORAGES, Daemon, Storage
from autopush.tests.db.postgresql.server import missing
from autopush.tests.e2e.clients import Subscription, UserAgent, push
from autopush.tests.e2e.harness import Server, environment

COPIES_WITHIN = 600
"""Seconds for a copy to an emulator, also on a busy machine."""


@pytest.fixture(params=["dynamodb", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """Where it goes."""
    if request.param == "postgresql" and (reason := missing()):
        pytest.skip(reason)
    made = STORAGES[request.param](tmp_path)
    yield made
    made.close()


class Place:
    """The same service, at one place after the other."""

    def __init__(self, home: Path, target: Storage) -> None:
        self.home, self.target = home, target
        self.key = Fernet.generate_key().decode()
        (home / "machine").mkdir()
        self.machine = Server(home / "machine", "--crypto_key", self.key)
        self.file = f"sqlite://{self.machine.data_dir / 'autopush.sqlite3'}"

    def data(self, *words: str) -> str:
        """Run ``autopush_data``."""
        done = subprocess.run(
            [sys.executable, "-m", "autopush.scripts.data", *words],
            cwd=self.home,
            env=environment(self.home, self.target.env),
            capture_output=True,
            text=True,
            timeout=COPIES_WITHIN,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def there(self, action: str) -> str:
        return self.data(action, "--from", self.file, "--to", self.target.options[1])

    @contextlib.contextmanager
    def cluster(self) -> Iterator[str]:
        """A connection node, and an endpoint node under the URL of the machine; yields where user
        agents connect."""
        endpoint = Daemon("autoendpoint", self.home / "endpoint", env=self.target.env)
        endpoint.words[endpoint.words.index("--port") + 1] = str(self.machine.port)
        endpoint.url = self.machine.endpoint_url
        node = Daemon("autopush", self.home / "node", env=self.target.env)
        for daemon in (node, endpoint):
            daemon.words += [
                *("--hostname", "127.0.0.1", "--no_aws", "--statsd_host", ""),
                *("--crypto_key", self.key, "--endpoint_port", str(self.machine.port)),
                *self.target.options,
            ]
        try:
            node.start()
            endpoint.start()
            yield node.ws_url
        finally:
            node.close()
            endpoint.close()


class Person:
    """A user agent with one subscription, and what it has to receive."""

    uaid: str
    subscription: Subscription

    def __init__(self, url: str) -> None:
        self.url = url
        self.owed: list[bytes] = []
        self.count = 0

    async def subscribe(self) -> UserAgent:
        agent = await UserAgent.open(self.url)
        self.subscription = await agent.register()
        assert agent.uaid is not None
        self.uaid = agent.uaid
        return agent

    async def send(self) -> None:
        """Accepted is owed."""
        text = f"message {self.count}".encode()
        self.count += 1
        answer = await asyncio.to_thread(push, self.subscription, text, 600)
        assert answer.status_code == 201, answer.text
        self.owed.append(text)

    async def come(self, url: str) -> UserAgent:
        """Come back, and receive all that is owed, each once."""
        agent = await UserAgent.open(url, self.uaid)
        assert agent.uaid == self.uaid, "the user was forgotten"
        frames = await agent.receive_all(len(self.owed))
        assert sorted(map(self.subscription.decrypt, frames)) == sorted(self.owed)
        await agent.nothing()
        await agent.ack_and_wait(*frames)
        self.owed.clear()
        return agent


async def test_there_and_back_while_people_use_it(target, tmp_path):
    place = Place(tmp_path, target)
    machine = place.machine.start()
    try:
        people = [Person(machine.ws_url) for _ in range(5)]
        agents = [await person.subscribe() for person in people]
        connected, reader, waiter, leaver, _ = people
        for agent in agents[1:]:
            await agent.close()
        for person in people[1:]:
            await person.send()
        # The first copy takes long; life goes on meanwhile.
        place.there("copy")
        await (await reader.come(machine.ws_url)).close()
        await waiter.send()
        gone = await leaver.come(machine.ws_url)
        await gone.send({"messageType": "unregister", "channelID": leaver.subscription.channel})
        assert (await gone.receive("unregister"))["status"] == 200
        await gone.close()
        people.append(Person(machine.ws_url))
        await (await people[-1].subscribe()).close()
        assert "removed" in place.there("copy")
        # What was delivered and not acknowledged is owed, too.
        await connected.send()
        await agents[0].receive("notification")
    finally:
        machine.close()
    place.there("copy")
    place.there("verify")
    people.remove(leaver)
    with place.cluster() as url:
        answer = await asyncio.to_thread(push, leaver.subscription, b"too late", 600)
        assert answer.status_code == 410
        for person in people:
            await person.send()
            await (await person.come(url)).close()
            again = await person.come(url)
            await again.close()
            await person.send()
    place.data("copy", "--from", target.options[1], "--to", place.file, "--replace")
    with machine:
        for person in people:
            await person.send()
            await (await person.come(machine.ws_url)).close()
