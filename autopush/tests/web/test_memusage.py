"""The memory API (spec/configuration 9)."""

from __future__ import annotations

import re
import shutil
import tracemalloc
from types import SimpleNamespace

import pytest
from twisted.logger import Logger

from autopush.web import memusage as module
from autopush.web.memusage import memusage


class Rarity:
    """A type nobody else has objects of."""


def test_parts_come_in_order():
    text = memusage()
    places = [text.index(part) for part in ("ru_maxrss=", "<malloc ", "gc generation 0", "Logger ")]
    assert places == sorted(places)


@pytest.mark.skipif(shutil.which("pmap") is None, reason="no pmap")
def test_pmap(monkeypatch):
    monkeypatch.setattr(module, "PMAP_TIMEOUT", 240)
    text = memusage(do_objgraph=False)
    assert "pmap -X" in text
    assert re.search("RSS|Rss", text)


def test_pmap_falls_back_to_less_detail(monkeypatch):
    asked = []

    def run(command, **kwargs):
        asked.append(command[1])
        return SimpleNamespace(returncode=command[1] != "-x", stdout="the map\n", stderr="")

    monkeypatch.setattr(module.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(module.subprocess, "run", run)
    text = memusage(do_objgraph=False)
    assert asked == ["-XX", "-X", "-x"]
    assert "pmap -x\nthe map\n" in text


def test_part_that_raises_is_replaced_by_its_error(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    text = memusage(do_objgraph=False)
    assert "pmap_extended: FileNotFoundError('pmap not found'): pmap not found\n" in text
    assert "<malloc " in text


def test_objects_by_type_most_common_first():
    keep = [Rarity() for _ in range(7)]
    log = Logger()
    rows = [line.rpartition(" ") for line in memusage().splitlines() if line[-1:].isdigit()]
    counts = {name: int(count) for name, _, count in rows if name.isidentifier()}
    assert counts["Rarity"] == len(keep)
    assert counts["Logger"] >= 1
    values = list(counts.values())
    assert values == sorted(values, reverse=True)
    del log


def test_frozen_objects_are_counted_as_well(monkeypatch):
    monkeypatch.setattr(module, "_frozen", module.Counter())
    keep = [Rarity() for _ in range(3)]
    module.note_frozen()
    assert module._frozen["Rarity"] == 3
    monkeypatch.setattr(module.gc, "get_objects", lambda: [Rarity()])
    assert re.search(r"^Rarity 4$", memusage(), re.MULTILINE)
    del keep


def test_objgraph_can_be_left_out():
    assert re.search(r"^Logger \d+$", memusage(), re.MULTILINE)
    assert not re.search(r"^Logger \d+$", memusage(do_objgraph=False), re.MULTILINE)


def test_dump_rpy_heap_has_no_effect():
    assert "ru_maxrss=" in memusage(do_dump_rpy_heap=True, do_objgraph=False)
    assert "ru_maxrss=" in memusage(do_dump_rpy_heap=False, do_objgraph=False)


def test_traced_lines_only_when_traced():
    assert "tracemalloc" not in memusage(do_objgraph=False)
    tracemalloc.start()
    try:
        keep = bytearray(3_000_000)
        text = memusage(do_objgraph=False)
    finally:
        tracemalloc.stop()
    assert "tracemalloc: " in text
    assert "test_memusage.py" in text
    del keep


def test_jemalloc_when_it_is_loaded(monkeypatch):
    class Loaded:
        @staticmethod
        def malloc_stats_print(write, opaque, options):
            write(opaque, b"___ Begin jemalloc statistics ___\n")

    class Other:
        pass

    from io import StringIO

    for library, shown in ((Loaded, True), (Other, False)):
        stream = StringIO()
        monkeypatch.setattr(module.ctypes, "CDLL", lambda name, library=library: library)
        module.jemalloc_stats(stream)
        assert ("jemalloc" in stream.getvalue()) is shown
