"""What tests of options have in common: no variables from outside, and a file to read."""

from __future__ import annotations

import pytest

from autopush.options.bridges import option_groups
from autopush.options.standalone import STANDALONE
from autopush.options.tables import CONNECTION, ENDPOINT, SHARED


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for _, rows in (*SHARED, CONNECTION, ENDPOINT, *STANDALONE, *option_groups()):
        for row in rows:
            monkeypatch.delenv(row.env or "", raising=False)


@pytest.fixture
def ini(tmp_path):
    def write(text, name="test.ini"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
