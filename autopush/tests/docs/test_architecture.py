"""The way through the code that docs/architecture.rst shows: its names are there, its pictures can
be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from twisted.python.reflect import namedAny

from autopush.tests.docs.support import DOCS, pages
from autopush.tests.test_layers import DEPTH, PACKAGE

sys.path.insert(0, str(DOCS / "_ext"))
from autopush_drawing import SMALL, Arrow, Box, Picture, Text, svg, words
from autopush_pictures import PICTURES

sys.path.pop(0)

DOTTED = re.compile(r"``([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(\))?``")
FILES = {"autopush.sqlite3"}
MANUAL = {name: text for name, text in pages().items() if not name.startswith("spec/")}


def exists(name: str) -> bool:
    """Whether there is such a module, or something of that name in one."""
    try:
        namedAny(name)
    except Exception:
        return False
    return True


# ---------------------------------------------------------------------------------------- names


def test_names_of_the_code_exist():
    """Below ``autopush``: what the page tells of, and what it lacks."""
    names = [name for name in DOTTED.findall(MANUAL["architecture"]) if "autopush" not in name]
    assert len(names) > 50
    assert not [name for name in names if not exists(f"autopush.{name}")]


@pytest.mark.parametrize("page", sorted(MANUAL))
def test_full_names_exist(page):
    names = [name for name in DOTTED.findall(MANUAL[page]) if name.startswith("autopush.")]
    assert not [name for name in names if name not in FILES and not exists(name)]


ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`(?:[^`<]*<)?~?(autopush\.[\w.]+)>?`")


def test_names_in_docstrings_exist():
    for path in sorted(PACKAGE.rglob("*.py")):
        missing = [name for name in ROLE.findall(path.read_text("utf-8")) if not exists(name)]
        assert not missing, path


def test_each_flow_names_where_it_begins():
    text = MANUAL["architecture"]
    section = text[text.index("Five ways") : text.index(".. _twice:")]
    flows = re.split(r"^~{3,}$", section, flags=re.MULTILINE)[1:]
    assert len(flows) == 5
    for flow in flows:
        named = {name.split(".")[0] for name in DOTTED.findall(flow)}
        assert len(named & set(DEPTH)) >= 3


# ------------------------------------------------------------------------------------- pictures

Extent = tuple[float, float, float, float]


def extent(box: Box) -> Extent:
    """Left, top, right and bottom."""
    return box.x, box.y, box.x + box.width, box.y + box.height


def overlap(one: Extent, other: Extent) -> bool:
    """Whether two extents have more than an edge in common."""
    left, top, right, bottom = one
    return other[0] < right and left < other[2] and other[1] < bottom and top < other[3]


def lines(arrow: Arrow) -> Iterator[Extent]:
    """The extents of an arrow's parts, which are level or upright."""
    for (x1, y1), (x2, y2) in pairwise(arrow.points):
        assert x1 == x2 or y1 == y2
        yield min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def labels(picture: Picture) -> list[Text]:
    """The texts that are in no box."""
    return [text for arrow in picture.arrows for text in arrow.labels]


picture = pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)


@picture
def test_names_in_pictures_exist(picture):
    for box in picture.boxes:
        assert not box.code or exists(f"autopush.{box.code}")


@picture
def test_arrows_lead_from_box_to_box(picture):
    boxes = {box.name: box for box in picture.boxes}
    for arrow in picture.arrows:
        assert boxes[arrow.source].has_edge(arrow.points[0]), arrow
        assert boxes[arrow.target].has_edge(arrow.points[-1]), arrow


@picture
def test_nothing_is_on_top_of_something_else(picture):
    boxes = [extent(box) for box in picture.boxes]
    texts = [text.extent for text in labels(picture)]
    parts = [part for arrow in picture.arrows for part in lines(arrow)]
    for one, other in combinations(boxes + texts, 2):
        assert not overlap(one, other), (one, other)
    for part in parts:
        assert not any(overlap(part, other) for other in boxes + texts), part


@picture
def test_texts_fit_into_their_boxes_and_pictures_onto_a_phone(picture):
    assert picture.width <= 360
    for box in picture.boxes:
        left, top, right, bottom = extent(box)
        for text in box.texts:
            x1, y1, x2, y2 = text.extent
            assert left <= x1 and x2 <= right and top <= y1 and y2 <= bottom, text
    for text in [*labels(picture), *(text for box in picture.boxes for text in box.texts)]:
        assert text.size >= SMALL
        x1, y1, x2, y2 = text.extent
        assert x1 >= 0 and y1 >= 0 and x2 <= picture.width and y2 <= picture.height, text


@picture
def test_pictures_have_the_colour_of_the_page(picture):
    """Be it dark or light: nothing is drawn in black or white, or on a ground of its own."""
    root = ElementTree.fromstring(svg(picture))
    for node in root.iter():
        assert node.get("stroke", "currentColor") == "currentColor"
        fill = node.get("fill", "none")
        assert fill in ("none", "currentColor") or float(node.get("fill-opacity", 1)) < 0.3


@picture
def test_who_does_not_see_a_picture_is_told(picture):
    root = ElementTree.fromstring(svg(picture))
    title, description = list(root)[:2]
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text == picture.title
    for box in picture.boxes:
        assert box.name in (description.text or "")
    for arrow in picture.arrows:
        assert arrow.meaning in (description.text or "")


def test_other_formats_have_it_as_a_list(tmp_path):
    directives = "\n".join(f".. autopush-drawing:: {name}" for name in PICTURES)
    made = tmp_path / "made"
    (tmp_path / "index.rst").write_text(directives)
    options = ["-C", "-D", "extensions=autopush_drawing"]
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "text", *options, tmp_path, made],
        env={**os.environ, "PYTHONPATH": str(DOCS / "_ext")},
        check=True,
        timeout=600,
    )
    text = " ".join((made / "index.txt").read_text().split())
    for picture in PICTURES.values():
        for sentence in words(picture):
            assert sentence in text
