"""Answers of HTTP servers, read piece by piece."""

from __future__ import annotations

import itertools

import httptools
import pytest
from hypothesis import given, strategies as st

from autopush.net.answer import Answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 503 Later\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n"


@given(
    st.sampled_from([(OK, 200, True), (CHUNKED, 503, True), (CLOSING, 200, False)]),
    st.lists(st.sampled_from([CONTINUE, EARLY]), max_size=3),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_pieces_do_not_matter(case, before, cuts):
    data, status, keep = case
    stream = b"".join(before) + data
    answer = Answer()
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in itertools.pairwise(places):
        assert not answer.complete
        answer.feed(stream[start:end])
    assert (answer.complete, answer.status, answer.size) == (True, status, 5)
    assert (answer.framed, answer.keep) == (True, keep)


def test_one_after_the_other():
    answer = Answer()
    for data, status in ((OK, 200), (CHUNKED, 503), (OK, 200)):
        answer.reset()
        assert (answer.status, answer.complete) == (0, False)
        answer.feed(data)
        assert (answer.status, answer.complete) == (status, True)


def test_an_answer_may_end_with_its_connection():
    answer = Answer()
    answer.feed(b"HTTP/1.1 200 OK\r\n\r\nhel")
    assert (answer.status, answer.framed, answer.complete) == (200, False, False)


@pytest.mark.parametrize("data", [OK + OK, b"HTTP/1.1 two\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_what_is_no_answer(data):
    with pytest.raises(httptools.HttpParserError):
        Answer().feed(data)
