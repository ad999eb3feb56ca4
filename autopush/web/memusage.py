"""Where the memory of this process is, as text (spec/configuration 9).

What PyPy could tell more (its heap dump, its JIT's memory) CPython can't; instead there are, when
``PYTHONTRACEMALLOC`` is set, the lines of code that allocated most.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable
from io import StringIO
from typing import TextIO

PMAP_TIMEOUT = 10
"""Seconds ``pmap`` may take."""

TOP_LINES = 50
"""Lines of code shown that allocated most."""

Writer = Callable[[TextIO], None]

_frozen: Counter[str] = Counter()
"""Objects by type that ``gc.freeze()`` hides."""


def note_frozen() -> None:
    """Remember what there is, just before it is frozen: it stays, but can't be listed then."""
    _frozen.clear()
    _frozen.update(type(one).__name__ for one in gc.get_objects())


def memusage(do_dump_rpy_heap: bool = True, do_objgraph: bool = True) -> str:
    """Describe this process' memory; takes a second or so, and blocks.

    :param do_dump_rpy_heap: for PyPy, no effect
    :param do_objgraph: count all objects by type
    """
    stream = StringIO()
    parts: list[Writer] = [
        usage,
        pmap_extended,
        jemalloc_stats,
        glibc_malloc_info,
        sqlite_memory,
        gc_stats,
        traced_lines,
    ]
    if do_objgraph:
        parts.append(object_counts)
    for write in parts:
        try:
            write(stream)
        except Exception as exc:
            stream.write(f"{write.__name__}: {exc!r}: {exc}\n")
        stream.write("\n")
    return stream.getvalue()


def usage(stream: TextIO) -> None:
    """Write what the kernel counts for the process; ``ru_maxrss`` is in KiB."""
    stream.write(f"{resource.getrusage(resource.RUSAGE_SELF)}\n")


def pmap_extended(stream: TextIO) -> None:
    """Write the memory map, as detailed as the ``pmap`` at hand can.

    :raises OSError: there is no ``pmap``
    """
    program = shutil.which("pmap")
    if program is None:
        raise FileNotFoundError("pmap not found")
    for detail in ("-XX", "-X", "-x"):
        done = subprocess.run(
            [program, detail, str(os.getpid())],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PMAP_TIMEOUT,
            check=False,
        )
        if done.returncode == 0:
            break
    stream.write(f"pmap {detail}\n{done.stdout}{done.stderr}")


def jemalloc_stats(stream: TextIO) -> None:
    """Write jemalloc's statistics, if that is the allocator."""
    show = getattr(ctypes.CDLL(None), "malloc_stats_print", None)
    if show is None:
        return
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)
    write = callback(lambda _, text: stream.write(text.decode("utf-8", "replace")) and None)
    show(write, None, b"")


def glibc_malloc_info(stream: TextIO) -> None:
    """Write what glibc's allocator says about its arenas, as XML.

    :raises OSError: it can't
    :raises AttributeError: another C library
    """
    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    with tempfile.TemporaryFile() as file:
        copy = os.dup(file.fileno())
        handle = ctypes.c_void_p(libc.fdopen(copy, b"w"))
        if not handle:
            os.close(copy)
            raise OSError("fdopen failed")
        failed = libc.malloc_info(0, handle)
        libc.fclose(handle)
        if failed:
            raise OSError("malloc_info failed")
        file.seek(0)
        stream.write(file.read().decode("utf-8", "replace"))


def sqlite_memory(stream: TextIO) -> None:
    """Write what SQLite has allocated: its page caches and statements.

    :raises OSError: its library can't be found
    """
    for name in ("libsqlite3.so.0", _sqlite3.__file__):
        library = ctypes.CDLL(name)
        used = getattr(library, "sqlite3_memory_used", None)
        if used is not None:
            used.restype = library.sqlite3_memory_highwater.restype = ctypes.c_int64
            most = library.sqlite3_memory_highwater(0)
            stream.write(f"SQLite: {used()} bytes now, {most} at most\n")
            return


def gc_stats(stream: TextIO) -> None:
    """Write what the garbage collector did, by generation."""
    for generation, (stats, count, threshold) in enumerate(
        zip(gc.get_stats(), gc.get_count(), gc.get_threshold(), strict=True)
    ):
        stream.write(f"gc generation {generation}: {stats}, {count} of {threshold}\n")
    stream.write(f"gc frozen: {gc.get_freeze_count()}\n")
    stream.write(f"allocated blocks: {sys.getallocatedblocks()}\n")


def traced_lines(stream: TextIO) -> None:
    """Write which lines of code hold most memory, if that is being traced."""
    if not tracemalloc.is_tracing():
        return
    current, peak = tracemalloc.get_traced_memory()
    stream.write(f"tracemalloc: {current} bytes now, {peak} at most\n")
    for statistic in tracemalloc.take_snapshot().statistics("lineno")[:TOP_LINES]:
        stream.write(f"{statistic}\n")


def object_counts(stream: TextIO) -> None:
    """Write how many objects of which type there are, most common first.

    Only what can be part of a cycle is known to Python: no texts, bytes or numbers.
    """
    counts = _frozen + Counter(type(one).__name__ for one in gc.get_objects())
    for name, count in counts.most_common():
        stream.write(f"{name} {count}\n")
