"""The manual is found by what one wants, and can be read on a phone and in the dark."""

from __future__ import annotations

import asyncio
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from autopush.tests import TREE
from autopush.tests.docs.conftest import Manual
from autopush.tests.docs.support import DOCS, pages
from autopush.tests.e2e.firefox import PROGRAM, Firefox

DOORS = {
    "Host it": "install",
    "Test with it": "test",
    "Send to it": "http",
    "Outgrow one machine": "outgrow",
    "Run it large": "cluster",
    "Move from 1.58.3": "migrating",
}
"""What somebody wants, and the page it begins with."""


# -------------------------------------------------------------------------------- front doors


def test_the_front_page_has_a_door_for_each_intent():
    text = pages()["index"]
    section = text[text.index(".. front doors") : text.index(".. end of front doors")]
    assert dict(re.findall(r"^:doc:`(.+) <(\w+)>`$", section, re.MULTILINE)) == DOORS
    assert "\n.. toctree::" not in section


def test_doors_are_links_of_the_built_page(manual: Manual) -> None:
    html, _ = manual
    text = (html / "index.html").read_text("utf-8")
    article = text[text.index("<article") :]
    for page in [*DOORS.values(), "troubleshooting", "unifiedpush", "reverse_proxy"]:
        assert f'href="{page}.html"' in article


def test_the_readme_has_the_same_doors():
    text = (TREE / "README.md").read_text("utf-8")
    section = text[text.index("## More") : text.index("## Work on it")]
    rows = dict(re.findall(r"^\| ([\w .]+) \| \[[^]]+\]\(docs/(\w+)\.rst\)", section, re.M))
    assert rows == {name[0].lower() + name[1:]: page for name, page in DOORS.items()}


# ------------------------------------------------------------------------------------- tables

RULE = re.compile(r"\s*=+(?: +=+)+\s*$")


def simple_tables(text: str) -> list[list[list[str]]]:
    """The rows of each simple table, as docutils sees them: each text at the left begins one."""
    found: list[list[list[str]]] = []
    columns: list[int] = []
    for line, after in zip(text.splitlines(), [*text.splitlines()[1:], ""], strict=True):
        if RULE.match(line):
            if not columns:
                found.append([])
                columns = [match.start() for match in re.finditer(r"=+", line)]
            elif not after.strip():
                columns = []
            continue
        if not columns or not line.strip():
            continue
        ends = [*columns[1:], None]
        cells = [line[start:end].strip() for start, end in zip(columns, ends, strict=True)]
        if cells[0] or not found[-1]:
            found[-1].append(cells)
        else:
            found[-1][-1] = [
                f"{old} {new}".strip() for old, new in zip(found[-1][-1], cells, strict=True)
            ]
    return found


def is_torn(cells: list[str]) -> bool:
    """Whether a row is a part of one: what was meant as the second line of its first cell."""
    first, *others = cells
    unbalanced = first.count("(") != first.count(")") or first.count("``") % 2
    return not any(others) or first.endswith((",", " and", " or", " with")) or bool(unbalanced)


@pytest.mark.parametrize("page", sorted(pages()))
def test_rows_of_tables_are_whole(page: str) -> None:
    """In a simple table a first cell of two lines is two rows; ``list-table`` has such cells."""
    rows = [row for table in simple_tables(pages()[page]) for row in table]
    assert not [row for row in rows if is_torn(row)]


def test_a_torn_row_is_seen():
    table = "====  ===\na     b\nlong  c\ncell\n====  ===\n"
    assert [is_torn(row) for (rows,) in [simple_tables(table)] for row in rows] == [False] * 2 + [
        True
    ]


# ---------------------------------------------------------------------------------- changelog


def restructured(markdown: str) -> str:
    found = runpy.run_path(str(DOCS / "_ext/autopush_changelog.py"))["restructured"](markdown)
    assert isinstance(found, str)
    return found


def test_the_changelog_is_translated():
    text = "# Changelog\n\n## 2.0\n\n* `a_`s of [it](https://example.org/x_y).\n\n### Removed\n"
    assert restructured(text) == (
        "\n2.0\n---\n\n* ``a_``\\ s of `it <https://example.org/x_y>`__.\n\nRemoved\n~~~~~~~\n"
    )


def test_the_changelog_is_a_page_with_all_its_releases(manual: Manual) -> None:
    html, _ = manual
    text = (html / "changelog.html").read_text("utf-8")
    for title in re.findall(r"^##+ (.+)$", (TREE / "CHANGELOG.md").read_text("utf-8"), re.M):
        assert f">{title}<a" in text


# ------------------------------------------------------------------------------------ reading

PHONE = {"width": 360, "height": 740}
TOO_WIDE = """({
  page: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  tables: [...document.querySelectorAll('article table.docutils')].filter(table => {
    const wrapper = table.closest('.table-wrapper');
    return !wrapper || getComputedStyle(wrapper).overflowX !== 'auto';
  }).length,
})"""
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.skipif(PROGRAM is None, reason="no Firefox on this machine")
def test_pages_fit_a_phone(manual: Manual, tmp_path: Path) -> None:
    """Nothing but tables, code and signatures, which scroll by themselves, is wider than it."""
    html, _ = manual

    async def look() -> dict[str, Any]:
        async with Firefox(tmp_path) as browser:
            await browser.resize(**PHONE)
            wide = {}
            for page in sorted(html.glob("*.html")):
                await browser.open(page.as_uri())
                found = await browser.run(TOO_WIDE)
                if found != {"page": 0, "tables": 0}:
                    wide[page.name] = found
            return wide

    assert asyncio.run(look()) == {}


@pytest.mark.skipif(PROGRAM is None, reason="no Firefox on this machine")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_are_as_dark_as_the_reader_wants(manual: Manual, tmp_path: Path, dark: bool) -> None:
    html, _ = manual

    async def ground() -> str:
        async with Firefox(tmp_path, **{"ui.systemUsesDarkTheme": int(dark)}) as browser:
            await browser.open((html / "architecture.html").as_uri())
            return str(await browser.run(GROUND))

    numbers = [int(number) for number in re.findall(r"\d+", asyncio.run(ground()))[:3]]
    assert max(numbers) < 50 if dark else min(numbers) > 200
