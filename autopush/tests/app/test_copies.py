"""``--backup`` and ``--restore``, as commands beside a service."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autopush.app.standalone import DATABASE
from autopush.tests.e2e.clients import UserAgent, send
from autopush.tests.e2e.harness import Server, environment, run

MakeServer = Callable[..., Server]


@pytest.fixture
def make_server(tmp_path):
    made = []

    def make(*options):
        home = tmp_path / f"home{len(made)}"
        home.mkdir()
        made.append(Server(home, *options))
        return made[-1]

    yield make
    for server in made:
        if server.alive:
            server.kill()


def on_a_terminal(*args: str, home: Path) -> str:
    """What a command writes to one."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "autopush", *args],
        cwd=home,
        env={**environment(home), "TERM": "xterm", "COLUMNS": "200"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # how Linux tells that nobody has it open any more
            break
        if not data:
            break
        said += data
    os.close(ours)
    assert process.wait() == 0, said
    return said.decode()


def test_back_to_what_it_was(make_server: MakeServer, tmp_path: Path) -> None:
    asyncio.run(back_to_what_it_was(make_server, tmp_path))


async def back_to_what_it_was(make_server: MakeServer, tmp_path: Path) -> None:
    server = await asyncio.to_thread(make_server().start)
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await agent.close()
    await send(subscription, b"before")
    copy, data = tmp_path / "copy.sqlite3", str(server.data_dir)
    words: tuple[str, ...] = ("--data_dir", data, "--backup", str(copy))
    said = await asyncio.to_thread(on_a_terminal, *words, home=tmp_path)
    assert re.match(r"\rCopying: [\d.]+ of [\d.]+ MB \(\d+%\)[^\r]*\x1b\[K", said)
    assert said.endswith("Keep a copy of the key files with it.\r\n")
    await send(subscription, b"after")

    words = ("--data_dir", data, "--restore", str(copy))
    done = await asyncio.to_thread(run, *words, home=tmp_path)
    assert done.returncode == 1
    assert f"data_dir {data} is in use by another autopush process" in done.stderr
    assert await asyncio.to_thread(server.stop) == 0
    done = await asyncio.to_thread(run, *words, home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    kept = re.fullmatch(
        rf"Restored {data}/{DATABASE} from {copy} \(\d+ bytes, 1 users\)\."
        rf" The one before is ({data}/{DATABASE}\.before-\S+)\.\n",
        done.stdout,
    )
    assert kept is not None, done.stdout
    assert Path(kept[1]).stat().st_size > 0

    await asyncio.to_thread(server.start)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        assert again.uaid == agent.uaid
        assert subscription.decrypt(await again.receive("notification")) == b"before"
        await again.nothing()
    assert await asyncio.to_thread(server.stop) == 0
    said = await asyncio.to_thread(on_a_terminal, *words, home=tmp_path)
    assert "\rCopying: " in said
    assert "Restored " in said


def test_to_another_machine(make_server: MakeServer, tmp_path: Path) -> None:
    """The keys come along by hand: it says so, and then the start does."""
    server = make_server()
    server.start()
    copy = tmp_path / "copy"
    data = str(server.data_dir)
    assert run("--data_dir", data, "--backup", str(copy), home=tmp_path).returncode == 0
    server.stop()
    new = tmp_path / "new"
    done = run("--data_dir", str(new), "--restore", str(copy), home=tmp_path)
    assert done.returncode == 0
    assert f"{new}/crypto_key is missing: put the one that was kept with the copy" in done.stdout
    assert "The one before" not in done.stdout
    done = run("--data_dir", str(new), "--port", "0", home=tmp_path)
    assert "restore it, or pass --crypto_key" in done.stderr


def test_a_folder_is_no_copy(tmp_path: Path) -> None:
    done = run("--restore", ".", home=tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path} is no file: name the copy to restore" in done.stderr


def test_nothing_to_restore(tmp_path: Path) -> None:
    done = run("--restore", "nothing", home=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"autopush_standalone: error: {tmp_path}/nothing doesn't exist: name the copy to restore"
        " (command line)\n"
    )
    assert os.listdir(tmp_path) == []


def test_no_sqlite(tmp_path: Path) -> None:
    done = run("--db_dsn", "dynamodb:", "--restore", "nothing", home=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
