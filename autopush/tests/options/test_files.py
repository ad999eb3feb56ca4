"""Files of options: where a setting stands, what comes twice, what a section is called."""

from __future__ import annotations

import io

import configargparse
import pytest

from autopush.options.files import HEADINGS, ONE_LINE, ConfigFile, section_names


def read(text):
    told = []
    parser = ConfigFile(
        lambda key: key if key.startswith("-") else key.replace("-", "_"),
        lambda key: key.lstrip("-_"),
        lambda *what: told.append(what),
    )
    stream = io.StringIO(text)
    stream.name = "x.ini"
    return parser.parse(stream), told


def test_keys_know_their_lines():
    items, told = read("# a comment\n\nport = 1\ndata-dir = /x\n")
    assert items == {"port": "1", "data_dir": "/x"}
    assert [key.place for key in items] == ["x.ini, line 3", "x.ini, line 4"]
    assert told == []


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ("port = 1", "port = 2", "port"),
        ("data-dir = a", "data_dir = b", "data_dir"),
        ("auth_key = [a]", "auth_key = [b]", "auth_key"),
    ],
)
def test_a_key_that_comes_twice_is_told_and_the_last_counts(first, second, key):
    items, told = read(f"{first}\nenv = x\n{second}\n")
    assert told == [(f"{key} is set in line 1 already", "x.ini, line 3", ONE_LINE)]
    assert items[key] in ("2", "b", ["b"])
    assert {str(name): name.place for name in items}[key] == "x.ini, line 3"


def test_two_spellings_of_an_option_are_told():
    items, told = read("auth_key = a\n--auth_key = b")
    assert [text for text, _, _ in told] == ["--auth_key is set in line 1 already"]
    assert len(items) == 2


@pytest.mark.parametrize("name", sorted(section_names()))
def test_sections_that_are_called_something_are_headings(name):
    assert read(f"[{name}]\n[ {name.upper()} ]  # c\nport = 1") == ({"port": "1"}, [])


def test_an_unknown_section_is_told():
    items, told = read("env = x\n[metrisc]\n[smtp]\nport = 1")
    assert items == {"env": "x", "port": "1"}
    text = "unknown section [{}], whose lines are read as any others"
    assert told == [
        (text.format("metrisc"), "x.ini, line 2", "metrisc: did you mean metrics?"),
        (text.format("smtp"), "x.ini, line 3", HEADINGS),
    ]


@pytest.mark.parametrize("line", ["[first key, second key]", "[" + 43 * "k" + "=]", "[", "[]"])
def test_brackets_that_may_hold_keys_are_told_without_them(line):
    items, told = read(line)
    assert items == {}
    assert told == [
        ("a line in brackets that is no section has no effect", "x.ini, line 1", HEADINGS)
    ]


def test_a_line_without_a_key_says_where_it_is():
    with pytest.raises(configargparse.ConfigFileParserException) as caught:
        read("port = 1\n\n= 2")
    assert str(caught.value) == "Unexpected line 3 in x.ini: = 2"
