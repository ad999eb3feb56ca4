"""What is looked up when somebody fetches the figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from autopush import __version__
from autopush.app.figures import Figures
from autopush.exceptions import StoreBusy
from autopush.metrics.prometheus import PrometheusMetrics
from autopush.tests.app.test_lifecycle import COMMANDS, start
from autopush.tests.daemons import daemons
from autopush.tests.e2e.harness import eventually, free_port
from autopush.tests.metrics.test_prometheus import samples
from autopush.tests.tlsfiles import make_certificate
from autopush.web.health import HEALTH_WITHIN

NOW = 1_800_000_000


class Store:
    """Answers what a test sets."""

    answer: Any = None
    waiting: int | None = None

    def health(self):
        return self.answer

    def writes_waiting(self):
        return self.waiting


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def clock():
    return Clock()


def shown(figures):
    """What Prometheus gets, but for the build."""
    metrics = PrometheusMetrics()
    metrics.on_fetch(figures.report)
    found = samples(metrics)
    return {
        key[0].removeprefix("autopush_"): value
        for key, value in found.items()
        if len(key) == 1 and "notification" not in key[0]
    }


def look(figures):
    return Deferred.fromCoroutine(figures.look())


def make(store, clock, tls=(), node=None):
    return Figures(store, tls, node, clock, lambda: NOW)


def certificate(days):
    until = datetime.fromtimestamp(NOW, UTC) + timedelta(days=days)
    return SimpleNamespace(certificate=SimpleNamespace(not_valid_after_utc=until))


def test_build(store, clock):
    metrics = PrometheusMetrics()
    metrics.on_fetch(make(store, clock).report)
    ((_, python, version),) = [key for key in samples(metrics) if "build_info" in key[0]]
    assert version == ("version", __version__)
    assert python[0] == "python"
    assert python[1].startswith("3.")


def test_what_is_not_known_is_not_told(store, clock):
    assert shown(make(store, clock)) == {}


@pytest.mark.parametrize(
    ("answer", "up"),
    [
        (succeed({"router": None, "storage": None}), 1),
        (succeed({"router": None, "storage": "disk full"}), 0),
        (fail(StoreBusy("x")), 0),
    ],
)
def test_store_that_answers(store, clock, answer, up):
    store.answer = answer
    figures = make(store, clock)
    assert look(figures).called
    assert shown(figures) == {"store_up": up}


def test_store_that_never_answers(store, clock):
    store.answer = Deferred()
    figures = make(store, clock)
    done = look(figures)
    assert shown(figures) == {}
    clock.advance(HEALTH_WITHIN)
    assert done.called
    assert shown(figures) == {"store_up": 0}


def test_mistakes_are_told_to_the_timer(store, clock):
    store.answer = fail(ZeroDivisionError())
    figures = make(store, clock)
    look(figures).addErrback(lambda failure: failure.trap(ZeroDivisionError))
    assert shown(figures) == {"store_up": 0}


def test_writes_that_wait(store, clock):
    store.waiting = 3
    assert shown(make(store, clock)) == {"store_writes_waiting": 3}


@pytest.mark.parametrize("days", [(90,), (90, 30), (-1.5, 90)])
def test_certificate_that_expires_first(store, clock, days):
    """Listeners come after the figures, and certificates are read again."""
    tls: list[Any] = []
    figures = make(store, clock, tls)
    tls.extend(map(certificate, days))
    assert shown(figures) == {"certificate_days_left": min(days)}


def test_connections_and_what_they_have_not_acknowledged(store, clock):
    waiting = [None, {}, {"a": 1, "b": 2}, {"c": 3}]
    sessions = {str(n): SimpleNamespace(direct=direct) for n, direct in enumerate(waiting)}
    figures = make(store, clock, node=SimpleNamespace(clients=sessions))
    assert shown(figures) == {"connections": 4, "unacknowledged": 3}
    sessions.popitem()
    assert shown(figures) == {"connections": 3, "unacknowledged": 2}


GAUGES = {
    "autopush": {"connections", "unacknowledged"},
    "autoendpoint": set(),
    "autopush_standalone": {
        "connections", "unacknowledged", "users", "channels", "stored_messages", "stored_bytes",
    },
}  # fmt: skip
EVERYWHERE = {"build_info", "store_up", "store_writes_waiting", "certificate_days_left"}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_show_them(tmp_path, command):
    key, cert, _ = make_certificate(tmp_path)
    port = free_port()
    more = ["--prometheus_port", str(port), "--ssl_key", key, "--ssl_cert", cert]
    wanted = {f"autopush_{name}" for name in GAUGES[command] | EVERYWHERE}
    with daemons() as make:
        start(make, tmp_path, command, *more)

        def gauges():
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
            found = {
                family.name: family.samples[0].value
                for family in text_string_to_metric_families(text)
                if family.type == "gauge" and family.name.startswith("autopush_")
            }
            # A busy machine may look at its store in vain at first.
            return found if wanted <= set(found) and found["autopush_store_up"] else None

        found = eventually(gauges)
    others = ("twisted_threadpool", "notification")
    found = {name: value for name, value in found.items() if not any(o in name for o in others)}
    assert set(found) == wanted
    assert found.pop("autopush_certificate_days_left") > 0
    assert found.pop("autopush_build_info") == found.pop("autopush_store_up") == 1
