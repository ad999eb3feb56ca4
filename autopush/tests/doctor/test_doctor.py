"""``autopush_doctor`` and ``--check``."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from email.utils import formatdate

import pytest
from cryptography.fernet import Fernet

from automock.running import Background
from autopush.db.sqlite import schema as sqlite_schema
from autopush.doctor import CHECKS, diagnose, network, store
from autopush.doctor.report import Level, Result, fail, ok, warn
from autopush.options.parser import parse_connection, parse_endpoint, parse_standalone
from autopush.tests.daemons import daemons
from autopush.tests.db.dynamodb.support import dynamodb_url, raw_call, table_names
from autopush.tests.e2e.clients import PATIENCE
from autopush.tests.e2e.harness import environment, free_port
from autopush.tests.tlsfiles import make_certificate

COMMANDS = ("autopush", "autoendpoint", "autopush_standalone")
PARSERS = dict(zip(COMMANDS, (parse_connection, parse_endpoint, parse_standalone), strict=True))
SECRET = Fernet.generate_key().decode()
QUIET = ("--no_aws", "--statsd_host=", "--hostname", "127.0.0.1", "--crypto_key", SECRET)


def run(home, *args, entry="doctor", env=None):
    """Run a command of autopush.__main__ to its end."""
    script = f"import sys, autopush.doctor.network as network; network.TIMEOUT = {PATIENCE}\n"
    script += f"from autopush.__main__ import {entry} as f; sys.exit(f())"
    done = subprocess.run(
        [sys.executable, "-c", script, *args],
        cwd=home,
        env=environment(home, env),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def examine(tmp_path, monkeypatch):
    """Run the checks in this process; returns texts by level and name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "TIMEOUT", PATIENCE)

    def examine(command, *options, quiet=True, dsn=None):
        args = list(options)
        if quiet and command != "autopush_standalone":
            args = [*QUIET, *args, "--db_dsn", dsn or f"sqlite://{tmp_path}/db"]
        found = list(diagnose(command, PARSERS[command]((), args)))
        for result in found:
            assert "the check itself failed" not in result.text, result
            assert "\n" not in result.line
        return found

    return examine


def about(results, name):
    """The (level, text) of what was said about something."""
    return [(result.level, result.text) for result in results if result.name == name]


def one(results, name):
    (found,) = about(results, name)
    return found


def contents(directory):
    """All there is below a directory, to see that nothing has changed."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    }


# ------------------------------------------------------------------------------------ the command


def test_lines():
    assert ok("a", "b").line == "ok    a: b"
    assert warn("a", "b").line == "warn  a: b"
    assert fail("a", "two\nlines").line == "FAIL  a: two lines"
    assert Result(Level.FAIL, "a", "b") == fail("a", "b")


def test_without_a_command(tmp_path):
    for args in ((), ("nonsense",), ("--debug",)):
        done = run(tmp_path, *args)
        assert done.returncode == 2
        assert "name one of the commands" in done.stderr
    assert "autoendpoint" in run(tmp_path, "--help").stdout


def test_an_unknown_option(tmp_path):
    done = run(tmp_path, "autopush", "--nonsense")
    assert done.returncode == 2
    assert "unrecognized arguments: --nonsense" in done.stderr


@pytest.mark.parametrize(
    ("command", "entry"), list(zip(COMMANDS, ("connection", "endpoint", "main"), strict=True))
)
def test_check_is_the_same_on_each_command(tmp_path, command, entry):
    options = ["--port", str(free_port())]
    if command != "autopush_standalone":
        options += [*QUIET, "--db_dsn", f"sqlite://{tmp_path}/db", "--endpoint_port", "1"]
    if command == "autopush":
        options += ["--router_port", str(free_port())]
    doctor = run(tmp_path, command, *options)
    check = run(tmp_path, "--check", *options, entry=entry)
    assert doctor.returncode == check.returncode == 0, doctor.stdout
    assert doctor.stderr == check.stderr == ""

    def lines(done):  # how much room there is changes all the time
        return [line for line in done.stdout.splitlines() if "disk:" not in line]

    assert lines(doctor) == lines(check)
    assert lines(doctor)[0] == f"ok    configuration: options of {command} can be used"
    assert all(line.startswith(("ok    ", "warn  ")) for line in lines(doctor))
    assert list(tmp_path.iterdir()) == []


def test_it_reads_the_commands_own_files_and_variables(tmp_path):
    (tmp_path / ".autopush_endpoint.ini").write_text("apns_creds = {\n")
    done = run(tmp_path, "autoendpoint", "--no_aws")
    assert done.returncode == 1
    assert done.stdout == "FAIL  configuration: Invalid JSON specified for APNS config options\n"
    done = run(tmp_path, "autopush_standalone", env={"PUBLIC_URL": "nonsense"})
    assert (done.returncode, done.stdout[:45]) == (
        1,
        "FAIL  configuration: Invalid public_url: 'non",
    )


def test_a_check_that_breaks_leaves_the_others(monkeypatch, examine):
    def breaks(subject):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("autopush.doctor.CHECKS", (breaks, *CHECKS))
    found = list(diagnose("autopush_standalone", parse_standalone((), [])))
    assert one(found, "breaks") == (Level.FAIL, "the check itself failed: ZeroDivisionError oops")
    assert about(found, "store")


def test_no_secret_is_shown(tmp_path):
    options = [
        *("--crypto_key", SECRET, "--auth_key", "first-auth-key-of-ours"),
        *("--key_hash", "hash-key-of-ours", "--adm_creds"),
        json.dumps(
            {"p": {"client_id": "i", "client_secret": "adm-secret", "base_url": "http://x"}}
        ),
    ]
    output = run(tmp_path, "autopush_standalone", *options).stdout
    assert "adm p" in output
    for text in (SECRET, "first-auth", "hash-key", "adm-secret"):
        assert text not in output


# --------------------------------------------------------------------------- options and keys


def test_log_output(examine, tmp_path):
    def said(output):
        return one(examine("autopush", "--log_output", output), "log_output")

    assert said("none") == (Level.OK, "none")
    new = tmp_path / "log"
    assert said(str(new)) == (Level.OK, f"{new}, to be created")
    assert not new.exists()
    assert said("/nowhere/log")[0] is Level.FAIL
    assert said(str(tmp_path))[0] is Level.FAIL


def test_keys_that_are_given(examine):
    results = examine("autoendpoint", "--auth_key", "k" * 20, "--crypto_key", SECRET)
    assert about(results, "crypto_key") == [
        (Level.WARN, "the same key is given twice"),
        (Level.OK, "2 keys"),
    ]
    assert one(results, "auth_key") == (Level.OK, "1 key")
    short = about(examine("autoendpoint", "--auth_key", "short"), "auth_key")
    assert short[0][0] is Level.WARN and "could be guessed" in short[0][1]


def test_keys_that_are_missing(examine, tmp_path):
    options = ["--no_aws", "--statsd_host=", "--db_dsn", f"sqlite://{tmp_path}/db"]
    results = examine("autoendpoint", *options, quiet=False)
    assert one(results, "crypto_key")[0] is Level.WARN
    assert one(results, "auth_key")[0] is Level.WARN
    assert about(examine("autopush"), "auth_key") == []  # it has no use for one


def test_key_files_of_the_standalone_service(examine, tmp_path):
    data = tmp_path / "autopush-data"
    data.mkdir(mode=0o700)
    key = data / "crypto_key"
    assert "made at the first start" in one(examine("autopush_standalone"), "crypto_key")[1]
    key.write_text(f"{SECRET}\n")
    key.chmod(0o600)
    assert one(examine("autopush_standalone"), "crypto_key") == (Level.OK, f"1 key in {key}")
    key.chmod(0o644)
    assert one(examine("autopush_standalone"), "crypto_key")[0] is Level.WARN
    for content in (b"secret nonsense", b"", b"\xff\xfe"):
        key.write_bytes(content)
        level, text = one(examine("autopush_standalone"), "crypto_key")
        assert level is Level.FAIL
        assert "secret" not in text


@pytest.mark.parametrize("elsewhere", [False, True])
def test_key_file_missing_beside_a_database(examine, tmp_path, elsewhere):
    data = tmp_path / "autopush-data"
    data.mkdir(mode=0o700)
    path = tmp_path / "elsewhere.sqlite3" if elsewhere else data / "autopush.sqlite3"
    sqlite_schema.prepare(str(path))
    options = ["--db_dsn", f"sqlite://{path}"] if elsewhere else []
    results = examine("autopush_standalone", *options)
    for name in ("crypto_key", "auth_key"):
        level, text = one(results, name)
        assert level is Level.FAIL
        assert "is missing although there is a database: restore it" in text
    given = examine("autopush_standalone", *options, "--crypto_key", SECRET)
    assert one(given, "crypto_key")[0] is Level.OK
    level, text = one(results, "log_key")  # only names in the log depend on it
    assert level is Level.OK
    assert "will be made at the next start" in text


def test_key_of_the_log(examine, tmp_path):
    data = tmp_path / "autopush-data"
    data.mkdir(mode=0o700)
    key = data / "log_key"
    key.write_text("k" * 44)
    key.chmod(0o600)
    assert one(examine("autopush_standalone"), "log_key") == (Level.OK, f"1 key in {key}")
    key.chmod(0o640)
    assert one(examine("autopush_standalone"), "log_key")[0] is Level.WARN
    key.write_text("secret")
    level, text = one(examine("autopush_standalone"), "log_key")
    assert level is Level.FAIL
    assert "secret" not in text
    assert about(examine("autopush"), "log_key") == []


def test_incomplete_database(examine, tmp_path):
    sqlite_schema.prepare(str(tmp_path / "db"))
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        connection.execute("DROP TABLE channels")
    level, text = one(examine("autopush"), "store")
    assert level is Level.FAIL
    assert "is incomplete, it has no table channels" in text


def test_data_dir(examine, tmp_path):
    def said(path):
        return one(examine("autopush_standalone", "--data_dir", str(path)), "data_dir")

    assert said(tmp_path / "a" / "b")[0] is Level.OK
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    assert said(tmp_path / "file")[0] is Level.FAIL
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    assert said(open_to_all)[0] is Level.WARN


def test_names(examine):
    results = examine("autopush", "--router_hostname", "nowhere.invalid")
    level, text = one(results, "router_hostname")
    assert level is Level.FAIL
    assert text.startswith("nowhere.invalid: ")
    assert one(examine("autopush"), "router_hostname")[0] is Level.WARN  # loopback
    results = examine("autoendpoint", "--endpoint_hostname", "nowhere.invalid")
    assert one(results, "endpoint_hostname")[0] is Level.WARN
    assert about(results, "router_hostname") == []
    results = examine("autoendpoint", "--resolve_hostname", "--hostname", "nowhere.invalid")
    assert one(results, "configuration")[0] is Level.FAIL


def test_ports(examine):
    port = free_port()
    assert one(examine("autoendpoint", "--port", str(port)), "port") == (
        Level.OK,
        f"{port} is free",
    )
    with socket.create_server(("127.0.0.1", port)):
        results = examine("autopush_standalone", "--port", str(port))
        assert one(results, "port") == (Level.FAIL, f"{port} is in use by another program")
    results = examine("autopush_standalone", "--host", "192.0.2.1")
    assert one(results, "port")[0] is Level.FAIL
    assert one(examine("autopush_standalone", "--host", "unix:/nowhere/s"), "host")[0] is Level.FAIL


def test_port_for_other_nodes_is_looked_for_at_its_own_address(examine):
    port = free_port("127.0.0.2")
    with socket.create_server(("127.0.0.2", port)):
        options = ("--host", "127.0.0.1", "--router_port", str(port))
        assert one(examine("autopush", *options), "router_port") == (Level.OK, f"{port} is free")
        results = examine("autopush", *options, "--router_host", "127.0.0.2")
        assert one(results, "router_port") == (Level.FAIL, f"{port} is in use by another program")
    results = examine("autopush", "--router_host", "unix:/nowhere/s")
    assert one(results, "router_host")[0] is Level.FAIL


def test_access_keys(examine, tmp_path):
    data = tmp_path / "d"
    data.mkdir(mode=0o700)
    options = ("autopush_standalone", "--data_dir", str(data))
    assert one(examine(*options), "access_key")[1].startswith("none: every user agent")
    assert one(examine(*options, "--access_key", "k" * 22), "access_key") == (Level.OK, "1 key")
    (data / "access_keys").write_text(f"{'k' * 22}\n")
    (data / "access_keys").chmod(0o644)
    assert "chmod 600" in one(examine(*options), "access_keys")[1]
    (data / "access_keys").chmod(0o600)
    level, text = one(examine(*options), "access_keys")
    assert (level, text) == (Level.OK, f"1 key in {data / 'access_keys'}")
    (data / "access_keys").write_text("mine")
    assert one(examine(*options), "access_keys")[0] is Level.FAIL


def test_open_files(tmp_path):
    script = "import sys; from autopush.__main__ import doctor; sys.exit(doctor())"
    command = [sys.executable, "-c", script, "autopush_standalone", "--max_connections", "1000"]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh", *command],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert "warn  files: 300 files and connections may be open, 1200 are wanted" in done.stdout


def test_workers(tmp_path):
    """Each takes its share of connections, and has ports of its own."""
    options = ["--workers", "64", "--max_connections", "6400", "--router_port", "20001"]
    script = "from autopush.doctor import main; raise SystemExit(main())"
    command = [sys.executable, "-c", script, "autopush_standalone", *options, "--port", "0"]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 299; exec "$@"', "sh", *command],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    text = "warn  files: 299 files and connections may be open, by each worker, 300 are wanted"
    assert text in done.stdout
    assert re.search(r"^(ok|warn)  +workers: 64 on \d+ cores?", done.stdout, re.M)
    assert done.stdout.count("  router_port: 200") == 64


@pytest.mark.parametrize("fails", [False, True])
def test_whoever_stops_reading_gets_no_traceback(tmp_path, fails):
    """As with ``--check | head``; the status is that of all checks."""
    taken = socket.create_server(("127.0.0.1", 0))
    options = ["--port", str(taken.getsockname()[1]) if fails else "0"]
    script = "import sys; from autopush.__main__ import doctor; sys.exit(doctor())"
    with (
        taken,
        subprocess.Popen(
            [sys.executable, "-c", script, "autopush_standalone", *options],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == int(fails)


# ------------------------------------------------------------------------------ certificates


def test_certificates(examine, tmp_path):
    key, cert, fingerprint = make_certificate(tmp_path, days=(-1, 100))
    tls = ["--ssl_key", key, "--ssl_cert", cert, "--endpoint_scheme", "https"]
    level, text = one(examine("autoendpoint", *tls), "ssl_cert")
    assert level is Level.OK
    assert text.startswith(f"{cert} fits its key and is valid until 2")
    certs = json.dumps({"a": [fingerprint]})
    assert one(examine("autoendpoint", *tls, "--client_certs", certs), "client_certs") == (
        Level.OK,
        "1 certificate may use the API; VAPID signatures are not checked",
    )
    other = make_certificate(tmp_path, "other")[0]
    results = examine("autopush_standalone", "--ssl_key", other, "--ssl_cert", cert)
    assert one(results, "ssl_cert") == (
        Level.FAIL,
        f"TLS key {other} is not the key of {cert}",
    )


@pytest.mark.parametrize(
    ("days", "level", "text"),
    [
        ((-20, -10), Level.FAIL, "has expired on 2"),
        ((10, 20), Level.FAIL, "is not valid before 2"),
        ((-1, 5.5), Level.WARN, "expires in 5 days, on 2"),
        ((-1, 15.5), Level.OK, "is valid until 2"),
    ],
)
def test_validity_of_certificates(examine, tmp_path, days, level, text):
    key, cert, _ = make_certificate(tmp_path, days=days)
    results = examine("autopush", "--router_ssl_key", key, "--router_ssl_cert", cert)
    found = one(results, "router_ssl_cert")
    assert found[0] is level
    assert text in found[1]


def test_names_in_certificates(examine, tmp_path):
    key, cert, _ = make_certificate(tmp_path, "push.example.org", days=(-1, 100))
    tls = ["--ssl_key", key, "--ssl_cert", cert, "--endpoint_scheme", "https"]
    for host, level in (
        ("push.example.org", None),
        ("127.0.0.1", None),
        ("other.example.org", Level.WARN),
        ("127.0.0.2", Level.WARN),
    ):
        results = about(examine("autoendpoint", *tls, "--endpoint_hostname", host), "ssl_cert")
        assert [found for found, text in results if "doesn't name" in text] == (
            [level] if level else []
        )
    # Other nodes verify the name: they would never send to this one.
    internal = ["--router_ssl_key", key, "--router_ssl_cert", cert]
    results = about(
        examine("autopush", *internal, "--router_hostname", "localhost"), "router_ssl_cert"
    )
    assert results[1] == (Level.FAIL, "the certificate doesn't name localhost")


def test_a_key_anybody_may_read(examine, tmp_path):
    key, cert, _ = make_certificate(tmp_path, days=(-1, 100))
    os.chmod(key, 0o644)
    results = about(
        examine("autopush_standalone", "--ssl_key", key, "--ssl_cert", cert), "ssl_cert"
    )
    assert any(level is Level.WARN and "may be read by anybody" in text for level, text in results)


def test_a_certificate_without_a_key(examine, tmp_path):
    cert = make_certificate(tmp_path)[1]
    assert one(examine("autopush_standalone", "--ssl_cert", cert), "ssl_cert")[0] is Level.WARN


# -------------------------------------------------------------------------------------- SQLite


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "db"
    sqlite_schema.prepare(str(path))
    return path


def change(path, sql):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_sqlite(examine, database, tmp_path):
    change(database, "INSERT INTO users VALUES ('a', '{}')")
    before = contents(tmp_path)
    level, text = one(examine("autopush"), "store")
    assert level is Level.OK
    assert text == f"{database}, schema 3, 1 user, 0 messages"
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("spoil", "level", "text"),
    [
        (lambda p: change(p, "PRAGMA user_version = 99"), Level.FAIL, "by a newer autopush"),
        (lambda p: change(p, "PRAGMA application_id = 1"), Level.FAIL, "another program"),
        (lambda p: p.write_bytes(b"nonsense" * 1000), Level.FAIL, "not a database"),
        (lambda p: p.write_bytes(p.read_bytes()[:9000]), Level.FAIL, ""),
        (lambda p: p.write_bytes(b""), Level.OK, "is empty"),
        (lambda p: p.unlink(), Level.OK, "will be created at the first start"),
        (lambda p: (p.unlink(), p.mkdir()), Level.FAIL, "is not a file"),
    ],
)
def test_sqlite_that_is_not_as_it_should_be(examine, database, spoil, level, text):
    spoil(database)
    before = contents(database.parent)
    found = one(examine("autopush"), "store")
    assert found[0] is level
    assert text in found[1]
    assert contents(database.parent) == before


def test_sqlite_with_an_older_schema(examine, database, monkeypatch, tmp_path):
    schema = tmp_path / "schema"
    shutil.copytree(sqlite_schema.SCHEMA_DIRECTORY, schema)
    (schema / "004.sql").write_text("")
    monkeypatch.setattr(store, "SCHEMA_DIRECTORY", schema)
    results = about(examine("autopush"), "store")
    assert results[0] == (Level.WARN, f"{database} will be migrated from schema 3 to 4")


def test_sqlite_that_can_not_be_made(examine, tmp_path):
    (tmp_path / "file").touch()
    dsn = f"sqlite://{tmp_path}/file/below/db"
    assert one(examine("autopush", dsn=dsn), "store")[0] is Level.FAIL
    results = examine("autopush_standalone", "--data_dir", str(tmp_path / "file" / "below"))
    assert one(results, "data_dir")[0] is Level.FAIL


def test_a_full_disk(examine, monkeypatch):
    monkeypatch.setattr(store, "ROOM", 2**62)
    assert one(examine("autopush"), "disk")[0] is Level.WARN


def test_a_file_from_the_future(examine, database):
    os.utime(database, (2**32, 2**32))
    assert one(examine("autopush"), "clock")[0] is Level.WARN


def test_beside_the_running_service(tmp_path):
    """It is read as it is now, and nothing of it is touched."""
    port = free_port()
    with daemons() as make:
        service = make(tmp_path, "autopush_standalone", "--port", str(port)).listens(port)
        data = tmp_path / "autopush-data"
        names = {path.name for path in data.iterdir()}
        assert "autopush.sqlite3-wal" in names
        done = run(tmp_path, "autopush_standalone", "--port", str(port))
        assert done.returncode == 0, done.stdout
        assert f"ok    port: {port} is in use by autopush " in done.stdout
        assert "ok    store: " in done.stdout
        assert f"ok    public URL: http://127.0.0.1:{port} answers, autopush " in done.stdout
        assert {path.name for path in data.iterdir()} == names
        service.process.send_signal(signal.SIGKILL)
        service.wait()
        # After a crash the log is still there, and belongs to it.
        before = {name: value[1] for name, value in contents(data).items() if "-shm" not in name}
        assert "ok    store: " in run(tmp_path, "autopush_standalone").stdout
        after = {name: value[1] for name, value in contents(data).items() if "-shm" not in name}
        assert after == before


# ------------------------------------------------------------------------------------ DynamoDB


@pytest.fixture
def dynamodb(monkeypatch, examine):
    """A DynamoDB; call it to run the checks on tables of this test's own."""
    monkeypatch.setenv("AWS_LOCAL_DYNAMODB", dynamodb_url())
    router, message = table_names()

    def check(*options):
        names = ["--router_tablename", router, "--message_tablename", message]
        return examine("autoendpoint", *names, *options, dsn="dynamodb:")

    check.router, check.message = router, message
    return check


def create(name, *keys):
    raw_call(
        "create_table",
        TableName=name,
        KeySchema=[
            {"AttributeName": key, "KeyType": kind}
            for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
        ],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
    )


def expire(name, attribute):
    raw_call(
        "update_time_to_live",
        TableName=name,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": attribute},
    )


def test_dynamodb_with_all_tables(dynamodb):
    create(dynamodb.router, "uaid")
    create(dynamodb.message, "uaid", "chidmessageid")
    expire(dynamodb.message, "expiry")
    results = dynamodb("--no_table_rotation")
    assert one(results, "store")[0] is Level.OK
    assert one(results, f"table {dynamodb.router}") == (Level.OK, "ACTIVE")
    assert one(results, f"table {dynamodb.message}") == (Level.OK, "ACTIVE")
    assert one(results, f"TTL of {dynamodb.message}") == (Level.OK, "on")


def test_dynamodb_without_tables(dynamodb):
    tables = [result for result in dynamodb() if result.name.startswith("table ")]
    assert len(tables) in (3, 4)  # users, last month, this month, on its last day the next
    for result in tables:
        assert result[0::2] == (Level.WARN, "missing, will be created at the start")
    assert dynamodb.router not in raw_call("list_tables")["TableNames"]


def test_dynamodb_without_time_to_live(dynamodb):
    create(dynamodb.message, "uaid", "chidmessageid")
    label = f"TTL of {dynamodb.message}"
    assert one(dynamodb("--no_table_rotation"), label)[0] is Level.WARN
    expire(dynamodb.message, "timestamp")
    level, text = one(dynamodb("--no_table_rotation"), label)
    assert (level, "never expire" in text) == (Level.FAIL, True)


def test_dynamodb_with_a_table_of_others(dynamodb):
    create(dynamodb.router, "id")
    assert one(dynamodb(), f"table {dynamodb.router}")[0] is Level.FAIL


def test_dynamodb_with_a_table_in_the_making(dynamodb, monkeypatch):
    create(dynamodb.router, "uaid")
    monkeypatch.setattr("autopush.db.dynamodb.tables.USABLE", frozenset())
    assert one(dynamodb(), f"table {dynamodb.router}") == (Level.FAIL, "is ACTIVE")


def test_dynamodb_that_does_not_answer(examine, monkeypatch):
    monkeypatch.setenv("AWS_LOCAL_DYNAMODB", f"http://127.0.0.1:{free_port()}")
    level, text = one(examine("autopush", dsn="dynamodb:"), "store")
    assert level is Level.FAIL
    assert "EndpointConnectionError" in text


def test_dynamodb_without_credentials(examine, monkeypatch):
    for name in ("AWS_LOCAL_DYNAMODB", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    level, text = one(examine("autopush", dsn="dynamodb:"), "store")
    assert (level, "no AWS credentials" in text) == (Level.FAIL, True)


@pytest.mark.parametrize(
    ("seconds", "level", "text"),
    [
        (0, Level.OK, "as that of X"),
        (-50, Level.OK, "as that of X"),
        (90, Level.WARN, "88 s ahead of X"),
        (-90, Level.WARN, "88 s behind X"),
        (400, Level.FAIL, "398 s ahead of X: what we sign is refused"),
    ],
)
def test_clock(seconds, level, text):
    result = network.skew("X", formatdate(1_000_000, usegmt=True), 1_000_000 + seconds)
    assert result == Result(level, "clock", text)


@pytest.mark.parametrize("date", [None, "", "soon"])
def test_clock_without_a_date(date):
    assert network.skew("X", date) is None


# ------------------------------------------------------------------------------------ the URLs


def test_internal_url(examine, tmp_path):
    port = free_port()
    options = ["--router_port", str(port)]
    level, text = one(examine("autopush", *options), "internal URL")
    assert (level, "nothing listens" in text) == (Level.WARN, True)
    with daemons() as make:
        dsn = f"sqlite://{tmp_path}/db"
        public = free_port()
        make(
            *(tmp_path, "autopush", *QUIET, "--db_dsn", dsn, "--port", str(public), *options)
        ).listens(public)
        level, text = one(examine("autopush", *options, "--port", str(public)), "internal URL")
        assert level is Level.OK
        assert text.startswith(f"http://127.0.0.1:{port} answers, autopush ")
    assert about(examine("autoendpoint"), "internal URL") == []


def test_internal_url_with_a_certificate_other_nodes_refuse(examine, tmp_path):
    key, cert, _ = make_certificate(tmp_path, days=(-1, 100))
    port, public = free_port(), free_port()
    options = ["--router_port", str(port), "--port", str(public)]
    options += ["--router_ssl_key", key, "--router_ssl_cert", cert]
    with daemons() as make:
        make(
            *(tmp_path, "autopush", *QUIET, "--db_dsn", f"sqlite://{tmp_path}/db", *options)
        ).listens(public)
        level, text = one(examine("autopush", *options), "internal URL")
    assert level is Level.FAIL
    assert "its certificate is not accepted here" in text


def test_public_url(examine):
    def said(*options):
        return about(examine("autoendpoint", *options), "public URL")

    assert said("--endpoint_scheme", "ftp")[0][0] is Level.FAIL
    assert "only senders on this machine" in said("--endpoint_hostname", "localhost")[0][1]
    closed = ["--endpoint_port", str(free_port())]
    assert said("--endpoint_hostname", "127.0.0.1", *closed)[-1][0] is Level.WARN
    with socket.create_server(("127.0.0.1", 0)) as other:
        import threading

        def answer():
            with other.accept()[0] as sock:
                sock.recv(4096)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer)
        thread.start()
        port = str(other.getsockname()[1])
        level, text = said("--endpoint_hostname", "127.0.0.1", "--endpoint_port", port)[-1]
        thread.join()
    assert level is Level.WARN
    assert "something else answers there" in text


# --------------------------------------------------------------------------------- the bridges


def bridge_options(mock):
    return [f"--{name}={value}" for name, value in mock.automock.options().items()]


def test_bridges(tmp_path):
    with Background("fcm", "adm", "apns", "gcm") as mock:
        fcm, adm = mock["fcm"], mock["adm"]
        done = run(tmp_path, "autopush_standalone", *bridge_options(mock))
        lines = done.stdout.splitlines()
        assert done.returncode == 0, done.stdout
        for line in (
            "ok    fcm: credentials of 1 app are well-formed",
            f"ok    fcm {fcm.app_id}: an access token was obtained",
            "ok    adm: credentials of 1 profile are well-formed",
            f"ok    adm {adm.profile}: an access token was obtained",
        ):
            assert line in lines
        assert any(line.startswith("ok    apns firefox: ") for line in lines) or any(
            line.startswith("warn  apns firefox: ") and "expires in" in line for line in lines
        )
        assert any(line.startswith("ok    apns token: token of key ") for line in lines)
        assert any(line.startswith("warn  gcm: 1 sender; ") for line in lines)


def test_bridges_behind_a_proxy(tmp_path):
    with Background("fcm", "adm", "apns", "gcm", "proxy") as mock:
        proxy = mock["proxy"]
        proxy.configure({"credentials": "user:correct-horse"})
        bundle = str(mock.automock.authority.ca_file)
        env = {
            "HTTPS_PROXY": proxy.url.replace("//", "//user:correct-horse@"),
            "REQUESTS_CA_BUNDLE": bundle,
        }
        done = run(tmp_path, "autopush_standalone", *bridge_options(mock), env=env)
        lines = done.stdout.splitlines()
        assert done.returncode == 0, done.stdout
        assert f"ok    fcm: https://127.0.0.1:{mock['fcm'].port} by the proxy {proxy.url}" in lines
        assert f"ok    adm: https://127.0.0.1:{mock['adm'].port} by the proxy {proxy.url}" in lines
        assert f"ok    apns: 127.0.0.1 by the proxy {proxy.url}" in lines
        assert f"ok    gcm: {mock['gcm'].url}/gcm/send by the proxy {proxy.url}" in lines
        (authorities,) = (line for line in lines if " authorities: " in line)
        assert bundle in authorities and "REQUESTS_CA_BUNDLE" in authorities
        assert f"ok    adm {mock['adm'].profile}: an access token was obtained" in lines
        assert proxy.targets and "correct-horse" not in done.stdout + done.stderr


def test_proxies_that_can_not_be_used(tmp_path):
    with Background("adm", "apns") as mock:
        env = {"ALL_PROXY": "socks5://user:correct-horse@127.0.0.1:1080"}
        done = run(tmp_path, "autopush_standalone", *bridge_options(mock), env=env)
        assert done.returncode == 1
        for name in ("adm", "apns"):
            assert (
                f"FAIL  {name}: The proxy for 127.0.0.1 (HTTPS_PROXY or ALL_PROXY) can't be used:"
                " it must be http or https, not socks5"
            ) in done.stdout
        assert "correct-horse" not in done.stdout + done.stderr


def test_authorities_that_can_not_be_used(tmp_path):
    missing = str(tmp_path / "missing.pem")
    options = ["--adm_creds", json.dumps({"p": {"client_id": "x", "client_secret": "y"}})]
    done = run(tmp_path, "autopush_standalone", *options, env={"REQUESTS_CA_BUNDLE": missing})
    assert done.returncode == 1
    assert f"FAIL  adm: Can't use {missing}: No such file" in done.stdout


def test_bridges_that_give_no_token(tmp_path):
    with Background("fcm", "adm") as mock:
        fcm, adm = mock["fcm"], mock["adm"]
        fcm.script.add({"status": 401, "on": "token", "times": 9})
        adm.script.add({"status": 400, "on": "token", "times": 9})
        done = run(tmp_path, "autopush_standalone", *bridge_options(mock))
        assert done.returncode == 1
        assert f"FAIL  fcm {fcm.app_id}: no access token: " in done.stdout
        assert f"FAIL  adm {adm.profile}: no access token: ADMAuthError" in done.stdout
        assert adm.client_secret not in done.stdout


def test_bridges_with_unusable_credentials(examine, tmp_path):
    key, cert, _ = make_certificate(tmp_path, "expired", days=(-20, -10))
    other = make_certificate(tmp_path, "other")[0]
    account = tmp_path / "account.json"
    account.write_text("{}")
    missing = json.dumps({"app": {"projectid": "p", "auth": "/nowhere/account.json"}})
    malformed = json.dumps({"app": {"projectid": "p", "auth": str(account)}})
    for option, value, name, text in (
        ("--fcm_creds", missing, "fcm", "Can't use /nowhere/account.json: No such file"),
        ("--fcm_creds", malformed, "fcm", "Error"),
        ("--adm_creds", json.dumps({"p": {"client_id": "x"}}), "adm", "Profile info incomplete"),
        ("--senderid_list", json.dumps({"1": {}}), "gcm", "Missing auth for GCM sender 1"),
        ("--apns_creds", json.dumps({"c": {"cert": cert, "key": other}}), "apns", "don't fit"),
        ("--apns_creds", json.dumps({"c": {"cert": cert, "key": key}}), "apns c", "has expired"),
    ):
        level, said = one(examine("autoendpoint", option, value), name)
        assert level is Level.FAIL
        assert text in said, said


def test_bridges_are_for_the_endpoint_node(examine):
    results = examine("autopush", "--adm_creds", json.dumps({"p": {}}))
    assert about(results, "adm") == []


# -------------------------------------------------------------------------------------- broadcasts

NAME = "megaphone_api_url"


@pytest.mark.parametrize(
    ("answer", "level", "text"),
    [
        ({}, Level.OK, "1 broadcast"),
        ({"json": {"broadcasts": {}}}, Level.WARN, "0 broadcasts"),
        ({"status": 500}, Level.FAIL, "no broadcasts: status 500"),
        ({"body": "<html>"}, Level.FAIL, "no broadcasts: no JSON"),
        ({"json": {"broadcasts": []}}, Level.FAIL, "no broadcasts: no object of broadcasts"),
        ({"action": "reset"}, Level.FAIL, "no broadcasts: ConnectionError"),
    ],
)
def test_broadcasts(examine, answer, level, text):
    with Background("megaphone") as mock:
        source = mock["megaphone"]
        if answer:
            source.script.add(answer)
        url = source.environment()["MEGAPHONE_API_URL"]
        results = examine("autopush", f"--{NAME}", url, "--megaphone_api_token", source.token)
    assert one(results, NAME) == (level, text)
    assert all(source.token not in result.text for result in results)


def test_broadcasts_that_can_not_be_told(examine):
    with Background("megaphone") as mock:
        source = mock["megaphone"]
        source.configure({"broadcasts": {"a": "1", "b": 2}})
        options = [f"--{NAME}", f"{source.url}/v1/broadcasts/"]
        results = examine("autopush", *options, "--megaphone_api_token", source.token)
    assert about(results, NAME) == [
        (Level.WARN, "1 of 2 can't be told to user agents"),
        (Level.OK, "1 broadcast"),
    ]


def test_no_broadcasts_are_well(examine):
    assert about(examine("autopush"), NAME) == []
