"""What somebody may have meant."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from autopush.options.suggestions import closest, did_you_mean

NAMES = ("--port", "--host", "--public_url", "--data_dir", "--log_level")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("--prot", "--port"),
        ("--hosts", "--host"),
        ("--public-ulr", "--public_url"),
        ("--DATA_DIR", "--data_dir"),
        ("--loglevel", "--log_level"),
        ("--zzzz", None),
        ("", None),
    ],
)
def test_closest(word, name):
    assert closest(word, NAMES) == name


@given(st.sampled_from(NAMES[2:]), st.data())
def test_a_letter_left_out_is_found(name, data):
    at = data.draw(st.integers(2, len(name) - 1))
    assert closest(name[:at] + name[at + 1 :], NAMES) == name


def test_the_question():
    assert did_you_mean("--prot", NAMES) == "--prot: did you mean --port?"
    assert did_you_mean("--zzzz", NAMES) == ""
