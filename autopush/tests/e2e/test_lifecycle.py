"""Starting, stopping, restarting, backing up; and what a start that fails says."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from autopush.tests.e2e.clients import UserAgent, VapidSender, send
from autopush.tests.e2e.harness import Server, StartFailed, run

DATABASE = "autopush.sqlite3"
GOING_AWAY = 1001

MakeServer = Callable[..., Server]


def start_error(server: Server) -> str:
    """Start a server that can't; return the one line it says."""
    with pytest.raises(StartFailed) as caught:
        server.start()
    status, _, output = str(caught.value).partition("\n")
    assert status == "exit status 1"
    assert "Traceback" not in output
    lines = output.splitlines()
    assert len(lines) == 1, output
    return lines[0]


def contents(directory: Path) -> dict[str, bytes]:
    """The files that count, to see that none has been touched."""
    names = (DATABASE, "crypto_key", "auth_key")
    return {n: (directory / n).read_bytes() for n in names if (directory / n).exists()}


@pytest.fixture
def used(make_server: MakeServer) -> Server:
    """A stopped server whose data directory has been in use."""
    server = make_server().start()
    assert server.stop() == 0
    return server


# ----------------------------------------------------------------------------------- restarts


async def test_restart_keeps_subscriptions_and_messages(make_server: MakeServer) -> None:
    server = await asyncio.to_thread(make_server().start)
    sender = VapidSender()
    online, offline = [await UserAgent.open(server.ws_url) for _ in range(2)]
    direct, stored = await online.register(), await offline.register(sender.public_key)
    await offline.close()
    await send(stored, b"stored", vapid=sender.rfc8292)
    await send(direct, b"not acknowledged")
    frame = await online.receive("notification")

    await asyncio.to_thread(server.restart)

    for subscription, uaid, text, kwargs in (
        (direct, online.uaid, b"not acknowledged", {}),
        (stored, offline.uaid, b"stored", {"vapid": sender.rfc8292}),
    ):
        async with await UserAgent.open(server.ws_url, uaid) as agent:
            assert agent.uaid == uaid
            frame = await agent.receive("notification")
            assert subscription.decrypt(frame) == text
            await agent.ack_and_wait(frame)
            await send(subscription, b"goes on", **kwargs)
            assert subscription.decrypt(await agent.receive("notification")) == b"goes on"


async def test_restart_keeps_keys(make_server: MakeServer) -> None:
    server = await asyncio.to_thread(make_server().start)
    keys = list(server.secrets)
    async with httpx.AsyncClient(trust_env=False) as client:
        base = f"{server.endpoint_url}/v1/webpush/app/registration"
        registered = (await client.post(base, content="{}")).json()
        await asyncio.to_thread(server.restart)
        assert list(server.secrets) == keys
        headers = {"Authorization": f"webpush {registered['secret']}"}
        url = f"{base}/{registered['uaid']}"
        assert (await client.get(url, headers=headers)).status_code == 200
        assert (await client.get(url, headers={"Authorization": "webpush x"})).status_code == 401


async def test_kill_keeps_what_was_answered(make_server: MakeServer) -> None:
    server = await asyncio.to_thread(make_server().start)
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await send(subscription, b"x")
    await agent.receive("notification")
    server.kill()
    await asyncio.to_thread(server.start)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        assert subscription.decrypt(await again.receive("notification")) == b"x"


def test_data_directory_is_private(used: Server) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(used.data_dir) == 0o700
    for name in (DATABASE, "crypto_key", "auth_key"):
        assert mode(used.data_dir / name) == 0o600, name


# ---------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_in_order(make_server: MakeServer, number: int) -> None:
    server = await asyncio.to_thread(make_server("--no_store_direct").start)
    agents = [await UserAgent.open(server.ws_url) for _ in range(20)]
    silent = await UserAgent.open(server.ws_url, hello=False)
    subscription = await agents[0].register()
    await send(subscription, b"in memory only")
    await agents[0].receive("notification")

    stopping = asyncio.create_task(asyncio.to_thread(server.stop, number))
    everybody = [*agents, silent]
    codes = await asyncio.gather(*(agent.closed() for agent in everybody))
    assert await stopping == 0
    assert all(agent.got_close_frame for agent in everybody)
    assert set(codes) <= {None, GOING_AWAY}

    await asyncio.to_thread(server.start)
    async with await UserAgent.open(server.ws_url, agents[0].uaid) as again:
        assert subscription.decrypt(await again.receive("notification")) == b"in memory only"


async def test_closes_are_spread(make_server: MakeServer) -> None:
    """So that not all browsers come back in the same moment."""
    server = await asyncio.to_thread(make_server().start)
    agents = [await UserAgent.open(server.ws_url) for _ in range(300)]

    async def end(agent: UserAgent) -> float:
        await agent.closed()
        return time.monotonic()

    ends = asyncio.gather(*map(end, agents))
    assert await asyncio.to_thread(server.stop) == 0
    times = await ends
    assert max(times) - min(times) > 0.3


async def test_browsers_that_do_not_answer_do_not_delay_the_end(make_server: MakeServer) -> None:
    server = await asyncio.to_thread(make_server().start)
    agents = [await UserAgent.open(server.ws_url) for _ in range(3)]
    for agent in agents:
        agent.ws.transport.pause_reading()
    assert await asyncio.to_thread(server.stop) == 0
    for agent in agents:
        agent.abort()


async def test_request_in_progress_is_answered(make_server: MakeServer) -> None:
    server = await asyncio.to_thread(make_server().start)
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    sends = [asyncio.create_task(send(subscription, b"%d" % n)) for n in range(30)]
    await asyncio.sleep(0.05)
    assert await asyncio.to_thread(server.stop) == 0
    done = await asyncio.gather(*sends, return_exceptions=True)
    accepted = sum(not isinstance(one, BaseException) and one.status_code == 201 for one in done)
    await asyncio.to_thread(server.start)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        left = accepted
        while left > 0:
            frames = await again.receive_all(min(10, left))
            left -= len(frames)
            await again.ack_and_wait(*frames)


# ------------------------------------------------------------------------------------- backup


async def test_backup_while_running(make_server: MakeServer, tmp_path: Path) -> None:
    server = await asyncio.to_thread(make_server().start)
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    await send(subscription, b"before")

    copy = tmp_path / "copy.sqlite3"
    done = await asyncio.to_thread(
        run, "--data_dir", str(server.data_dir), "--backup", str(copy), home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    await send(subscription, b"after")
    assert server.alive

    other = make_server()
    other.data_dir.mkdir(mode=0o700)
    copy.rename(other.data_dir / DATABASE)
    for name in ("crypto_key", "auth_key"):
        (other.data_dir / name).write_bytes((server.data_dir / name).read_bytes())
    await asyncio.to_thread(other.start)
    async with await UserAgent.open(other.ws_url, agent.uaid) as again:
        assert again.uaid == agent.uaid
        assert subscription.decrypt(await again.receive("notification")) == b"before"
        await again.nothing()


def test_backup_overwrites_nothing(used: Server, tmp_path: Path) -> None:
    copy = tmp_path / "precious"
    copy.write_text("precious")
    done = run("--data_dir", str(used.data_dir), "--backup", str(copy), home=tmp_path)
    assert done.returncode == 1
    assert copy.read_text() == "precious"


def test_backup_of_nothing(tmp_path: Path) -> None:
    done = run("--data_dir", str(tmp_path / "none"), "--backup", str(tmp_path / "b"), home=tmp_path)
    assert done.returncode == 1
    assert len((done.stdout + done.stderr).splitlines()) == 1
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "b").exists()


# --------------------------------------------------------------------------- starts that fail


async def test_second_process_on_the_same_directory(make_server: MakeServer) -> None:
    first = await asyncio.to_thread(make_server().start)
    second = make_server(data_dir=first.data_dir)
    line = await asyncio.to_thread(start_error, second)
    assert str(first.data_dir) in line and "in use" in line
    async with await UserAgent.open(first.ws_url) as agent:
        subscription = await agent.register()
        await send(subscription, b"x")
        assert subscription.decrypt(await agent.receive("notification")) == b"x"


def test_port_in_use(make_server: MakeServer) -> None:
    first = make_server().start()
    second = make_server()
    second.port = first.port
    line = start_error(second)
    assert str(first.port) in line and "in use" in line
    assert first.alive


def _obedient() -> list[str]:
    """A command that makes file permissions count for root, too."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and there is no setpriv")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def test_unwritable_directory(make_server: MakeServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o555)
    line = start_error(make_server(home=home, prefix=_obedient()))
    assert str(home / "data") in line and "Permission denied" in line


def test_existing_unwritable_directory(used: Server) -> None:
    before = contents(used.data_dir)
    used.data_dir.chmod(0o555)
    used.prefix = _obedient()
    used.lines.clear()
    (used.data_dir / "lock").unlink()
    try:
        line = start_error(used)
    finally:
        used.data_dir.chmod(0o700)
    assert str(used.data_dir) in line and "Permission denied" in line
    assert contents(used.data_dir) == before


def test_directory_that_is_a_file(make_server: MakeServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert str(path) in start_error(make_server(data_dir=path))
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("how", ["garbage", "cut", "other program"])
def test_corrupt_database(used: Server, how: str) -> None:
    path = used.data_dir / DATABASE
    if how == "garbage":
        path.write_bytes(os.urandom(20_000))
    elif how == "cut":
        # The header stays, the tables are gone.
        path.write_bytes(path.read_bytes()[:4096])
    else:
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE recipes (name)")
        connection.close()
    before = contents(used.data_dir)
    used.lines.clear()
    assert str(path) in start_error(used)
    assert contents(used.data_dir) == before


def test_database_of_a_newer_schema(used: Server) -> None:
    path = used.data_dir / DATABASE
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.close()
    before = contents(used.data_dir)
    used.lines.clear()
    line = start_error(used)
    assert str(path) in line and "newer" in line
    assert contents(used.data_dir) == before


@pytest.mark.parametrize("name", ["crypto_key", "auth_key"])
@pytest.mark.parametrize("content", [b"", b"too short\n", b"\xff\xfe\x00", b"# no key\n"])
def test_bad_key_file(used: Server, name: str, content: bytes) -> None:
    path = used.data_dir / name
    path.write_bytes(content)
    before = contents(used.data_dir)
    used.lines.clear()
    line = start_error(used)
    assert str(path) in line
    assert "too short" not in line  # what is in the file may be a part of a key
    assert contents(used.data_dir) == before


def test_missing_key_file_beside_a_database(used: Server) -> None:
    """A new key would make every subscription worthless without a word."""
    (used.data_dir / "crypto_key").unlink()
    used.lines.clear()
    assert "crypto_key" in start_error(used)
    assert not (used.data_dir / "crypto_key").exists()


def test_nothing_is_left_running(make_server: MakeServer) -> None:
    server = make_server().start()
    assert server.process is not None
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children == []
    assert server.stop() == 0
