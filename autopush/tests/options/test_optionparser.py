"""What people write instead of what was meant, and what they are told: spec/configuration 2."""

from __future__ import annotations

import shlex

import pytest

from autopush.doctor import EXAMPLES as DOCTOR_EXAMPLES, main as doctor
from autopush.options.bridges import option_groups
from autopush.options.optionparser import VERSION
from autopush.options.parser import (
    connection_parser,
    endpoint_parser,
    parse_connection,
    parse_endpoint,
    parse_standalone,
    standalone_parser,
)
from autopush.options.standalone import PAGE_SHOWS, STANDALONE
from autopush.options.tables import CONNECTION, ENDPOINT, FLAG, LIST, LOG_LEVEL, SHARED, SWITCH
from autopush.scripts import autokey
from autopush.scripts.data import EXAMPLES as DATA_EXAMPLES, parse as parse_data
from autopush.scripts.drop_user import EXAMPLES as DROP_EXAMPLES, parse as parse_drop_users
from autopush.scripts.endpoint_diagnostic import EXAMPLES as URL_EXAMPLES, parse_diagnostic

COMMANDS = {
    "autopush": (parse_connection, (*SHARED, CONNECTION, *option_groups())),
    "autoendpoint": (parse_endpoint, (*SHARED, ENDPOINT, *option_groups())),
    "autopush_standalone": (parse_standalone, (*STANDALONE, *option_groups())),
}
OPTIONS = [
    (parse, row) for parse, groups in COMMANDS.values() for _, rows in groups for row in rows
]
IDS = [f"{parse.__name__}-{row.name}" for parse, row in OPTIONS]
FLAGS = (FLAG, SWITCH)


CHOICES = {LOG_LEVEL: "warn", PAGE_SHOWS: "info"}


def value_of(row):
    """Return a text that may be the value of an option."""
    return "true" if row.kind in FLAGS else CHOICES.get(row.kind, "17")


def refused(capsys, parse, *args, files=()):
    """Return the two lines that a wrong option gets."""
    with pytest.raises(SystemExit) as caught:
        parse(list(files), list(args))
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    return first.partition(" error: ")[2], second


# ------------------------------------------------------------------ dashes and underscores


@pytest.mark.parametrize(("parse", "row"), OPTIONS, ids=IDS)
def test_dashes_and_underscores_are_the_same(parse, row, ini):
    dashed = row.name.lstrip("_").replace("_", "-")
    dashed = f"-{dashed}" if row.name.startswith("_") else dashed
    value = value_of(row)
    args = [f"--{row.name}"] + ([] if row.kind in FLAGS else [value])
    wanted = parse([], args)
    assert parse([], [f"--{dashed}", *args[1:]]) == wanted
    if row.kind not in FLAGS:
        assert parse([], [f"--{dashed}={value}"]) == wanted
    if not row.name.startswith("_"):
        assert parse([ini(f"{dashed} = {value}")], []) == wanted
        assert parse([ini(f"--{dashed} = {value}")], []) == wanted


def test_dashes_of_one_and_underscores_of_another_may_be_mixed(ini):
    assert parse_standalone([], ["--rate-sub", "3"]).rate_subscription == 3
    assert parse_standalone([ini("router-ssl_c = x")], []).router_ssl_cert == "x"
    assert parse_standalone([], ["--no-store-direct"]).store_direct is False
    assert parse_standalone([ini("no-store-direct")], []).store_direct is False
    assert parse_drop_users(["--months_ago", "3", "--dry-run"]).months_ago == 3
    file = ini("env = x")
    assert parse_connection([], ["--config_shared", file]).env == "x"


def test_values_keep_their_dashes():
    ns = parse_endpoint([], ["--auth-key", "--a-b_c", "--env=a-b_c"])
    assert (ns.auth_key, ns.env) == (["--a-b_c"], "a-b_c")


def test_the_command_line_wins_over_variables_in_each_spelling(monkeypatch):
    monkeypatch.setenv("ROUTER_PORT", "7")
    monkeypatch.setenv("CRYPTO_KEY", "[a, b]")
    for args in (["-r5"], ["-r=5"], ["-r", "5"], ["--router-port", "5"], ["--router-p=5"]):
        ns = parse_connection([], [*args, "--crypto-key", "c"])
        assert (ns.router_port, ns.crypto_key) == (5, ["c"])


# ---------------------------------------------------------------------- empty variables


@pytest.mark.parametrize(("parse", "row"), OPTIONS, ids=IDS)
def test_an_empty_variable_is_none(parse, row, ini, monkeypatch):
    if row.env == "STATSD_HOST":
        monkeypatch.setenv(row.env, "")
        assert parse([ini("statsd_host = h")], []).statsd_host == ""  # as ever: no statsd
        return
    files = [ini(f"{row.name} = {value_of(row)}")]
    wanted = parse(files, [])
    default = parse([], [])
    monkeypatch.setenv(row.env, "")
    assert parse(files, []) == wanted
    assert parse([], []) == default


def test_an_empty_variable_of_a_script_is_none(monkeypatch):
    monkeypatch.setenv("ROUTER_TABLENAME", "")
    assert parse_drop_users([]).router_table_name == "router"


# ------------------------------------------------------------------- what is wrong, and where


@pytest.mark.parametrize(
    ("args", "names", "hint"),
    [
        (["--prot", "8080"], "--prot", "--prot: did you mean --port?"),
        (["--prot=8080"], "--prot", "--prot: did you mean --port?"),
        (["--public-ulr=x"], "--public-ulr", "--public-ulr: did you mean --public_url?"),
        (["--no-store-dircet"], "--no-store-dircet", "did you mean --no_store_direct?"),
        (["--config_flie=x"], "--config_flie", "did you mean --config?"),
        (["--versoin"], "--versoin", "did you mean --version?"),
        (
            ["--prot=1", "--hots=x"],
            "--prot --hots",
            "--prot: did you mean --port? --hots: did you mean --host?",
        ),
        (["--message_tablename=x"], "--message_tablename", "All options: "),
        (["--zzzzzzz"], "--zzzzzzz", "All options: autopush_standalone --help"),
        (["stray"], "stray", "All options: autopush_standalone --help"),
    ],
)
def test_an_unknown_option_is_two_lines(capsys, args, names, hint):
    first, second = refused(capsys, parse_standalone, *args)
    assert first == f"unrecognized arguments: {names} (command line)"
    assert hint in second


@pytest.mark.parametrize("parse", [parse_connection, parse_endpoint, parse_standalone])
@pytest.mark.parametrize("line", ["prot = 8080", "--prot 8080", "prot: 8080", "prot"])
def test_an_unknown_key_in_a_file_says_its_line(capsys, ini, parse, line):
    path = ini(f"# options\n\n{line}\n")
    first, second = refused(capsys, parse, files=[path])
    assert first == f"unrecognized arguments: --prot ({path}, line 3)"
    assert second == "--prot: did you mean --port?"


@pytest.mark.parametrize("word", ["--cripto_key=hush", "--auth-keys=hush"])
def test_values_of_unknown_options_are_not_shown(capsys, ini, word):
    """They may be keys."""
    for args, files in (([word], []), (word.split("="), []), ([], [ini(word)])):
        assert "hush" not in "".join(refused(capsys, parse_endpoint, *args, files=files))


def test_options_of_another_command(capsys):
    assert refused(capsys, parse_endpoint, "--hello-timeout=3")[1] == (
        "--hello-timeout is an option of autopush."
    )
    assert refused(capsys, parse_connection, "--public_url=x")[1] == (
        "--public_url is an option of autopush_standalone."
    )


@pytest.mark.parametrize(("parse", "row"), OPTIONS, ids=IDS)
def test_a_bad_value_says_where_it_is_from(capsys, ini, monkeypatch, parse, row):
    if row.kind in FLAGS:
        bad, text = "ture", "Unexpected value for {}: 'ture'"
    elif row.kind in (str, LIST) or row.kind.__name__ == "JSON":
        return
    else:
        bad = "x"
        text = f"--{row.name}: {'' if row.kind in CHOICES else 'invalid '}"
        first, _ = refused(capsys, parse, f"--{row.name}=x")
        assert text in first and first.endswith("(command line)")
    path = ini(f"\n{row.name} = {bad}")
    first, second = refused(capsys, parse, files=[path])
    assert text.format(row.name) in first
    assert first.endswith(f"({path}, line 2)")
    monkeypatch.setenv(row.env, bad)
    first, second = refused(capsys, parse, files=[path])
    assert text.format(row.env) in first
    assert first.endswith(f"(environment variable {row.env})")
    assert bad != "ture" or second == "ture: did you mean true?"


def test_the_file_of_several_is_named(capsys, ini):
    low, high = ini("port = x\nhost = y", "low"), ini("\nport = 70000", "high")
    first, _ = refused(capsys, parse_standalone, files=[low, high])
    assert first == (f"argument -p/--port: must be between 0 and 65535, not 70000 ({high}, line 2)")
    first, _ = refused(capsys, parse_standalone, "--config", low)
    assert first.endswith(f"({low}, line 1)")


def test_a_list_for_a_scalar_and_an_ambiguous_key_say_where(capsys, ini):
    path = ini("\nhost = [a]")
    assert refused(capsys, parse_endpoint, files=[path])[0].endswith(f"({path}, line 2)")
    path = ini("\nrouter_ = a")
    assert refused(capsys, parse_endpoint, files=[path])[0].endswith(f"({path}, line 2)")
    assert refused(capsys, parse_endpoint, "--router-")[0].endswith("(command line)")


@pytest.mark.parametrize(("level", "meant"), [("wran", "warn"), ("INFO", "info"), ("loud", None)])
def test_an_unknown_choice_is_asked_about(capsys, ini, level, meant):
    path = ini(f"log-level = {level}")
    first, second = refused(capsys, parse_connection, files=[path])
    assert first == (
        f"argument --log_level: {level!r} is none of debug, info, warn, error, critical"
        f" ({path}, line 1)"
    )
    assert second == (
        f"{level}: did you mean {meant}?" if meant else "All options: autopush --help"
    )


# -------------------------------------------------------------- files that are not what they seem

ODD = {
    "port = 1\nport = 2": "port is set in line 1 already",
    "port = 1\npor = 2": "port is set in line 1 already",
    "port = 1\n--port = 2": "--port is set in line 1 already",
    "port = 2\n[smtp]": "unknown section [smtp], whose lines are read as any others",
}


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("command", ["autopush", "autoendpoint"])
def test_the_daemons_warn_and_start(capsys, ini, command, text):
    """1.58.3 passed over it in silence."""
    parse, _ = COMMANDS[command]
    path = ini(text)
    assert parse([path], []).port == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{command}: warning: {ODD[text]} ({path}, line 2)\n")


@pytest.mark.parametrize("text", ODD)
def test_the_standalone_service_refuses(capsys, ini, text):
    path = ini(text)
    assert refused(capsys, parse_standalone, files=[path])[0] == f"{ODD[text]} ({path}, line 2)"


# --------------------------------------------------------------------- --version and --help


def run_autokey(*args):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["autokey", *args])
        autokey.main()


def called(parse, *files):
    return lambda *args: parse(list(files), list(args))


RUN = {
    "autopush": called(parse_connection),
    "autoendpoint": called(parse_endpoint),
    "autopush_standalone": called(parse_standalone),
    "endpoint_diagnostic": called(parse_diagnostic),
    "drop_users": lambda *args: parse_drop_users(args),
    "autopush_data": lambda *args: parse_data(args),
    "autopush_doctor": lambda *args: doctor(args),
    "autokey": run_autokey,
}


def printed(capsys, command, *args):
    try:
        assert not RUN[command](*args)
    except SystemExit as caught:
        assert not caught.code
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("command", RUN)
def test_version(capsys, command):
    assert printed(capsys, command, "--version") == f"{VERSION}\n"


def test_version_reads_no_files(capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        parse_standalone([str(tmp_path)], ["--no-such", "--version"])
    assert not caught.value.code
    assert capsys.readouterr().out == f"{VERSION}\n"


@pytest.mark.parametrize("command", RUN)
def test_help_ends_with_three_examples(capsys, command):
    text = printed(capsys, command, "--help")
    lines = text[text.index("\nexamples:\n") :].splitlines()[2:]
    assert len(lines) == 6
    for example in lines[::2]:
        assert shlex.split(example)[0] == command
        assert len(example) <= 100


@pytest.mark.parametrize("parser", [connection_parser, endpoint_parser, standalone_parser])
def test_examples_can_be_used(parser, ini, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line, _ in parser().examples:
        words = shlex.split(line)[1:]
        files = {word: ini("", "given.ini") for word in words if word.endswith(".ini")}
        assert parser().parse_args([files.get(word, word) for word in words])


def test_examples_of_the_scripts_can_be_used(ini):
    for command, examples in (
        ("drop_users", DROP_EXAMPLES),
        ("autopush_data", DATA_EXAMPLES),
        ("endpoint_diagnostic", URL_EXAMPLES),
    ):
        for line, _ in examples:
            words = shlex.split(line.replace("shared.ini", ini("")))
            assert RUN[command](*words[1:])
    assert all(line.split()[1] in COMMANDS for line, _ in DOCTOR_EXAMPLES)


def test_the_doctor_asks_what_was_meant(capsys):
    assert doctor(["autopush_standalon"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "autopush_doctor: error: name one of the commands first",
        "autopush_standalon: did you mean autopush_standalone?",
    ]
