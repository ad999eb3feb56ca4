"""Fixtures of the end-to-end tests, and ``async def`` tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autopush.tests.e2e.harness import Server
from autopush.tests.tlsfiles import make_certificate

TEST_WITHIN = 600
"""Seconds after which an ``async def`` test that hangs is given up."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: waits for time-outs of the service in real time")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    asyncio.run(asyncio.wait_for(test, TEST_WITHIN))
    return True


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with default options that tests share: they must leave it well."""
    with Server(tmp_path_factory.mktemp("server"), router=True) as shared:
        yield shared
        assert shared.alive, shared.output


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers of a test's own; call ``start()`` on them."""
    made: list[Server] = []

    def make(*options: str, home: Path | None = None, **kwargs: Any) -> Server:
        if home is None:
            home = tmp_path / f"home{len(made)}"
            home.mkdir()
        made.append(Server(home, *options, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Key file and certificate file of 127.0.0.1."""
    key, cert, _ = make_certificate(tmp_path_factory.mktemp("tls"))
    return key, cert
