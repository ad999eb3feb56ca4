"""The sample files: spec/configuration 13, quirks D8 and D9."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autopush.config import AutopushConfig
from autopush.options.bridges import option_groups
from autopush.options.parser import parse_connection, parse_endpoint
from autopush.options.tables import CONNECTION, ENDPOINT, OBSOLETE, SHARED
from autopush.scripts.endpoint_diagnostic import parse_diagnostic
from autopush.tests import TREE

CONFIGS = TREE / "configs"
GROUPS = {
    "shared": (*SHARED, *option_groups()),
    "connection": (CONNECTION,),
    "endpoint": (ENDPOINT,),
}
PARSERS = {
    "shared": (parse_connection, parse_endpoint),
    "connection": (parse_connection,),
    "endpoint": (parse_endpoint,),
}
CASES = [(name, parse) for name, parsers in PARSERS.items() for parse in parsers]
EXAMPLES = {
    "crypto_key",
    "key_hash",
    "hostname",
    "endpoint_hostname",
    "router_host",
    "router_hostname",
    "aws_ddb_endpoint",
    "ssl_key",
    "ssl_cert",
    "ssl_dh_param",
    "router_ssl_key",
    "router_ssl_cert",
    "memusage_port",
    "prometheus_port",
    "proxy_protocol_port",
    "auth_key",
    "client_certs",
    "senderid_list",
    "fcm_creds",
    "apns_creds",
    "adm_creds",
    "megaphone_api_url",
    "megaphone_api_token",
}
"""Off by default: the samples show what a value looks like."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for groups in GROUPS.values():
        for _, rows in groups:
            for row in rows:
                monkeypatch.delenv(row.env or "", raising=False)


def path(name):
    return str(CONFIGS / f"autopush_{name}.ini.sample")


def text(name):
    return Path(path(name)).read_text("utf-8")


def rows(name):
    return [row for _, group in GROUPS[name] for row in group]


@pytest.mark.parametrize(("name", "parse"), CASES)
def test_sample_changes_nothing(name, parse):
    assert vars(parse([path(name)], [])) == vars(parse([], []))


@pytest.mark.parametrize("name", GROUPS)
def test_sample_has_every_option_and_no_other(name):
    lines = re.findall(r"^#?(\w+) =", text(name), re.MULTILINE)
    assert sorted(lines) == sorted(row.name for row in rows(name))


@pytest.mark.parametrize("name", GROUPS)
def test_sample_shows_the_defaults(name):
    shown = dict(re.findall(r"^#?(\w+) = ?(.*)$", text(name), re.MULTILINE))
    for row in rows(name):
        if row.name in EXAMPLES:
            assert row.default in (None, "", "{}", []), row.name
        else:
            default = str(row.default).lower() if isinstance(row.default, bool) else row.default
            assert shown[row.name] == str(default), row.name


@pytest.mark.parametrize(("name", "parse"), CASES)
def test_sample_with_every_line_active_loads(name, parse, tmp_path):
    copy = tmp_path / "x.ini"
    copy.write_text(re.sub(r"^#(\w+ =)", r"\1", text(name), flags=re.MULTILINE))
    ns = parse([str(copy)], [])
    for row in rows(name):
        if row.name in EXAMPLES:
            assert getattr(ns, row.name) not in (None, "", "{}", []), row.name
        else:
            assert getattr(ns, row.name) == row.default, row.name
    if name != "endpoint":  # its fingerprint is no real one
        ns.crypto_key, ns.no_aws, ns.key_hash = None, True, ""
        assert AutopushConfig.from_argparse(ns).max_data == 4096


def test_obsolete_options_are_mentioned():
    for name in OBSOLETE:
        assert re.search(rf"\b{name}\b", text("shared")), name


def test_no_sample_has_an_active_key():
    """Quirk D8."""
    for name in GROUPS:
        assert not re.search(r"^crypto_key", text(name), re.MULTILINE)


def test_shared_sample_of_1_58_3_still_loads(tmp_path):
    """Its active lines."""
    copy = tmp_path / "x.ini"
    copy.write_text(
        "crypto_key = []\nstatsd_host = localhost\nstatsd_port = 8125\n"
        "storage_tablename = storage\nstorage_read_throughput = 5\nstorage_write_throughput = 5\n"
        "router_tablename = router\nrouter_read_throughput = 5\nrouter_write_throughput = 5\n"
        "endpoint_scheme = http\nendpoint_port = 8082\n"
    )
    for parse in (parse_connection, parse_endpoint):
        ns = parse([str(copy)], [])
        assert (ns.crypto_key, ns.storage_tablename) == (None, "storage")


def test_diagnostic_reads_all_samples_of_an_endpoint_node():
    """Quirk C13."""
    ns = parse_diagnostic([path("shared"), path("endpoint")], ["https://example.org/x"])
    assert ns.endpoint == "https://example.org/x"
