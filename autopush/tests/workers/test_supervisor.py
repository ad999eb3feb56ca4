"""The service with several workers, as processes: ``autopush_standalone --workers N``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import pytest
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from autopush.tests.e2e.clients import PATIENCE, UserAgent, VapidSender, send
from autopush.tests.e2e.harness import (
    START_WITHIN,
    STOP_WITHIN,
    UNEXPECTED,
    Server,
    StartFailed,
    eventually,
    free_port,
)
from autopush.workers.fleet import Fleet, Worker
from autopush.workers.supervisor import Child, sigint_blocked

MakeServer = Callable[..., Server]

COUNT = 3
AGENTS = 40
"""Of so many connections each of three workers has some, but in one run of three millions."""


@pytest.fixture
def make(make_server: MakeServer) -> MakeServer:
    def start(*options: str, **kwargs: Any) -> Server:
        return make_server("--workers", str(COUNT), *options, **kwargs).start()

    return start


def workers(server: Server) -> dict[int, psutil.Process]:
    """The processes that serve, by their numbers."""
    assert server.process is not None
    found = {}
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # another one that it runs for a moment
            name = "".join(child.cmdline()[-1:])
            match = re.fullmatch(r"autopush_standalone: worker (\d)", name)
            if match:
                found[int(match[1])] = child
    return found


def health(server: Server) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{server.endpoint_url}/health", trust_env=False).json()
    return answer


def all_serve(server: Server) -> bool:
    parts = health(server)["workers"].values()
    return [one["status"] for one in parts] == ["OK"] * COUNT


@contextlib.asynccontextmanager
async def agents(server: Server, count: int = AGENTS) -> AsyncIterator[list[UserAgent]]:
    opened = await asyncio.gather(*(UserAgent.open(server.ws_url) for _ in range(count)))
    try:
        yield opened
    finally:
        for agent in opened:
            agent.abort()


async def receive(agent: UserAgent, subscription: Any, text: bytes) -> None:
    frame = await agent.receive("notification")
    assert subscription.decrypt(frame) == text
    await agent.ack_and_wait(frame)


@pytest.mark.parametrize("process_first", [True, False])
def test_what_a_worker_says_last_is_heard_before_its_end(process_first: bool) -> None:
    """Its process and its channel end at the same time, and either may be seen first."""
    told: list[str] = []

    class Watched(Fleet):
        def ended(self, worker: Worker, how: str) -> None:
            told.append(f"{how}: {worker.error}")

    fleet: Any = Watched(Clock(), cast(Any, None), 1)
    (worker,) = fleet.workers
    child = Child(fleet, worker, b"")
    end = Failure(ProcessTerminated(exitCode=1))
    if process_first:
        child.processExited(end)
    assert told == []
    worker.error = "the disk is gone"
    child.silent()
    if not process_first:
        assert told == []
        child.processExited(end)
    assert told == ["exit status 1: the disk is gone"]


# ------------------------------------------------------------------------------------- serving


async def test_a_message_reaches_its_user_whoever_has_which(make: MakeServer) -> None:
    server = await asyncio.to_thread(make)
    assert sorted(workers(server)) == [1, 2, 3]
    sender = VapidSender()
    async with agents(server) as everybody:
        report = await asyncio.to_thread(health, server)
        spread = {name: one["clients"] for name, one in report["workers"].items()}
        assert sorted(spread) == ["1", "2", "3"] and min(spread.values()) > 0
        assert report["clients"] == sum(spread.values()) == AGENTS
        subscriptions = [await agent.register(sender.public_key) for agent in everybody]
        for round_ in range(3):  # each message comes by another connection, to whoever gets that
            text = b"message %d" % round_
            answers = await asyncio.gather(
                *(send(one, text, vapid=sender.rfc8292) for one in subscriptions)
            )
            assert {answer.status_code for answer in answers} == {201}
            for agent, subscription in zip(everybody, subscriptions, strict=True):
                await receive(agent, subscription, text)
    assert not any(sign in server.output for sign in UNEXPECTED)


async def test_a_user_who_comes_back_elsewhere_has_one_connection(make: MakeServer) -> None:
    server = await asyncio.to_thread(make)
    first = await UserAgent.open(server.ws_url)
    subscription = await first.register()
    for number in range(8):
        second = await UserAgent.open(server.ws_url, first.uaid)
        assert second.uaid == first.uaid
        await first.closed()
        text = b"%d" % number
        await send(subscription, text)
        await receive(second, subscription, text)
        first = second
    first.abort()


def test_start_up_lines(make: MakeServer) -> None:
    server = make()
    assert server.lines.count("autopush is ready") == 1
    assert f"  workers:    {COUNT}" in server.lines
    assert sum(line.startswith("autopush ") for line in server.lines) == 2


def test_any_free_port(make_server: MakeServer) -> None:
    server = make_server("--workers", "2")
    server.port = 0
    server.start()
    match = re.search(r"ws://127\.0\.0\.1:(\d+)/", server.output)
    assert match and match[1] != "0"
    server.port = int(match[1])
    assert health(server)["status"] == "OK"


async def test_a_unix_socket(make: MakeServer, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = await asyncio.to_thread(
        make, "--public_url", "http://push.example", host=f"unix:{path}"
    )
    uaids = set()
    for _ in range(AGENTS):
        async with await UserAgent.open("ws://push.example/", unix=str(path)) as agent:
            uaids.add(agent.uaid)
    assert len(uaids) == AGENTS
    workers(server)[1].terminate()
    eventually(lambda: server.output.count("serves again"))
    async with await UserAgent.open("ws://push.example/", unix=str(path)):
        pass
    assert await asyncio.to_thread(server.stop) == 0
    assert not path.exists()


async def test_ports_of_their_own(make: MakeServer) -> None:
    """With ``router_port`` workers are found by nodes on other machines, too."""
    server = await asyncio.to_thread(make, router=True, separate=True)
    assert server.router_port is not None
    path = "/push/deadbeef0000000000000000deadbeef"
    for port in range(server.router_port, server.router_port + COUNT):
        assert httpx.put(f"http://127.0.0.1:{port}{path}", json={}).status_code == 404
    async with agents(server, 8) as everybody:
        for agent in everybody:
            subscription = await agent.register()
            await send(subscription, b"x")
            await receive(agent, subscription, b"x")


# ----------------------------------------------------------------------------- a worker dies


async def test_a_killed_worker_is_back_and_nothing_is_lost(make: MakeServer) -> None:
    server = await asyncio.to_thread(make)
    async with agents(server) as everybody:
        subscriptions = [await agent.register() for agent in everybody]
        before = workers(server)
        await asyncio.gather(*(send(one, b"before") for one in subscriptions))
        for agent in everybody:
            await agent.receive("notification")  # not acknowledged
        before[2].kill()
        lost = [agent for agent in everybody if await _is_closed(agent)]
        assert 0 < len(lost) < AGENTS
        answers = await asyncio.gather(*(send(one, b"after") for one in subscriptions))
        assert {answer.status_code for answer in answers} == {201}
        for agent, subscription in zip(everybody, subscriptions, strict=True):
            if agent in lost:
                async with await UserAgent.open(server.ws_url, agent.uaid) as again:
                    frames = await again.receive_all(2)
                    texts = {subscription.decrypt(frame) for frame in frames}
                    assert texts == {b"before", b"after"}
            else:
                await receive(agent, subscription, b"after")
    await asyncio.to_thread(eventually, lambda: all_serve(server))
    after = workers(server)
    assert {n: after[n].pid for n in (1, 3)} == {n: before[n].pid for n in (1, 3)}
    assert after[2].pid != before[2].pid
    assert server.output.count("Worker 2 has ended (signal 9), starting it again") == 1


def test_process_ids_come_again(make: MakeServer) -> None:
    """In a container after each kill: what a worker has left seems to be in use by another."""
    server = make()
    assert server.process is not None
    processes = workers(server)
    server.process.kill()
    server.process.wait()
    server.process = None
    psutil.wait_procs(processes.values())
    for number in (1, 2, 7):
        _seem_in_use(server.data_dir / f"worker-{number}.sock")
    server.start()
    path = server.data_dir / "worker-2.sock"
    process = workers(server)[2]
    process.suspend()
    _seem_in_use(path)
    process.kill()
    assert eventually(lambda: "Worker 2 serves again" in server.output)
    assert "Cannot acquire lock" not in server.output
    assert not list(server.data_dir.glob("worker-7*"))


def _seem_in_use(path: Path) -> None:
    lock = path.with_name(f"{path.name}.lock")
    lock.unlink(missing_ok=True)
    lock.symlink_to(str(os.getpid()))


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_each_has_the_descriptors_it_was_given_and_no_others(make: MakeServer) -> None:
    server = make(separate=True)

    def sockets(process: psutil.Process) -> set[str]:
        files = (Path("/proc") / str(process.pid) / "fd").iterdir()
        return {name for name in map(_target, files) if name.startswith("socket:")}

    def _target(file: Path) -> str:
        try:
            return os.readlink(file)
        except FileNotFoundError:
            return ""

    before = workers(server)
    before[1].kill()
    assert eventually(lambda: "Worker 1 serves again" in server.output)
    own = [sockets(process) for process in workers(server).values()]
    assert all(len(one) >= 3 for one in own)  # two ports, and the channel
    assert sum(map(len, own)) == len(set().union(*own))


async def _is_closed(agent: UserAgent) -> bool:
    """Whether it was connected to what was killed."""
    try:
        await agent.round_trip()
    except Exception:
        return True
    return False


async def test_a_worker_that_is_asked_to_end_does_so_in_order(make: MakeServer) -> None:
    server = await asyncio.to_thread(make, "--no_store_direct")
    async with agents(server) as everybody:
        subscriptions = [await agent.register() for agent in everybody]
        for subscription in subscriptions:
            await send(subscription, b"in memory only")
        for agent in everybody:
            await agent.receive("notification")
        workers(server)[3].terminate()
        await asyncio.to_thread(eventually, lambda: "Worker 3 serves again" in server.output)
        for agent, subscription in zip(everybody, subscriptions, strict=True):
            if await _is_closed(agent):
                assert agent.got_close_frame
                async with await UserAgent.open(server.ws_url, agent.uaid) as again:
                    await receive(again, subscription, b"in memory only")


# ------------------------------------------------------------------------------------ the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_all_in_order(make: MakeServer, number: int) -> None:
    server = await asyncio.to_thread(make, "--no_store_direct")
    processes = list(workers(server).values())
    async with agents(server) as everybody:
        subscription = await everybody[0].register()
        await send(subscription, b"in memory only")
        await everybody[0].receive("notification")
        stopping = asyncio.create_task(asyncio.to_thread(server.stop, number))
        await asyncio.gather(*(agent.closed() for agent in everybody))
        assert await stopping == 0
        assert all(agent.got_close_frame for agent in everybody)
    assert not any(process.is_running() for process in processes)
    assert not list(server.data_dir.glob("*.sock*"))
    await asyncio.to_thread(server.start)
    async with await UserAgent.open(server.ws_url, everybody[0].uaid) as again:
        await receive(again, subscription, b"in memory only")


async def test_a_service_manager_may_signal_all_processes(make: MakeServer) -> None:
    """As systemd does with ``KillMode=control-group``, and a terminal with Ctrl-C."""
    server = await asyncio.to_thread(make, "--no_store_direct")
    async with agents(server, 6) as everybody:
        subscriptions = [await agent.register() for agent in everybody]
        for agent, subscription in zip(everybody, subscriptions, strict=True):
            await send(subscription, b"owed")
            await agent.receive("notification")
        for process in workers(server).values():
            with contextlib.suppress(psutil.NoSuchProcess):  # the first may have been enough
                process.send_signal(signal.SIGINT)
                process.terminate()
                process.terminate()
        assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start)
    for agent, subscription in zip(everybody, subscriptions, strict=True):
        async with await UserAgent.open(server.ws_url, agent.uaid) as again:
            await receive(again, subscription, b"owed")


async def test_workers_end_with_a_supervisor_that_is_killed(make: MakeServer) -> None:
    server = await asyncio.to_thread(make, "--no_store_direct")
    processes = list(workers(server).values())
    agent = await UserAgent.open(server.ws_url)
    subscription = await agent.register()
    await send(subscription, b"owed")
    await agent.receive("notification")
    assert server.process is not None
    server.process.kill()
    # The next service waits for their end: they save what they owe.
    server.process.wait()
    server.process = None
    await asyncio.to_thread(server.start)
    # Nobody's children any more, they are there until init has looked after them.
    assert all(_has_ended(process) for process in processes)
    async with await UserAgent.open(server.ws_url, agent.uaid) as again:
        await receive(again, subscription, b"owed")


def _has_ended(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def test_sigint_is_not_for_what_is_started_meanwhile() -> None:
    look = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"

    def is_blocked() -> bytes:
        return subprocess.check_output([sys.executable, "-c", look]).strip()

    with sigint_blocked():
        assert is_blocked() == b"True"
    assert is_blocked() == b"False"


async def test_signals_that_come_together_end_it_in_order(make: MakeServer) -> None:
    server = await asyncio.to_thread(make, "--no_store_direct")
    async with agents(server, 3) as everybody:
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            server.process.send_signal(number)
        await asyncio.gather(*(agent.closed() for agent in everybody))
        assert await asyncio.to_thread(server.wait) == 0
        assert all(agent.got_close_frame for agent in everybody)
    assert not any(sign in server.output for sign in UNEXPECTED)


MOMENTS: dict[str, Callable[[Server], Any]] = {
    "all are there": lambda server: len(workers(server)) == COUNT,
    "one says something": lambda server: any('"worker":' in line for line in server.lines),
}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_end_may_come_while_they_start(
    make_server: MakeServer, moment: str, number: int
) -> None:
    server = make_server("--workers", str(COUNT))
    server.spawn()
    assert server.process is not None
    eventually(lambda: MOMENTS[moment](server))
    processes = psutil.Process(server.process.pid).children()
    server.process.send_signal(number)
    if number == signal.SIGINT:  # of a terminal
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    status = server.wait()
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    _, left = psutil.wait_procs(processes, timeout=STOP_WITHIN)
    assert not left
    assert not any(sign in server.output for sign in (*UNEXPECTED, "KeyboardInterrupt"))


# ------------------------------------------------------------------ for the tests of others


async def test_pieces_for_those_who_start_it_themselves(
    make_server: MakeServer, tmp_path: Path
) -> None:
    """It tells where it is and who leads it, closes at once, and leaves nothing."""
    facts = tmp_path / "facts.json"
    server = make_server("--workers", "2", "--ephemeral", "--self_signed", env=_temporary(tmp_path))
    server.options += ["--ready_file", str(facts)]
    server.port = 0
    await asyncio.to_thread(server.start)
    told = json.loads(facts.read_text())
    assert server.process is not None and told["pid"] == server.process.pid
    assert Path(told["data_dir"]).parent == tmp_path
    trust = ssl.create_default_context(cafile=told["certificate"])
    answer = httpx.get(f"{told['url']}/health", verify=trust, trust_env=False)
    assert sorted(answer.json()["workers"]) == ["1", "2"]
    assert await asyncio.to_thread(server.stop) == 0
    assert not Path(told["data_dir"]).exists()


def _temporary(home: Path) -> dict[str, str]:
    return {"TMPDIR": str(home)}


def test_it_ends_with_the_program_it_belongs_to(make: MakeServer) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        server = make("--parent", str(owner.pid))
        processes = list(workers(server).values())
    assert server.wait() == 0
    assert not any(process.is_running() for process in processes)


# ------------------------------------------------------------------------- starts that fail


def start_error(server: Server) -> str:
    with pytest.raises(StartFailed) as caught:
        server.start()
    status, _, output = str(caught.value).partition("\n")
    assert status == "exit status 1"
    lines = [line for line in output.splitlines() if line.startswith("autopush_standalone: ")]
    assert len(lines) == 1, output
    assert "Traceback" not in output
    return lines[0]


def test_port_in_use(make: MakeServer, make_server: MakeServer) -> None:
    """Also by another service with several workers, whose sockets share their port."""
    first = make()
    second = make_server("--workers", "2")
    second.port = first.port
    line = start_error(second)
    assert f"Can't listen on 127.0.0.1:{first.port}: Address already in use" in line


def test_the_file_that_tells_of_it_can_not_be_written(
    make_server: MakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "none" / "facts"
    server = make_server("--workers", "2", "--ready_file", str(path))
    server.spawn()
    assert server.wait(START_WITHIN) == 1
    (line,) = [one for one in server.lines if one.startswith("autopush_standalone: ")]
    assert "No such file or directory" in line and str(path.parent) in line
    assert not any(sign in server.output for sign in UNEXPECTED)


def test_the_test_mode_is_for_one_process(make_server: MakeServer) -> None:
    line = start_error(make_server("--workers", "2", "--ephemeral", "--control"))
    assert "control goes with one process: leave out workers" in line


def test_a_start_that_fails_half_way_leaves_no_socket(
    make: MakeServer, make_server: MakeServer, tmp_path: Path
) -> None:
    first = make()
    path = tmp_path / "s"
    options = ("--public_url", "http://push.example", "--proxy_protocol_port", str(first.port))
    second = make_server("--workers", "2", *options, host=f"unix:{path}")
    assert "Address already in use" in start_error(second)
    assert not list(tmp_path.glob("s*"))


def test_what_a_worker_can_not_use(make_server: MakeServer) -> None:
    server = make_server("--workers", "2")
    server.data_dir.mkdir(mode=0o700)
    database = server.data_dir / "autopush.sqlite3"
    database.write_bytes(os.urandom(20_000))
    for name in ("--crypto_key", "--auth_key"):
        server.options += [name, "0" * 43 + "="]
    assert f"{database} is not an SQLite database" in start_error(server)


# ---------------------------------------------------------------- signals, logs, service manager


def test_sighup_reaches_all(make: MakeServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = make("--log_output", str(log))
    log.rename(tmp_path / "old")
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)

    def reopened() -> bool:
        lines = log.read_text().splitlines() if log.exists() else []
        events = [json.loads(line)["Fields"] for line in lines]
        told = {e.get("worker") for e in events if e["message"].startswith("Received SIGHUP")}
        return told == {None, 1, 2, 3}

    assert eventually(reopened)


def test_the_log_names_workers(make: MakeServer) -> None:
    lines = make("--human_logs").lines
    for number in (1, 2, 3):
        pattern = rf"\S+ \[worker {number}: .*\] StandaloneHTTPFactory starting on"
        assert any(re.match(pattern, line) for line in lines), lines


def test_the_service_manager_hears_of_the_whole(make: MakeServer, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(60)
        env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000"}
        server = make(env=env)
        told: list[str] = []

        def hears(text: str) -> None:
            while not any(text in one for one in told):
                told.append(listening.recv(1000).decode())

        hears("READY=1")
        assert f"Serving with {COUNT} workers" in "".join(told)
        hears("WATCHDOG=1")
        assert server.stop() == 0
        hears("STOPPING=1")
        assert sum("READY=1" in one for one in told) == 1


# ---------------------------------------------------------------------------------- metrics


async def test_one_scrape_has_all(make: MakeServer) -> None:
    port = free_port()
    server = await asyncio.to_thread(make, "--prometheus_port", str(port))

    def figures() -> dict[str, float]:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        lines = (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    async with agents(server) as everybody:
        for agent in everybody:
            subscription = await agent.register()
            await send(subscription, b"x")
            await receive(agent, subscription, b"x")
        one = await asyncio.to_thread(figures)
        assert one["autopush_connections"] == AGENTS
        own = [one[f'autopush_worker_connections{{worker="{n}"}}'] for n in (1, 2, 3)]
        assert sum(own) == AGENTS
        assert one["autopush_ua_command_hello_total"] == AGENTS
        assert one["autopush_notification_request_time_seconds_count"] == AGENTS
        assert (one["autopush_workers"], one["autopush_workers_up"]) == (3, 3)
        assert one["autopush_store_up"] == 1
        workers(server)[1].kill()
        await asyncio.to_thread(eventually, lambda: "Worker 1 serves again" in server.output)
        two = await asyncio.to_thread(figures)
        assert two["autopush_ua_command_hello_total"] == AGENTS
        assert two['autopush_worker_restarts{worker="1"}'] == 1
        assert two["autopush_connections"] == AGENTS - own[0]


async def test_the_page_shows_the_figures_of_all(make: MakeServer) -> None:
    server = await asyncio.to_thread(make)
    url = f"{server.endpoint_url}/page/figures"
    async with agents(server) as everybody:
        subscriptions = [await agent.register() for agent in everybody]
        began = time.monotonic()
        for agent, subscription in zip(everybody, subscriptions, strict=True):
            await send(subscription, b"x")
            await receive(agent, subscription, b"x")
        async with httpx.AsyncClient(trust_env=False) as browser:
            for _ in range(8):  # each by a connection of its own
                shown = (await browser.get(url, headers={"Connection": "close"})).json()
                assert shown["connections"] == AGENTS
                assert shown["messages"]["total"] == AGENTS
                # On a slow machine the first ones may be older.
                over = time.monotonic() - began > 60
                assert over or shown["messages"]["minute"] == AGENTS
                assert shown["workers"] == {"serving": COUNT, "count": COUNT}
            workers(server)[1].kill()
            await asyncio.to_thread(eventually, lambda: "Worker 1 serves again" in server.output)
            shown = (await browser.get(url)).json()
            assert shown["messages"]["total"] == AGENTS
            assert 0 < shown["connections"] < AGENTS


async def test_health_tells_of_a_worker_that_is_away(make: MakeServer) -> None:
    server = await asyncio.to_thread(make)
    process = workers(server)[2]
    process.suspend()
    try:
        report = await _first_answer(server, 503)
        assert report["status"] == "NOT OK"
        assert report["workers"]["2"]["error"].startswith("no answer within")
        assert report["workers"]["1"]["status"] == "OK"
    finally:
        process.resume()
    await asyncio.to_thread(eventually, lambda: all_serve(server))


async def _first_answer(server: Server, status: int) -> dict[str, Any]:
    """Ask all workers, as far as chance has it: those that hang are not waited for.

    Asked one after the other, each by chance, they might be asked for so long that the worker is
    taken for one that hangs, and killed.
    """
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        url = f"{server.endpoint_url}/health"
        asked = [asyncio.create_task(client.get(url)) for _ in range(12)]
        done, others = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    answer = done.pop().result()
    assert answer.status_code == status, answer.text
    report: dict[str, Any] = answer.json()
    return report
