"""Fixtures of the tests with a cluster of processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autopush.tests.cluster.harness import STORAGES, Cluster, Storage
from autopush.tests.db.postgresql.server import missing
from autopush.tests.e2e.conftest import certificate, pytest_pyfunc_call

__all__ = ["certificate", "pytest_pyfunc_call"]


@pytest.fixture(scope="module", params=STORAGES)
def storage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Storage]:
    """Each kind of store."""
    if request.param == "postgresql" and (reason := missing()):
        pytest.skip(reason)
    made = STORAGES[request.param](tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that the tests of a module share: they must leave it complete."""
    with Cluster(tmp_path_factory.mktemp("cluster"), storage) as shared:
        yield shared
    assert not list(shared.errors)
