"""Nothing that was accepted is lost, nothing comes after its acknowledgement."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from autopush.tests.cluster.harness import Cluster, kill
from autopush.tests.cluster.traffic import Traffic

SLACK = 3.0
"""Seconds that a process of a busy machine may be behind another one."""

USERS = 12
SECONDS = 12


async def kill_and_restart(traffic, number=0):
    """End a connection node without a word; it comes back later."""
    node = traffic.cluster.nodes[number]
    traffic.alive.discard(number)
    kill(node)
    traffic.kills.append((number, time.monotonic()))
    await asyncio.sleep(SECONDS / 4)
    await asyncio.to_thread(node.start)
    traffic.alive.add(number)


async def later(work):
    """In the middle of the run."""
    await asyncio.sleep(SECONDS / 3)
    await work


async def stop_and_restart(daemon):
    """An orderly restart."""
    assert await asyncio.to_thread(daemon.end) == 0
    await asyncio.to_thread(daemon.start)


RARELY = 0.1
"""Part of the messages that DynamoDB may bring once more after their acknowledgement. It is the
greater the slower the machine is: on one with nothing else to do it is well below a hundredth."""


def check(traffic, cluster):
    assert traffic.refused == []
    assert not traffic.late, "\n\n".join(traffic.late)
    # One that came again and was not acknowledged comes until it is: that is one message still.
    assert len(set(traffic.again)) <= max(1, RARELY * len(traffic.sent)), traffic.again
    assert not list(cluster.errors)


async def test_users_move_between_nodes_while_messages_flow(cluster):
    traffic = Traffic(cluster, USERS, seed=1)
    await traffic.run(SECONDS)
    check(traffic, cluster)
    assert not traffic.lost(), traffic.tale(traffic.lost())


async def test_node_is_stopped_and_started(cluster):
    traffic = Traffic(cluster, USERS, seed=2)
    await traffic.run(SECONDS, later(stop_and_restart(cluster.nodes[0])))
    check(traffic, cluster)
    assert not traffic.lost(), traffic.tale(traffic.lost())


def stored(traffic):
    """Ids of the messages that endpoint nodes have stored, from their logs of level debug."""
    return {
        json.loads(line)["Fields"]["message_id"]
        for daemon in traffic.cluster.endpoints
        for line in daemon.lines
        if "Router miss, message stored." in line
    } & {sent.location for sent in traffic.sent.values()}


async def test_node_is_killed(storage, tmp_path):
    """Lost may be only what it had sent but not seen acknowledged: nothing that was stored."""
    cluster = Cluster(tmp_path, storage)
    for daemon in cluster.endpoints:
        daemon.words += ["--log_level", "debug"]
    with cluster:
        traffic = Traffic(cluster, USERS, seed=3)
        at_node: dict[int, float] = {}

        async def disturb():
            at_node.update({u.number: u.connected for u in traffic.users if u.node == 0})
            await kill_and_restart(traffic)
            while not stored(traffic):
                await asyncio.sleep(1)

        await traffic.run(SECONDS, later(disturb()))
        check(traffic, cluster)
        ((_, when),) = traffic.kills
        for text, sent in traffic.lost().items():
            assert sent.user in at_node, text
            assert at_node[sent.user] - SLACK <= sent.at <= when + SLACK, text
            assert sent.location not in stored(traffic), traffic.tale({text: sent})


async def test_node_is_killed_with_store_direct(storage, tmp_path):
    """Then nothing at all is lost."""
    with Cluster(tmp_path, storage, "--store_direct") as cluster:
        traffic = Traffic(cluster, USERS, seed=4)
        await traffic.run(SECONDS, later(kill_and_restart(traffic)))
        check(traffic, cluster)
        assert not traffic.lost(), traffic.tale(traffic.lost())


@pytest.mark.parametrize("number", [0, 1])
async def test_endpoint_node_is_killed(cluster, number):
    """What it had answered is kept; the other goes on."""
    traffic = Traffic(cluster, USERS, seed=5 + number)
    cut = cluster.endpoints[number]

    async def disturb():
        traffic.endpoints.discard(number)
        kill(cut)
        await asyncio.sleep(SECONDS / 4)
        await asyncio.to_thread(cut.start)
        traffic.endpoints.add(number)

    await traffic.run(SECONDS, later(disturb()))
    check(traffic, cluster)
    assert not traffic.lost(), traffic.tale(traffic.lost())
