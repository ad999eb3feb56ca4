"""User-Agent headers (spec/websocket 16)."""

from __future__ import annotations

import pytest

from autopush import useragent
from autopush.useragent import MAX_PARSED, parse_user_agent, user_agent

FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{v}) Gecko/20100101 Firefox/{v}"


def test_full_info():
    assert parse_user_agent(FIREFOX.format(v="121.0"))[1] == {
        "ua_os_family": "Windows",
        "ua_os_ver": "10",
        "ua_browser_family": "Firefox",
        "ua_browser_ver": "121.0",
    }


def test_versions_are_joined_without_what_is_missing():
    header = (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
        " Version/17.1.2 Safari/605.1.15"
    )
    info = parse_user_agent(header)[1]
    assert (info["ua_os_ver"], info["ua_browser_ver"]) == ("10.15.7", "17.1.2")
    info = parse_user_agent("Mozilla/5.0 (X11; Linux x86_64; rv:9.0) Gecko/1 Firefox/9.0")[1]
    assert info["ua_os_ver"] == ""


@pytest.mark.parametrize(
    ("header", "system", "browser"),
    [
        (FIREFOX.format(v="9.0"), "Windows", "Firefox"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:9.0) Gecko/1 Firefox/9.0", "Linux", "Firefox"),
        ("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:9.0) Gecko/1 Firefox/9.0", "Linux", "Firefox"),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.9; rv:9.0) Gecko/1 Firefox/9.0",
            "Mac OS X",
            "Firefox",
        ),
        ("Mozilla/5.0 (Mobile; rv:26.0) Gecko/26.0 Firefox/26.0", "Firefox OS", "Other"),
        (
            (
                "Mozilla/5.0 (Linux; Android 13) AppleWebKit/537.36 (KHTML, like Gecko)"
                " Chrome/119.0.0.0 Mobile Safari/537.36"
            ),
            "Linux",
            "Other",
        ),
        (
            (
                "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko)"
                " Chrome/119.0.0.0 Safari/537.36"
            ),
            "Windows",
            "Chrome",
        ),
        ("Opera/9.80 (Windows NT 6.1) Presto/2.12 Version/12.16", "Windows", "Opera"),
        ("curl/8.0", "Other", "Other"),
        ("", "Other", "Other"),
        ("\x00\xff(((", "Other", "Other"),
    ],
)
def test_limited_values(header, system, browser):
    tags = parse_user_agent(header)[0]
    assert tags == {"ua_os_family": system, "ua_browser_family": browser}


def test_result_belongs_to_the_caller():
    for result in parse_user_agent("curl/8.0"):
        result.clear()
    assert parse_user_agent("curl/8.0")[0]["ua_os_family"] == "Other"


def test_each_header_is_parsed_once(monkeypatch):
    header = FIREFOX.format(v="77.7")
    parse_user_agent(header)
    monkeypatch.setattr(useragent, "_parser", None)
    assert parse_user_agent(header)[1]["ua_browser_ver"] == "77.7"


def test_only_the_start_of_a_long_header_is_looked_at():
    padding = "x" * MAX_PARSED
    assert parse_user_agent(padding + FIREFOX.format(v="1.0"))[1]["ua_browser_family"] == "Other"


def test_objects_are_shared_and_parsed_once_when_somebody_asks(monkeypatch):
    parsed = []

    def parse(header):
        parsed.append(header)
        return {"ua_os_family": "Other"}, {"ua_os_family": header[:3]}

    monkeypatch.setattr(useragent, "_parse", parse)
    agents = [user_agent("abc" * 1000) for _ in range(3)]
    assert agents[0] is agents[1] is agents[2]
    assert parsed == []
    assert agents[0].info == {"ua_os_family": "abc"}
    assert agents[1].tags == {"ua_os_family": "Other"}
    assert parsed == ["abc" * (MAX_PARSED // 3) + "ab"]
    assert agents[0].text == "abc" * 1000


@pytest.mark.parametrize("header", [None, ""])
def test_no_header_says_nothing(header):
    agent = user_agent(header)
    assert agent.tags == {} and set(agent.info.values()) == {""}
    assert agent.text == str(header)
