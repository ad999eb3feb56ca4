"""Log lines (spec/observability 1 to 3, spec/python-api 4.1)."""

from __future__ import annotations

import io
import json
import threading
import time
from decimal import Decimal
from unittest import mock

import pytest
from hypothesis import given, strategies as st
from twisted.internet import reactor
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from autopush import __version__
from autopush.logging import (
    PushLogger,
    enabled,
    events as logging,
    redact,
    redact_authorization,
    redact_text,
    redact_uri,
    redaction,
)

TIME = 1_795_458_959.114454


@pytest.fixture
def publisher(monkeypatch):
    """The process's logging, replaced: nothing has begun, and nothing stays."""
    publisher = LogPublisher()

    class Beginner:
        def beginLoggingTo(self, observers, redirectStandardIO, **kwargs):
            for observer in observers:
                publisher.addObserver(observer)

    monkeypatch.setattr(logging, "globalLogPublisher", publisher)
    monkeypatch.setattr(logging, "globalLogBeginner", Beginner())
    monkeypatch.setattr(logging, "began_logging", False)
    monkeypatch.setattr(logging, "instance_id_or_hostname", "host.example")
    monkeypatch.setattr(logging, "_started", [])
    monkeypatch.setattr(logging, "_threshold", 0)
    return publisher


@pytest.fixture
def log(publisher):
    return Logger(namespace="some.Class", observer=publisher)


@pytest.fixture
def lines(publisher):
    """What a JSON logger at level debug wrote, parsed."""
    logger = PushLogger("Autopush")
    output = logger._output = io.StringIO()
    logger.start()
    return lambda: [json.loads(line) for line in output.getvalue().splitlines()]


def event(**changes):
    return {
        "log_format": "text",
        "log_level": LogLevel.info,
        "log_namespace": "some.Class",
        "log_time": TIME,
        **changes,
    }


def json_line(**changes):
    return json.loads(PushLogger("Autopush").json_format(event(**changes)))


def fields(**changes):
    return json_line(**changes)["Fields"]


def failure(text="boom"):
    try:
        raise RuntimeError(text)
    except RuntimeError:
        return Failure()


class TestJsonFormat:
    def test_members(self, publisher):
        assert json_line(status_code=200) == {
            "EnvVersion": "2.0",
            "Type": "twisted:log",
            "Logger": f"Autopush-{__version__}",
            "Hostname": "host.example",
            "Timestamp": 1_795_458_959_114_454_000,
            "Severity": 5,
            "Fields": {
                "log_namespace": "some.Class",
                "log_level": "info",
                "status_code": 200,
                "message": "text",
            },
        }

    def test_a_worker_is_named(self):
        logger = PushLogger("Autopush", worker=2)
        line = json.loads(logger.json_format(event()))
        assert line["Fields"] == {**fields(), "worker": 2}
        plain, named = (one.text_format(event()) for one in (PushLogger("Autopush"), logger))
        assert plain and named == plain.replace(" [", " [worker 2: ", 1) != plain

    def test_one_line_of_ascii(self):
        line = PushLogger("Autopush").json_format(event(log_format="é\n\u2028", name="ü"))
        assert line.isascii()
        assert line.endswith("}\n")
        assert line.count("\n") == 1
        assert json.loads(line)["Fields"]["message"] == "é\n\u2028"

    def test_o7_timestamp_is_an_integer(self):
        assert '"Timestamp":1795458959114454000,' in PushLogger("A").json_format(event())

    def test_only_plain_types_are_fields(self):
        class Text(str):
            pass

        found = fields(
            a="x", b=[1], c=5, d=1.5, e=True,
            f=None, g={}, h=(1,), i=Decimal(1), j=Text("x"), k=b"x", l=object(),
        )  # fmt: skip
        assert {name: found.get(name) for name in "abcdefghijkl"} == {
            "a": "x", "b": [1], "c": 5, "d": 1.5, "e": True,
            **dict.fromkeys("fghijkl"),
        }  # fmt: skip

    def test_ignored_keys_are_no_fields(self):
        found = fields(**dict.fromkeys(logging.IGNORED_KEYS - set(event()) - {"log_failure"}, "x"))
        assert set(found) == {"log_namespace", "log_level", "message"}
        assert "Type" in fields(Type="x")

    @pytest.mark.parametrize("word", ["Session", "S" * 40, "a key", "key", "{key}", "eyJhbGci"])
    @pytest.mark.parametrize("secrets", [(), ("key",)])
    def test_o9_a_word_is_a_message_unless_it_is_a_secret(self, word, secrets):
        redaction.hide(secrets)
        try:
            line = fields(log_format=word, key="value")
        finally:
            redaction.hide(())
        text = word.replace("{key}", "value")
        assert line["message"] == (text.replace("key", "...") if secrets else text)

    def test_client_info_and_timings_are_flattened_and_win_in_this_order(self):
        found = fields(
            a=1,
            b=1,
            c=1,
            client_info={"b": 2, "c": 2, "ami_id": None, "message": "x"},
            timings={"c": 3, "request_time": 0.5},
        )
        assert {name: found[name] for name in ("a", "b", "c", "request_time")} == {
            "a": 1,
            "b": 2,
            "c": 3,
            "request_time": 0.5,
        }
        assert found["message"] == "text"
        assert not {"client_info", "timings", "ami_id"} & set(found)

    def test_client_info_that_is_no_dict_is_left_out(self):
        assert "client_info" not in fields(client_info=None)

    def test_message_is_formatted(self):
        assert fields(log_format="a {b}", b=5)["message"] == "a 5"

    def test_severity_of_failures_is_3(self):
        assert json_line(log_failure=failure())["Severity"] == 3
        assert json_line(isError=1)["Severity"] == 3
        assert json_line(isError=0)["Severity"] == 5
        assert json_line(log_level=LogLevel.critical)["Severity"] == 5

    def test_severity_of_the_event_wins(self):
        assert json_line(severity=7, log_failure=failure())["Severity"] == 7
        assert json_line(severity=0)["Severity"] == 5

    def test_o5_level_is_a_field(self):
        assert fields(log_level=LogLevel.warn)["log_level"] == "warn"

    def test_o6_braces_that_are_no_format_are_text(self):
        text = 'AWS said {"Error": {"Code": 5}}'
        assert fields(log_format=text, client_info={"authorization": "secret"})["message"] == text
        assert fields(log_format="{missing}")["message"] == "{missing}"
        assert fields(log_format=b"\xff{x")["message"] == "\ufffd{x"

    def test_o8_traceback_is_a_field(self):
        trace = fields(log_failure=failure())["traceback"]
        assert trace.startswith("Traceback")
        assert "RuntimeError: boom" in trace
        assert "traceback" not in fields()

    def test_values_json_has_no_form_for(self):
        assert fields(big=2**70)["big"] == 2**70
        assert fields(odd="\ud800")["odd"] == "\ud800"
        assert "object" in fields(things=[object()])["things"][0]
        assert fields(things=[{1, 2}])["things"] == ["{1, 2}"]

    def test_legacy_events(self, publisher, lines):
        from twisted.python.log import LogPublisher as LegacyPublisher

        LegacyPublisher(observerPublisher=publisher, publishPublisher=publisher).msg("hello")
        (line,) = lines()
        assert line["Fields"]["message"] == "hello"
        assert line["Fields"]["system"] == "-"
        assert line["Fields"]["log_namespace"] == "log_legacy"

    @given(
        st.dictionaries(
            st.text(max_size=8),
            st.one_of(
                st.text(max_size=20), st.integers(), st.floats(), st.none(), st.lists(st.binary())
            ),
            max_size=5,
        ),
        st.text(max_size=30),
    )
    def test_any_event_is_one_line_of_json(self, extra, text):
        extra = {k: v for k, v in extra.items() if not k.startswith("log_") and k != "severity"}
        line = PushLogger("Autopush").json_format({**event(log_format=text), **extra})
        assert line.isascii()
        assert line.count("\n") == 1
        assert "message" in json.loads(line)["Fields"]


class TestTextFormat:
    def line(self, **changes):
        return PushLogger("Autopush", log_format="text").text_format(event(**changes))

    def stamp(self):
        return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(TIME))

    def test_time_namespace_level_and_text(self):
        assert self.line(a=5, log_format="a {a}") == f"{self.stamp()} [some.Class#info] a 5\n"

    def test_system_of_legacy_events(self):
        assert self.line(log_system="-") == f"{self.stamp()} [-] text\n"

    def test_continuation_lines_are_indented(self):
        assert self.line(log_format="a\nb\nc").endswith("] a\n\tb\n\tc\n")

    def test_failures_are_followed_by_the_indented_traceback(self):
        line = self.line(log_failure=failure())
        assert "] text\n\tTraceback (most recent call last):\n" in line
        assert "\tbuiltins.RuntimeError: boom\n" in line

    def test_structured_fields_are_not_shown(self):
        assert "secret" not in self.line(client_info={"x": "secret"}, y="secret")

    def test_o6_braces_that_are_no_format_are_text(self):
        line = self.line(log_format="{a} {", secret="secret")
        assert line == f"{self.stamp()} [some.Class#info] {{a}} {{\n"

    def test_event_without_text_is_no_line(self):
        assert self.line(log_format="") is None


class TestRedaction:
    """Quirk O9, decisions/secrets."""

    @pytest.mark.parametrize(
        ("header", "shown"),
        [
            ("", ""),
            ("vapid t=a.b.c, k=K", "vapid ..."),
            ("WebPush abc", "WebPush ..."),
            ("Bearer secret", "Bearer ..."),
            ("secret", "..."),
            ("se.cret x", "..."),
            ("averyverylongsecret x", "..."),
            (" secret", "..."),
            ("vapid ", "..."),
        ],
    )
    def test_authorization_keeps_the_scheme(self, header, shown):
        assert redact_authorization(header) == shown
        assert redact_authorization(shown) == shown

    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            ("/wpush/v2/gAAAA_-", "/wpush/v2/..."),
            ("/wpush/gAAAA", "/wpush/..."),
            ("https://h:1/wpush/v1/gAAAA?a=b", "https://h:1/wpush/v1/...?a=b"),
            ("/wpush/v1/gAAAA/extra", "/wpush/v1/..."),
            ("/wpush//v1/gAAAA", "/wpush/..."),
            ("/WPUSH/V1/gAAAA", "/WPUSH/V1/..."),
            ("/m/gAAAA==", "/m/..."),
            ("/v1/webpush/app/registration/abc", "/v1/webpush/app/registration/abc"),
            ("/status", "/status"),
            ("", ""),
        ],
    )
    def test_uri_keeps_the_path_up_to_the_token(self, uri, shown):
        assert redact_uri(uri) == shown
        assert redact_uri(shown) == shown

    def test_text(self):
        text = "POST /wpush/v1/gAAA HTTP/1.1 'authorization': 'vapid t=eyJhbGc.eyJhdWQ.sig-_, k=x'"
        assert (
            redact_text(text) == "POST /wpush/v1/... HTTP/1.1 'authorization': 'vapid t=..., k=x'"
        )
        assert redact_text("a/m/b and nothing else") == "a/m/... and nothing else"
        assert redact_text("1.2.3") == "1.2.3"

    def test_fields_by_name(self):
        assert redact("authorization", "vapid abc") == "vapid ..."
        assert redact("endpoint", "https://h/wpush/v1/abc") == "https://h/wpush/v1/..."
        assert redact("uri", None) is None
        assert redact("jwt_aud", "https://h") == "https://h"
        assert redact("jwt_secret", "x") == "..."
        assert redact("user_agent", "vapid abc") == "vapid abc"

    def test_json_lines(self):
        found = fields(
            log_format="at {endpoint}",
            endpoint="https://h/wpush/v1/gAAA",
            client_info={
                "authorization": "bearer abc",
                "uri": "/m/abc",
                "jwt_x": [1],
                "jwt_sub": "m",
            },
        )
        assert found["endpoint"] == "https://h/wpush/v1/..."
        assert found["message"] == "at https://h/wpush/v1/..."
        assert found["authorization"] == "bearer ..."
        assert found["uri"] == "/m/..."
        assert (found["jwt_x"], found["jwt_sub"]) == ("...", "m")

    def test_tracebacks(self):
        error = failure("bad /wpush/v1/gAAA")
        trace = fields(log_failure=error)["traceback"]
        assert "/wpush/v1/..." in trace
        assert "gAAA" not in trace
        text = PushLogger("A", log_format="text").text_format(event(log_failure=error))
        assert text is not None
        assert "/wpush/v1/..." in text
        assert "gAAA" not in text

    def test_text_lines(self):
        line = PushLogger("A", log_format="text").text_format(event(log_format="GET /m/gAAA now"))
        assert line is not None
        assert line.endswith("GET /m/... now\n")


class TestLevels:
    def test_events_below_the_level_are_dropped(self, publisher, log):
        logger = PushLogger("Autopush", log_level="warn", log_format="text")
        output = logger._output = io.StringIO()
        logger.start()
        for level in LogLevel.iterconstants():
            log.emit(level, level.name)
        shown = [line.split("] ")[1] for line in output.getvalue().splitlines()]
        assert shown == ["warn", "error", "critical"]

    @pytest.mark.parametrize(("level", "others"), [("debug", 5), ("info", 4), ("critical", 1)])
    def test_enabled_follows_the_level(self, publisher, level, others):
        logger = PushLogger("Autopush", log_level=level, log_output="none")
        logger.start()
        assert sum(enabled(each) for each in logging.LEVELS) == others
        assert enabled(level)
        logger.stop()
        assert enabled("debug")

    def test_everything_is_enabled_before_set_up(self, publisher):
        assert enabled("debug")

    def test_the_most_talkative_logger_decides(self, publisher):
        PushLogger("A", log_level="error", log_output="none").start()
        assert not enabled("info")
        PushLogger("B", log_level="info", log_output="none").start()
        assert enabled("info")
        assert not enabled("debug")

    def test_unknown_level_format_is_an_error(self):
        with pytest.raises(ValueError):
            PushLogger("A", log_level="loud")
        with pytest.raises(ValueError):
            PushLogger("A", log_format="xml")

    def test_events_without_level_count_as_info(self, publisher):
        logger = PushLogger("A", log_level="info", log_format="text")
        logger._output = io.StringIO()
        broken = event()
        del broken["log_level"]
        logger(broken)
        assert "text" in logger._output.getvalue()


class TestOutput:
    def test_one_write_and_one_flush_per_line(self, publisher, log):
        logger = PushLogger("Autopush")
        logger._output = mock.Mock()
        logger.start()
        log.info("hello")
        names = [call[0] for call in logger._output.mock_calls]
        assert names == ["write", "flush"]
        assert json.loads(logger._output.write.call_args[0][0])["Fields"]["message"] == "hello"

    def test_stdout(self, publisher, log, capsys):
        PushLogger("Autopush").start()
        log.info("hello")
        assert json.loads(capsys.readouterr().out)["Fields"]["message"] == "hello"

    def test_o20_stdout_is_utf8_whatever_the_locale_says(self, publisher, log, monkeypatch):
        raw = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
        PushLogger("Autopush", log_format="text").start()
        log.info("é \ud800")
        assert raw.getvalue().endswith("é \\ud800\n".encode())

    def test_none_writes_nothing(self, publisher, log, capsys):
        logger = PushLogger("Autopush", log_output="none")
        logger.start()
        log.critical("hello")
        assert logger._output is None
        assert capsys.readouterr() == ("", "")

    def test_file_is_appended_to_as_utf8(self, publisher, log, tmp_path):
        path = tmp_path / "log"
        path.write_text("before\n")
        logger = PushLogger("Autopush", log_format="text", log_output=str(path))
        logger.start()
        log.info("é \ud800")
        before, line = path.read_text(encoding="utf-8").splitlines()
        assert before == "before"
        assert line.endswith("é \\ud800")
        logger.stop()
        log.info("too late")
        assert "too late" not in path.read_text(encoding="utf-8")

    def test_file_that_can_not_be_opened_is_an_error(self, publisher, tmp_path):
        logger = PushLogger("Autopush", log_output=str(tmp_path / "no" / "log"))
        with pytest.raises(OSError):
            logger.start()

    def test_start_twice_writes_once_and_can_be_stopped_and_started_again(
        self, publisher, log, tmp_path
    ):
        path = tmp_path / "log"
        logger = PushLogger("Autopush", log_output=str(path))
        logger.start()
        logger.start()
        log.info("one")
        logger.stop()
        logger.stop()
        log.info("two")
        logger.start()
        log.info("three")
        logger.stop()
        messages = [json.loads(line)["Fields"]["message"] for line in path.open()]
        assert messages == ["one", "three"]

    def test_reopen_goes_on_in_a_new_file(self, publisher, log, tmp_path):
        path, old = tmp_path / "log", tmp_path / "log.1"
        logger = PushLogger("Autopush", log_format="text", log_output=str(path))
        logger.start()
        log.info("one")
        path.rename(old)
        log.info("two")
        logging.reopen()
        log.info("three")
        logger.stop()
        assert [line.rpartition(" ")[2] for line in old.read_text().splitlines()] == ["one", "two"]
        assert path.read_text().endswith("three\n")

    def test_reopen_that_fails_keeps_the_old_file(self, publisher, log, tmp_path):
        directory = tmp_path / "logs"
        directory.mkdir()
        moved = tmp_path / "moved"
        logger = PushLogger("Autopush", log_output=str(directory / "log"))
        logger.start()
        directory.rename(moved)
        with pytest.raises(OSError):
            logging.reopen()
        log.info("still here")
        logger.stop()
        assert "still here" in (moved / "log").read_text()

    def test_reopen_leaves_standard_output_alone(self, publisher, log, capsys):
        PushLogger("Autopush").start()
        PushLogger("Autopush", log_output="none").start()
        logging.reopen()
        log.info("hello")
        assert "hello" in capsys.readouterr().out

    def test_reopen_loses_no_line_of_other_threads(self, publisher, log, tmp_path):
        path = tmp_path / "log"
        logger = PushLogger("Autopush", log_output=str(path))
        logger.start()

        def talk():
            for number in range(300):
                log.info("line {number}", number=number)

        threads = [threading.Thread(target=talk) for _ in range(3)]
        for thread in threads:
            thread.start()
        names = []
        while any(thread.is_alive() for thread in threads):
            names.append(path.with_name(f"log.{len(names)}"))
            path.rename(names[-1])
            logging.reopen()
        logger.stop()
        count = sum(len(name.read_text().splitlines()) for name in [*names, path])
        assert count == 900

    def test_full_disk_does_not_reach_the_caller(self, publisher, log):
        logger = PushLogger("Autopush")
        logger._output = mock.Mock()
        logger._output.write.side_effect = OSError(28, "No space left on device")
        logger(event())
        logger._output.write.side_effect = None
        logger(event())
        assert logger._output.write.call_count == 2


class TestSetup:
    @pytest.fixture(autouse=True)
    def environment(self, publisher, monkeypatch):
        monkeypatch.setattr(logging, "instance_id_or_hostname", None)
        monkeypatch.setattr(logging, "get_ec2_instance_id", lambda: "i-0123")
        monkeypatch.setattr(logging.socket, "getfqdn", lambda: "fqdn.example")
        self.triggers: list[tuple] = []
        monkeypatch.setattr(
            reactor, "addSystemEventTrigger", lambda *args: self.triggers.append(args)
        )

    def test_starts_and_registers_its_stop(self, log, capsys):
        logger = PushLogger.setup_logging("Autopush", no_aws=True)
        log.info("hello")
        log.debug("quiet")
        line = json.loads(capsys.readouterr().out)
        assert line["Logger"] == f"Autopush-{__version__}"
        assert line["Hostname"] == "fqdn.example"
        assert self.triggers == [("after", "shutdown", logger.stop)]

    def test_host_name_is_the_instance_id_on_ec2(self, log, capsys):
        PushLogger.setup_logging("Autopush")
        log.info("hello")
        assert json.loads(capsys.readouterr().out)["Hostname"] == "i-0123"

    def test_host_name_is_the_fqdn_elsewhere(self, monkeypatch):
        monkeypatch.setattr(logging, "get_ec2_instance_id", lambda: None)
        assert logging.find_host_name() == "fqdn.example"

    def test_host_name_is_looked_up_once(self, monkeypatch):
        assert logging.find_host_name() == "i-0123"
        monkeypatch.setattr(logging, "get_ec2_instance_id", None)
        assert logging.find_host_name() == "i-0123"
        assert logging.find_host_name(no_aws=True) == "i-0123"

    def test_shutdown_waits_for_sentry(self, log):
        dsn = "http://key@127.0.0.1:9/1"
        logger = PushLogger.setup_logging("Autopush", log_output="none", sentry_dsn=dsn)
        assert logger.raven_client is not None
        assert ("before", "shutdown", logger.raven_client.idle) in self.triggers

    def test_firehose_is_flushed_at_exit_even_if_the_reactor_never_ran(self, log, monkeypatch):
        registered: list = []
        monkeypatch.setattr(logging, "atexit", mock.Mock(register=registered.append))
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        logger = PushLogger.setup_logging(
            "Autopush", log_output="none", firehose_delivery_stream="stream"
        )
        assert logger.firehose is not None
        assert registered == [logger.stop]
        logger.stop()


def test_begin_or_register_begins_once(publisher, monkeypatch):
    begun = []

    class Beginner:
        def beginLoggingTo(self, observers, **kwargs):
            begun.append((observers, kwargs))

    monkeypatch.setattr(logging, "globalLogBeginner", Beginner())
    first, second = mock.Mock(), mock.Mock()
    logging.begin_or_register(first, discardBuffer=True)
    logging.begin_or_register(second)
    assert begun == [([first], {"redirectStandardIO": False, "discardBuffer": True})]
    publisher({"log_format": "x"})
    assert second.call_count == 1
