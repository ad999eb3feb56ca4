"""The mark of the conformance tests."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: waits for time-outs of the service in real time")
