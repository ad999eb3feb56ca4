"""Libraries inside our wheel."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from autopush.libraries import bundled


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "brought_along").mkdir()
    (tmp_path / "brought_along" / "__init__.py").write_text("number = 1")
    return tmp_path


def test_one_that_is_brought_along_becomes_importable(folder):
    assert bundled.provide("brought_along")
    assert import_module("brought_along").number == 1
    assert sys.path[-1] == str(folder), "what is installed comes first"


def test_one_that_is_installed_is_left_alone(folder):
    (folder / "json").mkdir()
    before = list(sys.path)
    assert bundled.provide("json")
    assert sys.path == before


def test_one_that_is_nowhere(folder):
    assert not bundled.provide("nowhere_at_all")
