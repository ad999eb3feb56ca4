"""Options: spec/configuration 2 and 3."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from autopush.options.bridges import option_groups
from autopush.options.parser import (
    parse_connection,
    parse_endpoint,
    parse_standalone,
    standalone_parser,
)
from autopush.options.standalone import STANDALONE
from autopush.options.tables import OBSOLETE, SHARED
from autopush.scripts.endpoint_diagnostic import parse_diagnostic


def refused(capsys, parse, *args, files=()):
    with pytest.raises(SystemExit) as caught:
        parse(list(files), list(args))
    assert caught.value.code == 2
    return capsys.readouterr().err


# ------------------------------------------------------------------------- 2.1 precedence


def test_precedence_command_line_environment_file_default(ini, monkeypatch):
    files = [ini("msg_limit = 1")]
    assert parse_connection([], []).msg_limit == 100
    assert parse_connection(files, []).msg_limit == 1
    monkeypatch.setenv("MSG_LIMIT", "2")
    assert parse_connection(files, []).msg_limit == 2
    assert parse_connection(files, ["--msg_limit", "3"]).msg_limit == 3


def test_lists_come_from_the_highest_source_only(ini, monkeypatch):
    files = [ini("crypto_key = [a, b]")]
    assert parse_connection(files, []).crypto_key == ["a", "b"]
    monkeypatch.setenv("CRYPTO_KEY", "[c, d]")
    assert parse_connection(files, []).crypto_key == ["c", "d"]
    args = ["--crypto_key", "e", "--crypto_key=f"]
    assert parse_connection(files, args).crypto_key == ["e", "f"]


def test_last_scalar_on_the_command_line_wins():
    assert parse_connection([], ["-p", "1", "--port=2"]).port == 2


def test_last_line_with_the_same_key_wins(ini):
    assert parse_endpoint([ini("auth_key = [a]\nauth_key = [b]")], []).auth_key == ["b"]


def test_name_and_dashed_name_are_two_keys(ini):
    assert parse_endpoint([ini("auth_key = a\n--auth_key = b")], []).auth_key == ["a", "b"]


# ------------------------------------------------------------------------------- 2.2 files


def test_later_default_file_wins(ini):
    files = [ini("msg_limit = 1\nenv = one", "a"), ini("msg_limit = 2", "b"), "/nonexistent.ini"]
    ns = parse_connection(files, [])
    assert (ns.msg_limit, ns.env) == (2, "one")


def test_explicit_shared_file_wins_over_explicit_node_file_over_default_files(ini):
    files = [ini("msg_limit = 1", "a")]
    node = ini("msg_limit = 2", "b")
    shared = ini("msg_limit = 3", "c")
    assert parse_connection(files, ["--config-connection", node]).msg_limit == 2
    args = ["--config-shared", shared, "--config-connection", node]
    assert parse_connection(files, args).msg_limit == 3
    assert parse_endpoint([], ["--config-endpoint", node]).msg_limit == 2


def test_last_explicit_file_is_used(ini):
    first, second = ini("msg_limit = 2", "a"), ini("env = x", "b")
    ns = parse_standalone([], ["--config", first, "--config", second])
    assert (ns.msg_limit, ns.env) == (0, "x")


def test_config_key_inside_a_file_is_not_followed(ini):
    inner = ini("msg_limit = 2", "inner")
    assert parse_connection([ini(f"config-shared = {inner}")], []).msg_limit == 100


def test_missing_explicit_file(capsys):
    assert "/nonexistent.ini" in refused(capsys, parse_standalone, "--config", "/nonexistent.ini")


def test_unreadable_default_file(capsys, tmp_path):
    assert "config file" in refused(capsys, parse_standalone, files=[str(tmp_path)])


def test_file_that_is_no_text(capsys, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"env = \xff\xfe")
    assert "Can't read" in refused(capsys, parse_standalone, files=[str(path)])


def test_files_are_utf8(ini, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    assert parse_standalone([ini("env = grün")], []).env == "grün"


def test_keys_of_the_other_daemon_are_refused(ini, capsys):
    text = ini("hello_timeout = 3")
    err = refused(capsys, parse_endpoint, files=[text])
    assert f"unrecognized arguments: --hello_timeout ({text}, line 1)\n" in err
    assert err.endswith("--hello_timeout is an option of autopush.\n")
    text = ini("no_cors = true")
    err = refused(capsys, parse_connection, files=[text])
    assert f"unrecognized arguments: --no_cors ({text}, line 1)\n" in err
    assert err.endswith("--no_cors is an option of autoendpoint.\n")


# ------------------------------------------------------------------------------ 2.3 syntax


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("env = v", "v"),
        ("env=v", "v"),
        ("env: v", "v"),
        ("env v", "v"),
        ("--env v", "v"),
        ("  env = v  ", "v"),
        ("env", "true"),
        ("env = v #c", "v"),
        ("env = v ; c", "v"),
        ("env = v#c", "v#c"),
        ("env =", ""),
        ("env=", ""),
        ('env = "v w"', "v w"),
        ("# env = v", "development"),
        ("; env = v", "development"),
        ("[env]", "development"),
        ("--- env", "development"),
        ("", "development"),
    ],
)
def test_file_line(ini, line, value):
    assert parse_connection([ini(line)], []).env == value


def test_json_value_in_a_file(ini):
    value = '{"a": {"auth": "b"}}'
    assert parse_endpoint([ini(f"senderid_list = {value}")], []).senderid_list == value


@pytest.mark.parametrize("text", ["true", "yes", "1", "on", "TRUE", "Yes"])
def test_flag_values_that_set(ini, text):
    assert parse_endpoint([ini(f"no_cors = {text}")], []).no_cors is True


@pytest.mark.parametrize("text", ["false", "no", "0", "off"])
def test_flag_values_that_leave_alone(ini, text):
    assert parse_endpoint([ini(f"no_cors = {text}")], []).no_cors is False


def test_bad_flag_value(ini, capsys):
    assert "Unexpected value for no_cors: 'maybe'" in refused(
        capsys, parse_endpoint, files=[ini("no_cors = maybe")]
    )


def test_abbreviated_key(ini, capsys):
    assert parse_connection([ini("msg_l = 3")], []).msg_limit == 3
    assert parse_connection([ini("human = yes")], []).human_logs is True
    assert "ambiguous option: --router_ could match --router_host, " in refused(
        capsys, parse_connection, files=[ini("router_ = 1")]
    )


def test_list_for_a_scalar(ini, capsys):
    assert "senderid_list can't be set to a list" in refused(
        capsys, parse_endpoint, files=[ini("senderid_list = [a]")]
    )


def test_unexpected_line(ini, capsys):
    assert "Unexpected line 2 in" in refused(capsys, parse_endpoint, files=[ini("env = a\n= b")])


# ---------------------------------------------------------------- 2.4, 2.5 and the table of 2.7


def test_bracketed_text_on_the_command_line_is_literal():
    assert parse_endpoint([], ["--auth_key", "[a,b]"]).auth_key == ["[a,b]"]


def test_environment_list(monkeypatch):
    for text, value in [("[a, ,b]", ["a", "b"]), ("a,b", ["a,b"]), ("", []), ("[a]x", ["[a]x"])]:
        monkeypatch.setenv("AUTH_KEY", text)
        assert parse_endpoint([], []).auth_key == value
    monkeypatch.setenv("AUTH_KEY", "[]")
    assert parse_endpoint([], []).auth_key == []


def test_empty_list_counts_as_not_given(ini):
    files = [ini("crypto_key = [a]", "low"), ini("crypto_key = []", "high")]
    assert parse_connection(files, []).crypto_key == ["a"]
    assert parse_connection([ini("crypto_key = []")], []).crypto_key is None
    assert parse_endpoint([ini("auth_key = []")], []).auth_key == []


def test_false_in_a_higher_source_cancels_true_in_a_lower_one(ini, monkeypatch):
    monkeypatch.setenv("HUMAN_LOGS", "false")
    assert parse_connection([ini("human_logs")], []).human_logs is False


@pytest.mark.parametrize("args", [["-p5"], ["--por", "5"], ["--por=5"]])
def test_short_and_abbreviated_options_win_over_the_environment(ini, monkeypatch, args):
    monkeypatch.setenv("CRYPTO_KEY", "[a, b]")
    monkeypatch.setenv("PORT", "7")
    ns = parse_connection([], args)
    assert (ns.port, ns.crypto_key) == (5, ["a", "b"])


def test_abbreviated_list_option_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("CRYPTO_KEY", "[a, b]")
    assert parse_connection([], ["--crypto", "c"]).crypto_key == ["c"]


def test_keys_may_start_with_dashes():
    for key in ("-abc=", "--abc="):
        args = ["--auth_key", key, "--auth_key", "b", "--no_cors"]
        ns = parse_endpoint([], args)
        assert (ns.auth_key, ns.no_cors) == ([key, "b"], True)


def test_missing_key_does_not_swallow_the_next_option(capsys):
    assert "argument --auth_key: expected one argument" in refused(
        capsys, parse_endpoint, "--auth_key", "--no_cors"
    )


def test_command_line_of_the_process(monkeypatch):
    monkeypatch.setenv("CRYPTO_KEY", "[a]")
    monkeypatch.setattr("sys.argv", ["autopush", "--crypto", "b"])
    assert parse_connection([]).crypto_key == ["b"]


# ------------------------------------------------------------------------ 2.6 parser errors


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--nope"], "unrecognized arguments: --nope"),
        (["stray"], "unrecognized arguments: stray"),
        (["--port", "abc"], "argument -p/--port: invalid int value: 'abc'"),
        (["--port", "65536"], "argument -p/--port: must be between 0 and 65535, not 65536"),
        (["--port", "-1"], "argument -p/--port"),
        (["--auto_ping_interval", "x"], "invalid float value: 'x'"),
        (["--auto_ping_interval", "nan"], "must be at least 0, not nan"),
        (["--max_data", "0"], "must be at least 1, not 0"),
        (["--log_level", "loud"], "'loud' is none of debug, info, warn, error, critical"),
        (["--msg_limit", "-1"], "must be at least 0, not -1"),
        (["--max_stored_share", "101"], "must be between 1 and 100, not 101"),
        (["--gcm_enabled"], "argument --gcm_enabled: expected one argument"),
        (["--router_", "1"], "ambiguous option: --router_ could match"),
    ],
)
def test_parser_errors(capsys, args, text):
    err = refused(capsys, parse_connection, *args)
    assert text in err
    assert err.startswith("autopush: error: ")
    assert err.count("\n") == 2


def test_help_reads_no_files(capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        parse_connection([str(tmp_path)], ["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "Runs a Connection Node." in out
    assert "[env var: LOCAL_HOSTNAME]" in " ".join(out.split())


# ----------------------------------------------------------------------------- 3 the tables


TABLES_OF_1_58_3 = {
    (parse_connection, parse_endpoint, parse_diagnostic): """
        debug DEBUG off
        log_level LOG_LEVEL ''
        log_output LOG_OUTPUT stdout
        firehose_stream_name STREAM_NAME ''
        human_logs HUMAN_LOGS off
        crypto_key CRYPTO_KEY []
        key_hash KEY_HASH ''
        datadog_api_key DATADOG_API_KEY ''
        datadog_app_key DATADOG_APP_KEY ''
        datadog_flush_interval DATADOG_FLUSH_INTERVAL 10
        statsd_host STATSD_HOST localhost
        statsd_port STATSD_PORT 8125
        hostname LOCAL_HOSTNAME none
        resolve_hostname RESOLVE_HOSTNAME off
        ssl_key SSL_KEY ''
        ssl_cert SSL_CERT ''
        ssl_dh_param SSL_DH_PARAM none
        router_tablename ROUTER_TABLENAME router
        router_read_throughput ROUTER_READ_THROUGHPUT 5
        router_write_throughput ROUTER_WRITE_THROUGHPUT 5
        message_tablename MESSAGE_TABLENAME message
        message_read_throughput MESSAGE_READ_THROUGHPUT 5
        message_write_throughput MESSAGE_WRITE_THROUGHPUT 5
        no_table_rotation NO_TABLE_ROTATION off
        aws_ddb_endpoint AWS_LOCAL_DYNAMODB none
        connection_timeout CONNECTION_TIMEOUT 1
        max_data MAX_DATA 4096
        env AUTOPUSH_ENV development
        endpoint_scheme ENDPOINT_SCHEME http
        endpoint_hostname ENDPOINT_HOSTNAME none
        endpoint_port ENDPOINT_PORT 8082
        no_aws NO_AWS off
        msg_limit MSG_LIMIT 100
        memusage_port MEMUSAGE_PORT none
        use_cryptography USE_CRYPTOGRAPHY off
        sts_max_age STS_MAX_AGE 31536000
        _no_sslcontext_cache _NO_SSLCONTEXT_CACHE off
        gcm_ttl GCM_TTL 60
        gcm_dryrun GCM_DRYRUN off
        gcm_collapsekey GCM_COLLAPSEKEY simplepush
        gcm_endpoint GCM_ENDPOINT gcm-http.googleapis.com/gcm/send
        senderid_list SENDERID_LIST ''
        fcm_creds FCM_CREDS ''
        fcm_ttl FCM_TTL 60
        fcm_dryrun FCM_DRYRUN off
        fcm_collapsekey FCM_COLLAPSEKEY simplepush
        fcm_version FCM_VERSION 1
        apns_creds APNS_CREDS ''
        adm_creds ADM_CREDS ''
    """,
    (parse_connection,): """
        port PORT 8080
        router_hostname ROUTER_HOSTNAME none
        router_port ROUTER_PORT 8081
        router_ssl_key ROUTER_SSL_KEY ''
        router_ssl_cert ROUTER_SSL_CERT ''
        auto_ping_interval AUTO_PING_INTERVAL 0
        auto_ping_timeout AUTO_PING_TIMEOUT 4
        max_connections MAX_CONNECTIONS 0
        close_handshake_timeout CLOSE_HANDSHAKE_TIMEOUT 0
        hello_timeout HELLO_TIMEOUT 0
    """,
    (parse_endpoint, parse_diagnostic): """
        port PORT 8082
        no_cors ALLOW_CORS off
        auth_key AUTH_KEY []
        client_certs CLIENT_CERTS {}
        proxy_protocol_port PROXY_PROTOCOL_PORT none
    """,
}
"""Sections 3.1 to 3.3: name, variable, default."""

OBSOLETE_OF_1_58_3 = """
    external_router max_message_size s3_bucket senderid_expry proxy_protocol apns_enabled
    apns_sandbox apns_cert_file apns_key_file wake_timeout wake_pem wake_server disable_simplepush
    storage_tablename storage_read_throughput storage_write_throughput gcm_enabled fcm_enabled
    fcm_auth fcm_senderid fcm_project_id fcm_service_cred_path
"""

OPTIONS_OF_1_58_3 = [
    (parse, *line.split())
    for parsers, table in TABLES_OF_1_58_3.items()
    for parse in parsers
    for line in table.strip().splitlines()
]
PLACE = {parse_diagnostic: ["https://push.example/wpush/v1/x"]}
"""Arguments without which a command can't be called."""


NOTHING: dict[str, tuple[Any, ...]] = {
    "off": (False,),
    "none": (None,),
    "''": ("",),
    "[]": (None, []),
    "{}": ("{}",),
}
"""What the tables mean by these."""


@pytest.mark.parametrize(("parse", "name", "variable", "default"), OPTIONS_OF_1_58_3)
def test_option_of_1_58_3(parse, name, variable, default, monkeypatch, ini):
    place = PLACE.get(parse, [])
    found = getattr(parse([], place), name)
    assert found in NOTHING[default] if default in NOTHING else str(found) == default
    flag = default == "off"
    value = "true" if flag else "warn" if name == "log_level" else "17"
    wanted = "True" if flag else value

    def given(*args):
        return str(getattr(parse(*args), name)).strip("[']").removesuffix(".0")

    assert given([], [*place, f"--{name}", *([] if flag else [value])]) == wanted
    assert given([ini(f"{name} = {value}")], place) == wanted
    monkeypatch.setenv(variable, value)
    assert given([], place) == wanted


@pytest.mark.parametrize(
    ("parse", "short", "name"),
    [
        (parse_connection, "-p", "port"),
        (parse_connection, "-r", "router_port"),
        (parse_connection, "-e", "endpoint_port"),
        (parse_endpoint, "-p", "port"),
        (parse_endpoint, "-e", "endpoint_port"),
    ],
)
def test_short_option_of_1_58_3(parse, short, name):
    assert getattr(parse([], [short, "17"]), name) == 17


def test_obsolete_options_are_those_of_1_58_3():
    assert sorted(OBSOLETE) == sorted(OBSOLETE_OF_1_58_3.split())


@pytest.mark.parametrize("parse", [parse_connection, parse_endpoint, parse_diagnostic])
def test_help_is_grouped_by_subject(parse, capsys):
    with pytest.raises(SystemExit):
        parse([], ["--help"])
    text = capsys.readouterr().out
    heads = re.findall(r"^(\w[\w ]*):$", text, re.MULTILINE)
    subjects = ["logging", "keys", "metrics", "addresses", "TLS", "storage", "bridges", "limits"]
    assert set(subjects) < set(heads)
    part = text[text.index("\nstorage:") :].split("\n\n")[0]
    assert "--router_tablename" in part and "--fcm_creds" not in part


def test_shared_options_exist_in_both_daemons():
    connection, endpoint = vars(parse_connection([], [])), vars(parse_endpoint([], []))
    for _, rows in (*SHARED, *option_groups()):
        for row in rows:
            assert connection[row.name] == endpoint[row.name] == row.default


@pytest.mark.parametrize("parse", [parse_connection, parse_endpoint, parse_standalone])
def test_obsolete_options_are_accepted_with_one_value(parse, ini):
    for name in OBSOLETE:
        assert str(getattr(parse([], [f"--{name}", "1"]), name)) == "1"
    parse([ini("storage_tablename = storage\ngcm_enabled")], [])


@pytest.mark.parametrize("name", ["cors", "bridge", "gcm_apikey", "min_ping_interval"])
def test_refused_names(capsys, name):
    err = refused(capsys, parse_connection, f"--{name}=1")
    assert f"unrecognized arguments: --{name} (command line)" in err


def test_no_cors_reads_the_variable_allow_cors(monkeypatch):
    monkeypatch.setenv("ALLOW_CORS", "true")
    assert parse_endpoint([], []).no_cors is True


# ------------------------------------------------------------------------------ standalone


def test_standalone_defaults():
    ns = parse_standalone([], [])
    assert (ns.host, ns.port, ns.endpoint_port, ns.router_port) == ("127.0.0.1", 8080, None, None)
    assert (ns.data_dir, ns.store_direct, ns.statsd_host) == ("./autopush-data", True, "")
    assert ns.human_logs is None
    assert ns.no_aws is True


def test_addresses_to_listen_on(ini, monkeypatch):
    assert (parse_connection([], []).host, parse_connection([], []).router_host) == (
        "0.0.0.0",
        None,
    )
    assert parse_endpoint([], []).host == "0.0.0.0"
    assert parse_standalone([], []).router_host is None
    ns = parse_connection([ini("host = 127.0.0.1\nrouter_host = 127.0.0.2")], [])
    assert (ns.host, ns.router_host, ns.hostname) == ("127.0.0.1", "127.0.0.2", None)
    monkeypatch.setenv("ROUTER_HOST", "127.0.0.3")
    monkeypatch.setenv("LISTEN_HOST", "127.0.0.4")
    ns = parse_connection([], [])
    assert (ns.host, ns.router_host) == ("127.0.0.4", "127.0.0.3")


def test_store_direct_can_be_turned_off_everywhere(ini, monkeypatch):
    assert parse_standalone([], ["--no_store_direct"]).store_direct is False
    assert parse_standalone([ini("store_direct = false")], []).store_direct is False
    assert parse_standalone([ini("no_store_direct = true")], []).store_direct is False
    assert parse_standalone([ini("no_store_direct")], []).store_direct is False
    assert parse_standalone([ini("no_store_direct = false")], []).store_direct is True
    monkeypatch.setenv("STORE_DIRECT", "false")
    assert parse_standalone([], []).store_direct is False
    assert parse_standalone([], ["--store_direct"]).store_direct is True


def test_store_direct_is_off_in_the_daemons():
    assert parse_connection([], []).store_direct is False
    assert parse_connection([], ["--store_direct"]).store_direct is True


def test_every_option_of_the_standalone_help_says_its_variable():
    text = " ".join(standalone_parser().format_help().split())
    for _, rows in (*STANDALONE, *option_groups()):
        for row in rows:
            if row.name != "db_dsn":
                assert f"--{row.name}" in text
                assert f"[env var: {row.env}]" in text


def test_variables_are_used_once():
    names = [row.env for _, rows in (*STANDALONE, *option_groups()) for row in rows]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("3", 3), ("auto", 0)])
def test_workers(text, count):
    assert parse_standalone((), ["--workers", text]).workers == (
        count or len(os.sched_getaffinity(0))
    )


@pytest.mark.parametrize("text", ["0", "-1", "65", "many", ""])
def test_a_number_of_workers_that_can_not_be(text):
    with pytest.raises(SystemExit):
        parse_standalone((), ["--workers", text])
