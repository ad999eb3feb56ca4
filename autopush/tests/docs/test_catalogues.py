"""The manual's catalogues of metrics and log events, compared with the code in both directions.

``docs/metrics.rst`` and ``docs/logging.rst`` have a table row for every name and every text. What
the code reports is found by reading it: each call of ``increment``, ``gauge``, ``timing`` and
``observe``, and each call of a logger.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from autopush.logging.redaction import OPEN_CLAIMS, REDACTORS
from autopush.metrics.prometheus import HISTOGRAMS
from autopush.session.stats import COUNTERS
from autopush.tests import TREE
from autopush.useragent import user_agent

METRIC_CALLS = {"increment": "counter", "gauge": "gauge", "timing": "timing", "observe": "age"}
LEVELS = ("debug", "info", "warn", "error", "critical", "failure")
VARIABLE = re.compile(r"<[^<>]+>|\{[^{}]*\}")


class Found(NamedTuple):
    """One call in the code, or one row of a table."""

    what: str
    kind: str
    where: str


def sources() -> Iterator[tuple[Path, ast.AST]]:
    """The service's modules; without the tests, and the destinations of metrics themselves."""
    for path in sorted((TREE / "autopush").rglob("*.py")):
        relative = path.relative_to(TREE / "autopush")
        if relative.parts[0] != "tests":
            yield relative, ast.parse(path.read_text("utf-8"))


def calls(tree: ast.AST, names: Container[str]) -> Iterator[tuple[ast.Call, str, ast.expr]]:
    """Calls of methods of these names: the call, the method, the object."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in names:
            yield node, node.func.attr, node.func.value


def texts(node: ast.expr | None) -> list[str] | None:
    """The texts an expression may have, variable parts as ``*``; None: can't tell."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        parts = [p.value if isinstance(p, ast.Constant) else "*" for p in node.values]
        return ["".join(map(str, parts))]
    if isinstance(node, ast.IfExp):
        first, second = texts(node.body), texts(node.orelse)
        return None if first is None or second is None else first + second
    return None


def last_name(node: ast.expr) -> str:
    """The name after the last dot."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


# ------------------------------------------------------------------------------------ metrics


def metrics_in_code() -> Iterator[Found]:
    for path, tree in sources():
        if path.parts[0] == "metrics" and path.name != "interface.py":
            continue
        for call, method, owner in calls(tree, METRIC_CALLS):
            if last_name(owner) not in ("metrics", "_metrics"):
                continue
            found = texts(call.args[0] if call.args else None)
            assert found, f"{path}:{call.lineno}: the name of a metric must be a text"
            for name in found:
                yield Found(name, METRIC_CALLS[method], f"{path}:{call.lineno}")


def tags_in_code() -> dict[str, set[str]]:
    """Keys of the tags of each metric, as far as they are written where it is reported."""
    keys: dict[str, set[str]] = {}
    for path, tree in sources():
        if path.parts[0] == "metrics":
            continue
        for call, _, owner in calls(tree, METRIC_CALLS):
            if last_name(owner) in ("metrics", "_metrics"):
                value = next((k.value for k in call.keywords if k.arg == "tags"), None)
                name = (texts(call.args[0]) or [""])[0]
                keys.setdefault(name, set()).update(tag_keys(value))
    return keys


def tag_keys(node: ast.expr | None) -> Iterator[str]:
    if isinstance(node, ast.List):
        for element in node.elts:
            text = texts(element if not isinstance(element, ast.BinOp) else element.left)
            yield (text or [""])[0].partition(":")[0]
    elif isinstance(node, ast.Call) and last_name(node.func) == "make_tags":
        yield from (keyword.arg for keyword in node.keywords if keyword.arg)


# -------------------------------------------------------------------------------------- events


def events_in_code() -> Iterator[Found]:
    for path, tree in sources():
        for call, method, owner in calls(tree, LEVELS):
            if last_name(owner) not in ("log", "logger"):
                continue
            found = texts(call.args[0] if call.args else None)
            assert found, f"{path}:{call.lineno}: the format of an event must be a text (O6)"
            for text in found:
                yield Found(text, method, f"{path}:{call.lineno}")


# -------------------------------------------------------------------------------------- tables


def rows(page: str) -> Iterator[list[str]]:
    """Cells of the list tables of a page, without the headings."""
    text = (TREE / "docs" / page).read_text("utf-8")
    for table in re.findall(r"^\.\. list-table::.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL):
        items = re.split(r"^   \* - ", table, flags=re.MULTILINE)[1:]
        for item in items[1:]:
            yield [" ".join(cell.split()) for cell in re.split(r"^     -(?: |$)", item, flags=re.M)]


def literal(cell: str) -> list[str]:
    """The literals in a cell."""
    return re.findall(r"``(.+?)``", cell)


def pattern(name: str) -> str:
    return VARIABLE.sub("*", name)


def documented_metrics() -> dict[str, list[str]]:
    """Row by name."""
    return {pattern(literal(row[0])[0]): row for row in rows("metrics.rst")}


def documented_events() -> set[tuple[str, str]]:
    return {(text, row[1]) for row in rows("logging.rst") for text in literal(row[0])}


@pytest.mark.parametrize("kind", sorted(set(METRIC_CALLS.values())))
def test_metrics(kind):
    code = {pattern(found.what) for found in metrics_in_code() if found.kind == kind}
    types = {"counter": "counter", "gauge": "gauge", "timing": "timing", "age": "histogram"}
    manual = {name for name, row in documented_metrics().items() if row[1] == types[kind]}
    assert code == manual


def test_tags():
    manual = documented_metrics()
    for name, keys in tags_in_code().items():
        shown = {tag.partition(":")[0] for tag in literal(manual[pattern(name)][2])}
        assert keys <= shown, name


def test_histograms():
    manual = {name for name, row in documented_metrics().items() if "histogram" in " ".join(row)}
    assert manual == set(HISTOGRAMS)


def test_events():
    code: dict[tuple[str, str], str] = {}
    for found in events_in_code():
        code.setdefault((found.what, found.kind), found.where)
    manual = documented_events()
    missing = {f"{text!r} {level} ({where})" for (text, level), where in code.items()
               if (text, level) not in manual}  # fmt: skip
    assert not missing, "not in docs/logging.rst"
    assert not manual - set(code), "in docs/logging.rst, but not in the code"


def test_every_row_is_complete():
    for page, columns in (("metrics.rst", 5), ("logging.rst", 4)):
        for row in rows(page):
            assert len(row) == columns, row
            assert literal(row[0]), row


# -------------------------------------------------------------------------------------- fields

FIELD_MAKERS = {"_init_info", "_message_info", "session_fields"}
"""Functions that return the fields of a request, a message, a session."""

NO_FIELDS = {"failure", "client_info", "timings", "shown"}
"""Arguments of a logger that are groups of fields, or none; ``shown`` are for lines of text."""


def fields_in_code() -> set[str]:
    """Names of the fields that lines may have."""
    names = {"log_level", "log_namespace", "message", "traceback"}
    names |= {*OPEN_CLAIMS, *COUNTERS, *user_agent(None).info}
    for _, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name in FIELD_MAKERS:
                names |= keys_of_dicts(node)
            elif isinstance(node, ast.Subscript) and last_name(node.value) == "_timings":
                names.update(texts(node.slice) or ())
        for call, _, owner in calls(tree, {*LEVELS, "update"}):
            if last_name(owner) in ("log", "logger", "_client_info"):
                names |= {one.arg for one in call.keywords if one.arg}
    return names - NO_FIELDS


def keys_of_dicts(tree: ast.AST) -> set[str]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    return {text for node in found for key in node.keys if key for text in texts(key) or ()}


def documented_fields() -> dict[str, str]:
    """What the manual says of each."""
    found = [row for row in rows("security.rst") if len(row) == 2]
    return {name: said for names, said in found for name in literal(names)}


def test_every_field_is_in_the_manual():
    """With what becomes of it."""
    manual = documented_fields()
    assert fields_in_code() == set(manual)
    changed = {name for name, said in manual.items() if not said.startswith("as it is")}
    assert changed == {*REDACTORS, "message", "traceback"}
