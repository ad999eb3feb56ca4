"""Errors that are found after all options have been read tell where theirs was given."""

from __future__ import annotations

import os

import pytest
from OpenSSL import SSL
from twisted.internet.error import CannotListenError

from autopush.app.standalone import StartError, standalone_config
from autopush.app.starterrors import start_error_text
from autopush.config import AutopushConfig
from autopush.db.interface import StoreUnusable
from autopush.exceptions import InvalidConfig
from autopush.options import places
from autopush.options.commands import CONNECTION, ENDPOINT, STANDALONE
from autopush.ssl import TLSFileError

ENDPOINT_ONLY = ["--crypto_key", "A" * 43 + "="]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.isupper() and name not in ("PATH", "HOME"):
            monkeypatch.delenv(name)


def standalone(*args, files=()):
    return STANDALONE.parse(tuple(map(str, files)), args)


def failing(ns, build=standalone_config):
    with pytest.raises(InvalidConfig) as caught:
        build(ns)
    return start_error_text(caught.value, ns)


def test_the_command_line(tmp_path):
    text = failing(standalone("--public_url", "ftp://x"))
    assert text == (
        "Invalid public_url: 'ftp://x', must be http[s]://host[:port], or that with a /path"
        " (command line)"
    )


def test_a_variable(monkeypatch):
    monkeypatch.setenv("DB_DSN", "mysql:")
    ns = standalone()
    text = start_error_text(InvalidConfig("db_dsn mysql: is not supported, use sqlite:"), ns)
    assert text.endswith(" (environment variable DB_DSN)")


def test_a_file_and_its_line(tmp_path):
    file = tmp_path / "x.ini"
    file.write_text("port = 0\n\npublic-url = example.org\n")
    text = failing(standalone(files=[file]))
    assert text.endswith(f" ({file}, line 3)")


def test_the_nearest_counts(tmp_path, monkeypatch):
    """What is given in several places is from the one that wins."""
    file = tmp_path / "x.ini"
    file.write_text("db_dsn = sqlite:a\n")
    given = {"file": standalone(files=[file])}
    monkeypatch.setenv("DB_DSN", "sqlite:b")
    given["variable"] = standalone(files=[file])
    given["line"] = standalone("--db-dsn=sqlite:c", files=[file])
    found = {name: places.places(ns)["db_dsn"] for name, ns in given.items()}
    assert found == {
        "file": f"{file}, line 1",
        "variable": "environment variable DB_DSN",
        "line": "command line",
    }


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("apns_creds", "[", "Invalid JSON specified for APNS config options"),
        ("fcm_creds", "{}", "Empty credentials for FCM config options"),
        ("senderid_list", "{}", "No GCM SenderIDs specified or found."),
        ("adm_creds", "[", "Invalid JSON specified for ADM config options"),
    ],
)
def test_credentials_of_bridges(option, value, text):
    ns = ENDPOINT.parse((), [*ENDPOINT_ONLY, f"--{option}={value}", "--no_aws"])
    said = failing(ns, AutopushConfig.from_argparse)
    assert said == f"{text} ({option}, command line)"


def test_files_that_options_name(tmp_path):
    key = str(tmp_path / "key.pem")
    ns = standalone("--ssl_key", key, "--data_dir", str(tmp_path))
    missing = FileNotFoundError(2, "No such file or directory", key)
    place = f"Can't use {key}: No such file or directory (ssl_key, command line)"
    assert start_error_text(missing, ns) == place
    assert start_error_text(TLSFileError(f"No key in {key}"), ns).endswith(
        " (ssl_key, command line)"
    )
    store = StoreUnusable(f"storage file {tmp_path}/autopush.sqlite3 is damaged: restore a backup")
    assert start_error_text(store, ns).endswith(" (data_dir, command line)")
    ns = standalone("--db_dsn", f"sqlite://{tmp_path}/db")
    store = StoreUnusable(f"storage file {tmp_path}/db is damaged: restore a backup")
    assert start_error_text(store, ns).endswith(" (db_dsn, command line)")


def test_ports():
    ns = CONNECTION.parse((), ["--port=81", "--router_port=82", "--host=unix:/run/x"])
    for port, place in (
        (81, "port, command line"),
        (82, "router_port, command line"),
    ):
        error = CannotListenError("", port, OSError(98, "Address already in use"))
        assert start_error_text(error, ns) == (
            f"Can't listen on *:{port}: Address already in use ({place})"
        )
    error = CannotListenError(None, b"/run/x", OSError(13, "Permission denied"))
    assert start_error_text(error, ns).endswith(": Permission denied (host, command line)")


def test_defaults_have_no_place():
    ns = standalone()
    error = CannotListenError("", ns.port, OSError(98, "Address already in use"))
    assert start_error_text(error, ns).endswith(": Address already in use")
    assert start_error_text(StartError("data_dir is not a directory"), ns).endswith("directory")
    assert start_error_text(SSL.Error([]), None).endswith("unreadable file")
    assert start_error_text(KeyError("port"), standalone("--port=1")).endswith("'port'")


def test_values_are_not_shown():
    key = "not-a-key-but-secret"
    ns = CONNECTION.parse((), ["--crypto_key", key, "--no_aws"])
    said = failing(ns, AutopushConfig.from_argparse)
    assert said.endswith(" (command line)")
    assert key not in said
