"""A line has a length, whatever is in it."""

from __future__ import annotations

import json

from hypothesis import given, settings, strategies as st
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from autopush.logging import PushLogger
from autopush.logging.lengths import (
    MAX_LINE,
    MAX_TRACEBACK,
    cut,
    cut_fields,
    cut_line,
    cut_middle,
    size,
)

LONG = st.one_of(
    st.text(max_size=300),
    st.builds(lambda text, n: text * n, st.text(min_size=1, max_size=5), st.integers(1, 2000)),
)
VALUES = st.one_of(LONG, st.integers(), st.floats(), st.booleans(), st.lists(LONG, max_size=5))
EVENT = {"log_format": "{text}", "log_level": LogLevel.info, "log_time": 1.0}


@given(LONG, st.integers(8, 3000))
def test_texts(text, limit):
    shown = cut(text, limit)
    if size(text) <= limit:
        assert shown == text
    else:
        kept, _, missing = shown.rpartition("...[+")
        assert text.startswith(kept)
        assert len(kept) + int(missing.rstrip("]")) == len(text)
        assert size(kept) <= limit
    assert size(cut_middle(text, limit)) <= limit + 20


def test_the_middle_of_a_long_text_is_left_out():
    shown = cut_middle("first\n" + "x" * 9000 + "\nlast", 100)
    assert shown.startswith("first\nxxx")
    assert shown.endswith("xxx\nlast")
    assert "...[+" in shown


@settings(deadline=None)
@given(st.dictionaries(LONG.filter(bool), VALUES, max_size=12), LONG)
def test_lines_of_json(fields, text):
    line = PushLogger("Autopush").json_format({**EVENT, "text": text, "client_info": fields})
    assert len(line) <= MAX_LINE
    found = json.loads(line)["Fields"]
    assert found["log_level"] == "info"
    assert found["message"][:8] == (text[:8] if size(text[:8]) <= 8 else found["message"][:8])


@given(LONG.filter(bool))
def test_lines_for_people(text):
    line = PushLogger("A", log_format="text").text_format({**EVENT, "text": text})
    assert line is not None
    assert len(line.encode("utf-8", "backslashreplace")) <= MAX_LINE
    assert line.endswith("\n")


def test_what_is_short_enough_is_written_as_it_is():
    """All of it, though one text is long."""
    agent = "Mozilla/5.0 " * 100
    found = json.loads(PushLogger("A").json_format({**EVENT, "text": "x", "user_agent": agent}))
    assert found["Fields"]["user_agent"] == agent
    assert cut_line("short\n", 10) == "short\n"


def test_the_longest_texts_are_cut_first():
    agent, fields = "Mozilla/5.0 " * 1000, {f"name{n}": "short" for n in range(20)}
    line = PushLogger("A").json_format({**EVENT, "text": "x", "user_agent": agent, **fields})
    found = json.loads(line)["Fields"]
    assert found["user_agent"] == agent[:256] + "...[+11744]"
    assert {name: found[name] for name in fields} == fields


def test_fields_beyond_all_measure_are_left_out():
    found = cut_fields({**{f"field{n}": "x" * n for n in range(500)}, "message": "what"}, 1500)
    assert found["message"] == "what"
    assert found["field0"] == ""
    assert "field499" not in found


def test_tracebacks_have_a_length_of_their_own():
    def deep(depth):
        if depth:
            deep(depth - 1)
        else:
            raise ValueError("€" * 5000)

    try:
        deep(200)
    except ValueError:
        failure = Failure()
    event = {**EVENT, "text": "x", "user_agent": "x" * 9000, "log_failure": failure}
    line = PushLogger("A").json_format(event)
    assert len(line) <= MAX_LINE + MAX_TRACEBACK + 64
    assert json.loads(line)["Fields"]["traceback"].startswith("Traceback")
    text = PushLogger("A", log_format="text").text_format(event)
    assert text is not None
    assert len(text.encode()) <= MAX_LINE + MAX_TRACEBACK
