"""The parts of the page, and the files beside them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from autopush.tests.web.page.support import KEY, make_conf, make_request
from autopush.web.page.addresses import addresses_for
from autopush.web.page.document import (
    CONTENT_TYPES,
    DIFFERS,
    FILES,
    FULL,
    INBOX,
    OPEN,
    PRIVATE,
    WELCOME,
    Document,
    Part,
    conditions_for,
    qr_code,
    values_for,
)

ALL = frozenset({PRIVATE, OPEN, DIFFERS, FULL})
ADDRESSES = addresses_for(make_conf(), make_request(("Host", "push.example:8080")))


DOCUMENTS = (WELCOME, INBOX)

each = pytest.mark.parametrize("document", DOCUMENTS, ids=["welcome", "inbox"])


def whole(conditions=ALL, addresses=ADDRESSES, document=WELCOME):
    return document.render(values_for(addresses, True), conditions, qr=qr_code("x"))


class Elements(HTMLParser):
    """Names and attributes, and the tags that are open in the end."""

    VOID = frozenset({"meta", "link", "path", "br"})

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@each
def test_html_is_well_formed_and_has_each_id_once(document):
    elements = Elements(whole(document=document))
    assert elements.open == []
    ids = [attrs["id"] for _, attrs in elements.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in elements.found:
        for name in ("aria-labelledby", "data-copy"):
            assert attrs.get(name) is None or attrs[name] in ids


def test_distributors_have_no_use_for_the_service_of_a_test():
    assert "Sunup" in whole() and "QR code" in whole()
    inbox = whole(document=INBOX)
    assert "dom.push.serverURL" in inbox
    assert "Sunup" not in inbox and "QR code" not in inbox


@each
def test_nothing_is_inline_and_nothing_from_outside(document):
    """What the policy forbids is not there: else it would be missing without a word."""
    text = whole(document=document)
    for tag, attrs in Elements(text).found:
        assert "style" not in attrs and not any(name.startswith("on") for name in attrs), tag
        assert tag != "style"
        if tag in ("script", "link"):
            address = attrs.get("src") or attrs.get("href")
            assert re.fullmatch(r"/page/[a-z]+\.(js|css|svg)", address), attrs
    for path in FILES.iterdir():
        outside = re.findall(r"https?://[^\s\"'`]+", path.read_text("utf-8"))
        assert {one for one in outside if "w3.org" not in one} <= {
            "https://autopush.readthedocs.io/",
            "http://localhost.",
        }, path


def test_every_file_that_is_named_can_be_fetched():
    pages = [whole(document=document) for document in DOCUMENTS]
    texts = [*pages, *(path.read_text() for path in FILES.glob("*.js"))]
    named = set(re.findall(r"(?:/page/|from \"\./)([a-z]+\.[a-z]+)", "\n".join(texts)))
    assert named == {path.name for path in FILES.iterdir() if path.suffix in CONTENT_TYPES}
    assert all(WELCOME.file(name) for name in named)


def test_templates_are_not_fetched():
    for name in ("page.html", "nothing.js", "..", ""):
        assert WELCOME.file(name) is None


def test_every_part_has_its_file_and_every_file_its_part():
    parts = {f"{part.name}.html" for document in DOCUMENTS for part in document.parts}
    parts |= {document.frame for document in DOCUMENTS}
    assert parts == {path.name for path in FILES.glob("*.html")}


def test_values_are_escaped():
    values = dict.fromkeys(values_for(ADDRESSES, False), '<b id="x">&')
    text = WELCOME.render(values, ALL, qr="")
    assert "<b " not in text
    assert "&lt;b id=&quot;x&quot;&gt;&amp;" in text


@pytest.mark.parametrize(
    ("private", "key", "full", "shown"),
    [
        (False, "", False, {OPEN}),
        (False, "", True, {OPEN, FULL}),
        (True, "", True, {PRIVATE, FULL}),
        (True, KEY, False, {OPEN}),
    ],
)
def test_conditions(private, key, full, shown):
    request = make_request(("Host", "push.example:8080"))
    addresses = addresses_for(make_conf(), request, key)
    assert conditions_for(addresses, private, full) == shown
    text = whole(frozenset(shown), addresses)
    assert ("dom.push.serverURL" in text) == (OPEN in shown)
    assert ("This service is private" in text) == (PRIVATE in shown)
    assert ("figures.js" in text) == (FULL in shown)


def test_another_document_takes_its_place(tmp_path):
    (tmp_path / "frame.html").write_text("<main>$sections</main>")
    (tmp_path / "one.html").write_text("<p>$base</p>")
    (tmp_path / "one.css").write_text("p {}")
    other = Document((Part("one"), Part("two", "never")), "frame.html", tmp_path)
    text = other.render(values_for(ADDRESSES, False), frozenset(), qr="")
    assert text == "<main><p>http://push.example:8080</p></main>"
    assert other.file("one.css") == b"p {}"


def test_the_code_says_the_address():
    """Modules are drawn as lines, row by row: the same as the library's own matrix."""
    import segno

    address = f"https://push.example.org/{KEY}"
    svg = qr_code(address)
    assert svg.startswith("<svg ") and "style" not in svg
    (path,) = re.findall(r' d="([^"]+)"', svg)
    x = y = 0.0
    dark = set()
    for command, numbers in re.findall(r"([Mmh])([-0-9. ]+)", path):
        values = [float(number) for number in re.findall(r"-?[0-9.]+", numbers)]
        if command == "h":
            dark |= {(int(x + step), int(y)) for step in range(int(values[0]))}
            x += values[0]
        else:
            x, y = values if command == "M" else (x + values[0], y + values[1])
    border = 4
    matrix = segno.make_qr(address, error="m").matrix
    assert dark == {
        (column + border, row + border)
        for row, bits in enumerate(matrix)
        for column, bit in enumerate(bits)
        if bit
    }
