"""Long work shows itself, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, strategies as st

from autopush.app.progress import LIVE_EVERY, PLAIN_EVERY, Progress, rate


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Watch:
    """A clock that is turned by hand."""

    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def test_a_terminal_has_one_line_which_is_gone_in_the_end(watch):
    stream = Terminal()
    progress = Progress("Deleting", "users", 2000, stream=stream, now=watch)
    assert progress.live
    progress.update(1)
    assert stream.getvalue() == "\rDeleting: 1 of 2,000 users (0%)\x1b[K"
    watch.time += 2
    progress.update(500)
    assert stream.getvalue().endswith(
        "\rDeleting: 500 of 2,000 users (25%), 250 a second, 6 s left\x1b[K"
    )
    watch.time += LIVE_EVERY / 2
    progress.update(600)
    assert progress.finish() == pytest.approx(2 + LIVE_EVERY / 2)
    assert stream.getvalue().endswith("left\x1b[K\r\x1b[K")
    assert "\n" not in stream.getvalue()


def test_elsewhere_there_is_a_line_now_and_then(watch):
    stream = io.StringIO()
    progress = Progress("Deleting", "users", stream=stream, now=watch)
    assert not progress.live
    for second in range(25):
        watch.time = 100.0 + second
        progress.update(second * 10)
    progress.finish()
    assert (
        stream.getvalue() == "Deleting: 100 users, 10 a second\nDeleting: 200 users, 10 a second\n"
    )
    assert PLAIN_EVERY == 10


def test_short_work_says_nothing_elsewhere(watch):
    stream = io.StringIO()
    progress = Progress("Copying", "MB", 10, stream=stream, now=watch)
    progress.update(10)
    progress.finish()
    assert stream.getvalue() == ""


def test_terminals_that_can_do_nothing(watch, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert not Progress("Copying", "MB", stream=Terminal(), now=watch).live


def test_units_and_narrow_terminals(watch, monkeypatch):
    progress = Progress("Copying", "MB", 3.2e9, scale=1e6, stream=Terminal(), now=watch)
    assert progress.text(1.5e6) == "Copying: 1.5 of 3,200.0 MB (0%)"
    monkeypatch.setenv("COLUMNS", "21")
    watch.time += 1
    progress.update(1.6e9)
    assert progress._stream.getvalue() == "\rCopying: 1,600.0 of \x1b[K"


@given(
    st.floats(0, 1e12),
    st.one_of(st.none(), st.floats(0, 1e12)),
    st.floats(0, 1e6),
)
def test_any_numbers(done, total, seconds):
    watch = Watch()
    progress = Progress("Copying", "MB", total, scale=1e6, stream=io.StringIO(), now=watch)
    watch.time += seconds
    text = progress.text(done)
    assert text.startswith("Copying: ")
    assert "\n" not in text
    assert "-" not in text


def test_totals():
    assert rate(3000, 1.5, "users") == "in 1.5 s (2,000 users a second)"
    assert rate(0, 0.0, "users") == "in 0.0 s (0 users a second)"
