"""Directive ``autopush-drawing``: a picture of boxes and arrows, as SVG within the page.

The argument is the name of a picture in :mod:`autopush_pictures`. Lines and texts have the colour
of the page's text, so that they can be read on light and on dark; pictures are as wide as a phone,
and are not made larger than their texts need. Who doesn't see it is read the title and every box
and arrow; builders of other formats than HTML get that as a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, NamedTuple

from docutils import nodes
from sphinx.addnodes import only
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Point = tuple[float, float]

TITLE, SMALL = 13, 11
"""Heights of the letters. One unit is about a pixel of a phone."""

LETTER = 0.56
"""Width of a letter, as a part of its height: what sans-serif fonts need on the average."""

LINE = 1.3
"""Distance of two lines of a text, as a part of the height of its letters."""


class Box(NamedTuple):
    """Somebody or something.

    :ivar name: first line, and what arrows call it
    :ivar lines: what else is in it
    :ivar code: last line: a name below ``autopush``, which has to exist
    :ivar ours: whether it is a process or a function of ours
    """

    name: str
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...] = ()
    code: str = ""
    ours: bool = False

    @property
    def texts(self) -> list[Text]:
        """Its lines, centred."""
        rows = [(self.name, TITLE), *((line, SMALL) for line in self.lines)]
        rows += [(self.code, SMALL)] if self.code else []
        y = self.y + (self.height - LINE * sum(size for _, size in rows)) / 2
        found = []
        for row, size in rows:
            y += LINE * size
            found.append(Text(row, self.x + self.width / 2, y - 0.3 * size, "middle", size))
        return found

    def has_edge(self, point: Point) -> bool:
        """Whether a point is on its edge."""
        x, y = point
        right, bottom = self.x + self.width, self.y + self.height
        inside = self.x <= x <= right and self.y <= y <= bottom
        return inside and (x in (self.x, right) or y in (self.y, bottom))


class Text(NamedTuple):
    """A line of text.

    :ivar y: its base line
    :ivar anchor: what of it is at ``x``: ``start``, ``middle`` or ``end``
    """

    text: str
    x: float
    y: float
    anchor: str = "start"
    size: float = SMALL

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, more or less."""
        width = len(self.text) * LETTER * self.size
        left = self.x - width * {"start": 0, "middle": 0.5, "end": 1}[self.anchor]
        return left, self.y - 0.75 * self.size, left + width, self.y + 0.2 * self.size


class Arrow(NamedTuple):
    """A way from one box to another, or back to the same.

    :ivar points: from edge to edge
    :ivar meaning: what goes there, for those who don't see the labels beside it
    """

    source: str
    target: str
    points: tuple[Point, ...]
    meaning: str
    labels: tuple[Text, ...] = ()
    both: bool = False


class Picture(NamedTuple):
    """A drawing.

    :ivar frames: boxes around boxes, with their names on top
    """

    name: str
    title: str
    width: float
    height: float
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    frames: tuple[Box, ...] = ()


# -------------------------------------------------------------------------------------- in words


def words(picture: Picture) -> Iterator[str]:
    """Yield what a picture shows, in sentences."""
    for box in picture.boxes:
        inside = ", ".join((*box.lines, *([box.code] if box.code else [])))
        yield f"{box.name}: {inside}." if inside else f"{box.name}."
    for frame in picture.frames:
        yield f"{frame.name}: {', '.join(frame.lines)}."
    for arrow in picture.arrows:
        way = "and" if arrow.both else "to"
        yield f"{arrow.source} {way} {arrow.target}: {arrow.meaning}."


# --------------------------------------------------------------------------------------- as SVG


def element(name: str, content: str = "", **attributes: Any) -> str:
    """An element of XML; ``_`` in a name stands for ``-``."""
    given = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f"<{name}{given}>{content}</{name}>"


def _text(text: Text, **attributes: Any) -> str:
    return element(
        "text",
        escape(text.text),
        x=text.x,
        y=round(text.y, 1),
        text_anchor=text.anchor,
        font_size=text.size,
        **attributes,
    )


def _box(box: Box) -> Iterator[str]:
    shape = {"x": box.x, "y": box.y, "width": box.width, "height": box.height, "rx": 5}
    tint = {"fill": "#2a8", "fill_opacity": 0.22} if box.ours else {"fill": "none"}
    yield element("rect", stroke="currentColor", **tint, **shape)
    first, *others = box.texts
    yield _text(first, font_weight="bold")
    yield from map(_text, others)


def _frame(frame: Box) -> Iterator[str]:
    shape = {"x": frame.x, "y": frame.y, "width": frame.width, "height": frame.height, "rx": 8}
    yield element("rect", fill="none", stroke="currentColor", stroke_dasharray="5 4", **shape)
    yield _text(Text(frame.name, frame.x + frame.width / 2, frame.y + 15, "middle"))


def _arrow(arrow: Arrow, head: str) -> Iterator[str]:
    points = " ".join(f"{x},{y}" for x, y in arrow.points)
    ends = {"marker_end": f"url(#{head})"}
    if arrow.both:
        ends["marker_start"] = ends["marker_end"]
    yield element("polyline", points=points, fill="none", stroke="currentColor", **ends)
    yield from map(_text, arrow.labels)


def _lines(picture: Picture, prefix: str) -> Iterator[str]:
    yield element("title", escape(picture.title), id=f"{prefix}-title")
    yield element("desc", escape(" ".join(words(picture))), id=f"{prefix}-desc")
    tip = element("path", d="M0,0 L8,4 L0,8 z", fill="currentColor")
    size = {"viewBox": "0 0 8 8", "refX": 8, "refY": 4, "markerWidth": 8, "markerHeight": 8}
    head = f"{prefix}-head"
    yield element("defs", element("marker", tip, id=head, orient="auto-start-reverse", **size))
    for frame in picture.frames:
        yield from _frame(frame)
    for arrow in picture.arrows:
        yield from _arrow(arrow, head)
    for box in picture.boxes:
        yield from _box(box)


def svg(picture: Picture) -> str:
    """Draw a picture."""
    prefix = f"drawing-{picture.name}"
    return element(
        "svg",
        "\n" + "\n".join(_lines(picture, prefix)) + "\n",
        xmlns="http://www.w3.org/2000/svg",
        role="img",
        aria_labelledby=f"{prefix}-title {prefix}-desc",
        viewBox=f"0 0 {picture.width} {picture.height}",
        style=f"display: block; width: 100%; max-width: {1.35 * picture.width:.0f}px; height: auto",
        font_family="Arial, Helvetica, sans-serif",
        fill="currentColor",
    )


# ------------------------------------------------------------------------------------- for Sphinx


def _list(lines: Iterable[str]) -> nodes.bullet_list:
    items = [nodes.list_item("", nodes.paragraph(text=line)) for line in lines]
    return nodes.bullet_list("", *items)


class DrawingDirective(SphinxDirective):
    """See the module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        import autopush_pictures

        self.env.note_dependency(__file__)
        self.env.note_dependency(autopush_pictures.__file__)
        picture = autopush_pictures.PICTURES[self.arguments[0]]
        drawn = nodes.raw("", svg(picture), format="html")
        told = only("", _list(words(picture)), expr="not format_html")
        return [drawn, told]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx' entry point."""
    app.add_directive("autopush-drawing", DrawingDirective)
    return {"version": "1", "parallel_read_safe": True}
