"""bench/calls.py: a message goes through no more functions and files than it may."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from autopush.tests import TREE

TOOL = TREE / "bench" / "calls.py"


def test_a_message_takes_few_functions_in_few_files(tmp_path):
    """A count, not a time: it says the same on every machine."""
    result = tmp_path / "result.json"
    words = [sys.executable, str(TOOL), "--trace", "--json", str(result)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {row["name"]: row["value"] for row in json.loads(result.read_text())}
    assert 0 < figures["functions before the first rule"] <= 5
    assert 100 < figures["calls"] <= 200
    assert 50 < figures["moves between files"] <= 110
    trace = done.stdout.partition("\n\n")[0].splitlines()
    assert len(trace) == figures["calls"]
    assert sum(line.startswith(">") for line in trace) == figures["moves between files"] + 1
    assert "HTTPConnection.dataReceived" in trace[0]
    for function in ("open_token", "WebPushHandler.post", "ack", "_deleted"):
        assert any(f" {function}  (" in line for line in trace), function


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_calls", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def events(tool, text):
    """Events from ``+file:function`` and ``-``, each with the thread's number before it if any."""
    result, stacks = [], {}
    for word in text.split():
        thread = int(word[0]) if word[0].isdigit() else 0
        word = word.lstrip("0123456789")
        stack = stacks.setdefault(thread, [])
        if word[0] == "+":
            stack.append(word[1:].split(":"))
        file, function = stack[-1] if word[0] == "+" else stack.pop()
        result.append(tool.Event(thread, word[0] == "+", file, function))
    return result


def figures(tool, text):
    return {figure.name: figure for figure in tool.figures(events(tool, text), "our/")}


def test_what_is_counted(tool):
    text = "+our/a:f +our/a:g - +lib:x +our/b:g +our/a:open_token - - - - 1+our/b:w 1+our/b:w 1- 1-"
    found = {name: figure.value for name, figure in figures(tool, text).items()}
    assert found == {
        "calls": 6,
        "functions": 5,
        "files": 2,
        "moves between files": 3,
        "functions before the first rule": 2,
        "calls with libraries": 7,
    }


def test_timers_are_left_out_with_all_they_call(tool):
    timer, message = min(tool.TIMERS), "+our/a:open_token - "
    text = f"+our/t:{timer} +our/t:f - - {message} 1+our/t:{timer} {message} 1+our/t:f 1- 1-"
    assert figures(tool, text)["calls"].value == 2
    assert figures(tool, f"+our/a:f +our/t:{timer} - - {message}")["calls"].value == 3


def test_too_many_are_too_many(tool):
    most = figures(tool, "+our/a:f " * 5 + "+our/a:open_token " + "- " * 6)
    assert all(figure.passed for figure in most.values())
    deep = figures(tool, "+our/a:f " * 6 + "+our/a:open_token " + "- " * 7)
    assert not deep["functions before the first rule"].passed
    many = figures(tool, "+our/a:open_token - " * 201)
    assert not many["calls"].passed
    moves = figures(tool, "+our/a:open_token - +our/b:f - " * 56)
    assert not moves["moves between files"].passed


def test_the_usual_trace_counts(tool):
    usual = events(tool, "+our/a:open_token -")
    other = events(tool, "+our/a:open_token - +our/a:f -")
    assert tool.most_common([usual, other, usual], "our/") == usual
