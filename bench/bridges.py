"""What a message to a phone costs: sends per second and CPU per send, for each bridge.

    python bench/bridges.py                        all bridges
    python bench/bridges.py apns --count 20000 --rounds 5

This process runs the routers; the vendors' stand-ins (``python -m automock``) are another process.
It prints a table and exits 1 if a figure is above its bar. See bench/README.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID, uuid4

TREE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TREE))

from twisted.internet import reactor as _reactor  # noqa: E402
from twisted.internet.defer import Deferred, gatherResults  # noqa: E402

from autopush.config import AutopushConfig, check_router_conf, router_conf_from_options  # noqa: E402
from autopush.message.notification import WebPushNotification  # noqa: E402
from autopush.router import routers_from_config  # noqa: E402

reactor: Any = _reactor

BODY = os.urandom(1024)


class Bridge(NamedTuple):
    """How to measure one bridge.

    :ivar stand_in: name in automock
    :ivar router: router type
    :ivar router_data: of a registered device, from its number
    :ivar bar: CPU µs per send at 100 concurrent sends; None: for information
    """

    stand_in: str
    router: str
    router_data: Callable[[int], dict[str, Any]]
    bar: float | None = None


BRIDGES: dict[str, Bridge] = {
    "apns": Bridge(
        "apns", "apns", lambda n: {"token": f"{n:064x}", "rel_channel": "firefox"}, bar=1500
    ),
    "apns-token": Bridge(
        "apns", "apns", lambda n: {"token": f"{n:064x}", "rel_channel": "token"}, bar=1500
    ),
    "fcm": Bridge("fcm", "fcm", lambda n: {"token": f"{n:0100x}", "app_id": "fcmapp"}, bar=1500),
    "fcm-legacy": Bridge(
        "fcm_legacy", "fcm", lambda n: {"token": f"{n:0100x}", "app_id": "fcmapp"}
    ),
    "gcm": Bridge("gcm", "gcm", lambda n: {"token": f"{n:0100x}", "creds": {"senderID": "12345"}}),
    "adm": Bridge(
        "adm",
        "adm",
        lambda n: {
            "token": f"amzn1.adm-registration.v3.{n:0256x}",
            "creds": {"profile": "admprofile"},
        },
    ),
}

OPTIONS = {
    "apns_creds": "",
    "senderid_list": "",
    "gcm_ttl": 60,
    "gcm_dryrun": False,
    "gcm_collapsekey": "simplepush",
    "gcm_endpoint": "",
    "fcm_creds": "",
    "fcm_ttl": 60,
    "fcm_dryrun": False,
    "fcm_collapsekey": "simplepush",
    "fcm_version": 1,
    "fcm_endpoint": "fcm.googleapis.com/fcm/send",
    "adm_creds": "",
    "max_data": 4096,
}
"""Defaults of the bridges' options."""


class StandIns:
    """``python -m automock`` as a process."""

    def __init__(self, names: list[str], core: int | None) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "automock", *names],
            cwd=TREE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.options: dict[str, str] = {}
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            if line.startswith("  --"):
                name, _, value = shlex.split(line)[0].removeprefix("--").partition("=")
                self.options[name] = value
            if line.startswith("automock is ready"):
                break
        else:
            sys.exit("the stand-ins did not start")
        if core is not None:
            os.sched_setaffinity(self._popen.pid, {core})

    def close(self) -> None:
        """Stop it."""
        self._popen.send_signal(signal.SIGTERM)
        self._popen.wait(30)


def new_notification(conf: AutopushConfig, uaid: UUID) -> WebPushNotification:
    """Return a message as the endpoint makes it."""
    notification = WebPushNotification(
        uaid=uaid,
        channel_id=uuid4(),
        ttl=60,
        data=base64.urlsafe_b64encode(BODY).rstrip(b"=").decode(),
        headers={"encoding": "aes128gcm"},
    )
    notification.generate_message_id(conf.fernet)
    return notification


async def send_many(
    conf: AutopushConfig, router: Any, bridge: Bridge, count: int, concurrency: int
) -> tuple[float, float]:
    """Send messages, so many at a time.

    :returns: CPU seconds of this process per send, and sends per second
    """
    uaid = uuid4()
    messages = [new_notification(conf, uaid) for _ in range(count)]
    users = [{"uaid": uaid.hex, "router_data": bridge.router_data(n)} for n in range(count)]
    todo = iter(zip(messages, users, strict=True))

    async def worker() -> None:
        for notification, user in todo:
            response = await router.route_notification(notification, user)
            if response.status_code != 201:
                sys.exit(f"status {response.status_code}")

    start, cpu = time.perf_counter(), time.process_time()
    await gatherResults([Deferred.fromCoroutine(worker()) for _ in range(concurrency)])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return cpu / count, count / seconds


async def measure(ns: argparse.Namespace, stand_ins: dict[str, StandIns]) -> list[dict[str, Any]]:
    """Measure the bridges asked for."""
    results = []
    for name in ns.bridges or list(BRIDGES):
        bridge = BRIDGES[name]
        values = SimpleNamespace(**{**OPTIONS, **stand_ins[bridge.stand_in].options})
        values.fcm_version = int(values.fcm_version)
        router_conf = router_conf_from_options(values)
        check_router_conf(router_conf)
        conf = AutopushConfig(hostname="localhost", router_conf=router_conf)
        routers: dict[str, Any] = routers_from_config(conf, None, None)  # type: ignore[arg-type]
        router = routers[bridge.router]
        await send_many(conf, router, bridge, min(ns.count, 500), ns.concurrency)  # warm up
        rounds = [
            await send_many(conf, router, bridge, ns.count, ns.concurrency)
            for _ in range(ns.rounds)
        ]
        results.append(
            {
                "bridge": name,
                "cpu_us": statistics.median(cpu for cpu, _ in rounds) * 1e6,
                "rate": statistics.median(rate for _, rate in rounds),
                "bar_us": bridge.bar,
            }
        )
        for one in routers.values():
            closing = one.close()
            if closing is not None:
                await closing
    return results


def report(ns: argparse.Namespace, results: list[dict[str, Any]]) -> int:
    """Print the table; returns the exit status."""
    print(f"{ns.count} sends of {len(BODY)} bytes, {ns.concurrency} at a time, {ns.rounds} rounds")
    print(f"{'bridge':12} {'CPU µs/send':>12} {'bar':>8} {'sends/s':>9}")
    passed = True
    for one in results:
        bar = one["bar_us"]
        good = bar is None or one["cpu_us"] <= bar
        passed = passed and good
        print(
            f"{one['bridge']:12} {one['cpu_us']:12.0f} {bar or '':>8} {one['rate']:9.0f}"
            f"{'' if good else '  ABOVE THE BAR'}"
        )
    if ns.json:
        Path(ns.json).write_text(json.dumps(results, indent=1))
    return 0 if passed else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bridges", nargs="*", choices=[*BRIDGES, []], help="default: all")
    parser.add_argument("--count", type=int, default=5000, help="sends per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    ns = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    names = sorted({BRIDGES[name].stand_in for name in ns.bridges or BRIDGES})
    core = cores[1] if len(cores) > 1 else None
    stand_ins = {name: StandIns([name], core) for name in names}
    os.sched_setaffinity(0, {cores[0]})
    results: list[dict[str, Any]] = []
    failures: list[Any] = []

    def start() -> None:
        done = Deferred.fromCoroutine(measure(ns, stand_ins))
        done.addCallbacks(results.extend, failures.append)
        done.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    try:
        reactor.run()
    finally:
        for one in stand_ins.values():
            one.close()
    if failures:
        failures[0].printTraceback(sys.stderr)
        return 1
    return report(ns, results)


if __name__ == "__main__":
    sys.exit(main())
