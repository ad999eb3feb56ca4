"""endpoint_diagnostic: spec/configuration 1.4, spec/storage 15, quirk C13."""

from __future__ import annotations

import base64
import uuid

import pytest
from cryptography.fernet import Fernet
from moto import mock_aws

from autopush.message.endpoint_token import make_endpoint
from autopush.options.bridges import option_groups
from autopush.options.tables import ENDPOINT, SHARED
from autopush.scripts.endpoint_diagnostic import EndpointDiagnosticCLI, run_endpoint_diagnostic_cli
from autopush.tests.db.offline_support import MONTH, DynamoSide, PostgresqlSide, SqliteSide
from autopush.tests.db.postgresql.server import missing

KEY = Fernet.generate_key().decode()
UAID, CHID = uuid.uuid4().hex, uuid.uuid4()
SENDER = base64.urlsafe_b64encode(b"\4" + bytes(64)).decode()
RECORD = {
    "router_type": "webpush",
    "node_id": "http://localhost:8081",
    "connected_at": 1795459299164,
    "last_connect": 202611180006,
    "current_month": MONTH,
    "record_version": 1,
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for _, rows in (*SHARED, *option_groups(), ENDPOINT):
        for row in rows:
            monkeypatch.delenv(row.env or "", raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(params=["sqlite", "postgresql", "dynamodb"])
def side(request, tmp_path):
    if request.param == "sqlite":
        yield SqliteSide(str(tmp_path / "db.sqlite3"))
    elif request.param == "postgresql":
        if reason := missing():
            pytest.skip(reason)
        yield PostgresqlSide()
    else:
        with mock_aws():
            yield DynamoSide()


def url(key=None):
    return make_endpoint(Fernet(KEY), "https://push.example.org", UAID, CHID.hex, key)


def run(side, *args, use_files=False):
    words = ["--crypto_key", KEY, "--db_dsn", side.dsn, *args]
    return run_endpoint_diagnostic_cli(words, use_files=use_files, resource=side.resource)


@pytest.mark.parametrize("key", [None, SENDER], ids=["v1", "v2"])
def test_found(side, capsys, key):
    side.put_user(UAID, **RECORD)
    side.put_channels(UAID, str(CHID))
    assert run(side, url(key)) is None
    lines = capsys.readouterr().out.split("\n")
    assert lines[:4] == [f"UAID: {UAID}", f"CHID: {CHID.hex}", "", "Router record:"]
    middle = lines.index("Channels in message table:")
    record = eval("\n".join(lines[4:middle]))
    assert record == {"uaid": UAID, **RECORD}
    assert middle - 4 == len(record), "one key a line"
    assert lines[5].startswith("    '")
    assert lines[middle + 1 :] == [f"(True, {{'{CHID}'}})", "", "", ""]


def test_url_without_version(side, capsys):
    side.put_user(UAID, **RECORD)
    assert run(side, url(SENDER).replace("/wpush/v2/", "/push/")) is None
    assert f"UAID: {UAID}" in capsys.readouterr().out


def test_no_channels_for_bridge_users(side, capsys):
    side.put_user(UAID, router_type="fcm", connected_at=1)
    assert run(side, url()) is None
    out = capsys.readouterr().out
    assert "Channels" not in out
    assert out.endswith("}\n\n\n")


def test_hashed_key(side, capsys):
    side.put_user(UAID, key_hash="SuperSikkret", **RECORD)
    assert run(side, url(), "--key_hash", "SuperSikkret") is None
    assert f"UAID: {UAID}\n" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["nonsense", "https://push.example.org/"])
def test_url_that_does_not_match(side, capsys, text):
    assert run(side, text) == "Not a valid endpoint"
    assert capsys.readouterr().out == ""


def test_token_of_another_key(side, capsys):
    other = make_endpoint(Fernet(Fernet.generate_key()), "https://x", UAID, CHID.hex)
    assert run(side, other) == "Invalid Token"
    assert capsys.readouterr().out == (
        "Token could not be deciphered: . Are you using the correct configuration or platform?\n"
    )


@pytest.mark.parametrize(("key", "version"), [(None, "v2"), (SENDER, "v1")])
def test_token_of_the_wrong_length(side, capsys, key, version):
    wrong = url(key).replace("/v1/", "/x/").replace("/v2/", "/x/").replace("/x/", f"/{version}/")
    assert run(side, wrong) == "Invalid Token"
    assert "could not be deciphered: Corrupted push token." in capsys.readouterr().out


def test_no_record(side, capsys):
    assert run(side, url()) == "Not Found"
    assert capsys.readouterr().out == (
        f"UAID: {UAID}\nCHID: {CHID.hex}\n\nItem Missing from database: uaid not found\n"
    )


def test_it_only_reads(side):
    """Quirk C13: no table is created, no pre-flight user written."""
    side.put_user(UAID, **RECORD)
    before = side.dump()
    run(side, url())
    run(side, make_endpoint(Fernet(KEY), "https://x", uuid.uuid4().hex, CHID.hex))
    assert side.dump() == before


def test_no_database_is_made(tmp_path):
    path = tmp_path / "none.sqlite3"
    words = ["--crypto_key", KEY, "--db_dsn", f"sqlite://{path}", url()]
    assert "doesn't exist" in str(run_endpoint_diagnostic_cli(words, use_files=False))
    assert not path.exists()


def test_missing_table_is_an_error_text():
    with mock_aws():
        words = ["--crypto_key", KEY, url()]
        text = run_endpoint_diagnostic_cli(words, use_files=False)
    assert str(text).startswith("Can't read the database: ")


def test_no_argument(capsys):
    with pytest.raises(SystemExit) as caught:
        run_endpoint_diagnostic_cli([], use_files=False)
    assert caught.value.code == 2
    assert "the following arguments are required: endpoint" in capsys.readouterr().err


def test_configuration_errors_are_one_line(side):
    assert run(side, url(), "--fcm_creds", "{") == "Invalid JSON specified for FCM config options"


def test_endpoint_files_are_accepted(side, tmp_path, capsys):
    """Quirk C13: with their keys, and from the same places as for the node."""
    side.put_user(UAID, **RECORD)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "autopush_endpoint.ini").write_text(
        f"port = 8082\nauth_key = [x]\nclient_certs = {{}}\ncrypto_key = [{KEY}]\n"
    )
    (tmp_path / ".autopush_shared.ini").write_text(f"db_dsn = {side.dsn}\n")
    words = [url()]
    assert run_endpoint_diagnostic_cli(words, resource=side.resource) is None
    extra = tmp_path / "extra.ini"
    extra.write_text("proxy_protocol_port = 1\n")
    words = ["--config-endpoint", str(extra), url()]
    assert run_endpoint_diagnostic_cli(words, resource=side.resource) is None


def test_the_object_of_1_58_3(side):
    """spec/python-api 9."""
    endpoint = url()
    words = (endpoint, "--crypto_key", KEY, "--db_dsn", side.dsn)
    cli = EndpointDiagnosticCLI(words, side.resource, use_files=False)
    assert cli._endpoint == endpoint
    assert cli._conf.db_dsn == side.dsn
    assert cli.db.get_user(UAID) is None
    assert cli.run() == "Not Found"


def test_data_directory_of_a_standalone_service(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    words = ["--data_dir", str(data), url()]
    SqliteSide(str(data / "autopush.sqlite3")).put_user(UAID, **RECORD)
    assert "no key file" in str(run_endpoint_diagnostic_cli(words, use_files=False))
    (data / "crypto_key").write_text(f"# ours\n{KEY}\n")
    assert run_endpoint_diagnostic_cli(words, use_files=False) is None
    assert f"UAID: {UAID}" in capsys.readouterr().out
    assert sorted(path.name for path in data.iterdir() if "-" not in path.name) == [
        "autopush.sqlite3",
        "crypto_key",
    ]
