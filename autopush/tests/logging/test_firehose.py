"""Log lines for Kinesis Firehose (spec/observability 6)."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from unittest import mock

import boto3
import pytest
from moto import mock_aws
from twisted.logger import LogLevel

from autopush.exceptions import InvalidConfig
from autopush.logging import events as logging, firehose as module
from autopush.logging.firehose import RECORD_SEPARATOR, FirehoseProcessor
from autopush.tests.e2e.harness import START_WITHIN, eventually

BUCKET, STREAM = "lines", "stream"


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """The end waits for the last batch, however busy the machine is."""
    monkeypatch.setattr(module, "STOP_WITHIN", 600)


@pytest.fixture
def events():
    found: list[dict] = []
    with mock.patch.object(module.log, "observer", found.append):
        yield found


class Client:
    """Notes requests; answers come from a list, then everything is taken."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests: list[list[str]] = []
        self.sent = threading.Event()

    def put_record_batch(self, DeliveryStreamName, Records):
        assert DeliveryStreamName == STREAM
        self.requests.append([record["Data"].decode() for record in Records])
        self.sent.set()
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        codes = answer or [None] * len(Records)
        return {
            "FailedPutCount": sum(code is not None for code in codes),
            "RequestResponses": [{"ErrorCode": code} if code else {} for code in codes],
        }


@pytest.fixture
def processor():
    """A processor without a thread, whose client is a :class:`Client`."""
    processor = FirehoseProcessor(STREAM)
    processor._client = Client()
    processor.PAUSE = 0
    yield processor
    processor.stop()


def run(processor):
    """Let the thread send all that was queued, and end."""
    processor.start()
    processor.stop()
    return processor._client.requests


def marked(*lines):
    return [RECORD_SEPARATOR + line for line in lines]


def test_lines_arrive(tmp_path):
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        boto3.client("firehose").create_delivery_stream(
            DeliveryStreamName=STREAM,
            ExtendedS3DestinationConfiguration={
                "RoleARN": "arn:aws:iam::123456789012:role/firehose",
                "BucketARN": f"arn:aws:s3:::{BUCKET}",
            },
        )
        processor = FirehoseProcessor(STREAM)
        processor.start()
        processor.process("one\n")
        processor.process('{"two": "é"}\n')
        processor.stop()
        keys = [row["Key"] for row in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
        body = b"".join(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys)
    assert body.decode() == '\x1eone\n\x1e{"two": "é"}\n'
    assert processor.lost == 0


def test_each_record_follows_a_separator(processor):
    processor.process("one\n")
    assert RECORD_SEPARATOR == "\x1e"
    assert run(processor) == [["\x1eone\n"]]


def test_500_records_are_a_batch(processor):
    for number in range(1001):
        processor.process(str(number))
    assert [len(request) for request in run(processor)] == [500, 500, 1]


def test_o12_4_mib_are_a_request_counted_in_bytes(processor):
    text = "é" * 500_000
    for _ in range(9):
        processor.process(text)
    requests = run(processor)
    assert [len(request) for request in requests] == [4, 4, 1]
    assert all(sum(len(r.encode()) for r in request) <= 4 * 1024 * 1024 for request in requests)


def test_o12_too_long_a_record_is_dropped(processor, events):
    for text in ("é" * 512_000, "short"):
        processor.process(text)
    assert run(processor) == [marked("short")]
    assert processor.lost == 1
    assert events[0]["lost"] == 1


def test_what_was_collected_is_sent_after_30_seconds(processor):
    assert processor.MAX_INTERVAL == 30
    processor.MAX_INTERVAL = 0.05
    processor.start()
    processor.process("one")
    assert processor._client.sent.wait(60)
    assert processor._client.requests == [marked("one")]


def test_interval_also_ends_under_steady_traffic(processor):
    """O11: the original computed a negative time to wait then, and its thread ended."""
    processor.MAX_INTERVAL = 0.02
    processor.start()
    requests = processor._client.requests
    numbers = itertools.count()

    def several_are_sent():
        processor.process(str(next(numbers)))
        return len(requests) > 1

    eventually(several_are_sent, every=0.005)
    assert processor._thread.is_alive()
    processor.stop()
    lines = [line for request in requests for line in request]
    assert lines == marked(*map(str, range(next(numbers))))


def test_nothing_is_sent_when_there_is_nothing(processor):
    processor.MAX_INTERVAL = 0.01
    processor.start()
    time.sleep(0.05)
    processor.stop()
    assert processor._client.requests == []


def test_o12_only_refused_records_are_sent_again(processor):
    processor._client.answers = [[None, "ServiceUnavailableException", None]]
    for text in "abc":
        processor.process(text)
    assert run(processor) == [marked("a", "b", "c"), marked("b")]
    assert processor.lost == 0


def test_three_attempts_then_they_are_lost(processor, events):
    processor._client.answers = [["Busy", None], ["Busy"], ["Busy"]]
    for text in "ab":
        processor.process(text)
    assert run(processor) == [marked("a", "b"), marked("a"), marked("a")]
    assert processor.lost == 1
    (event,) = events
    assert event["log_level"] is LogLevel.warn
    assert (event["lost"], event["error"]) == (1, "Busy")


def test_o11_failing_requests_do_not_end_the_thread(processor, events):
    processor.MAX_RECORD_BATCH = 1
    processor._client.answers = [OSError("no route")] * 3
    processor.process("lost")
    processor.process("sent")
    assert run(processor)[-1] == marked("sent")
    assert processor.lost == 1
    assert "no route" in events[0]["error"]


def test_o11_any_text_can_be_sent(processor):
    processor.process("é \ud800")
    assert run(processor) == [marked("é \\ud800")]


def test_odd_answer_counts_as_a_refusal(processor, events):
    processor._client.put_record_batch = lambda **kwargs: {"FailedPutCount": 1}
    processor.process("a")
    run(processor)
    assert processor.lost == 1


def test_o11_queue_is_bounded_and_never_waited_for(processor):
    processor._maxsize = 3
    for text in "abcde":
        processor.process(text)
    assert processor.lost == 2
    assert run(processor) == [marked("a", "b", "c")]
    assert FirehoseProcessor(STREAM)._maxsize == 10_000
    assert FirehoseProcessor(STREAM, maxsize=5)._maxsize == 5


def test_complaints_are_rare(processor, events):
    for _ in range(5):
        processor._complain("reason")
    assert len(events) == 1


def test_stop_does_not_wait_for_ever(processor, monkeypatch):
    monkeypatch.setattr(module, "STOP_WITHIN", 0.05)
    release = threading.Event()
    processor._client.put_record_batch = lambda **kwargs: release.wait() and {}
    processor.process("a")
    processor.start()
    thread = processor._thread
    processor.stop()
    assert thread.is_alive() and thread.daemon
    release.set()
    thread.join()


def test_constants_may_be_overridden_per_instance():
    one, other = FirehoseProcessor(STREAM), FirehoseProcessor(STREAM)
    one.MAX_RECORD_BATCH = 2
    assert (one.MAX_RECORD_BATCH, other.MAX_RECORD_BATCH) == (2, 500)


def test_no_region_is_a_configuration_error(monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(InvalidConfig, match="Firehose: You must specify a region"):
        FirehoseProcessor(STREAM)


def test_c10_failed_start_ends(tmp_path):
    """With Firehose configured and unreachable, a bad option still ends the process."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from autopush.__main__ import endpoint; sys.exit(endpoint())",
            *("--no_aws", "--firehose_stream_name", STREAM, "--crypto_key", "bad"),
        ],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "HOME": str(tmp_path),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        },
        cwd=tmp_path,
        capture_output=True,
        timeout=START_WITHIN,
        check=False,
    )
    assert done.returncode == 1
    line = json.loads(done.stdout.splitlines()[0])
    assert line["Fields"]["message"].startswith("Invalid crypto_key")


class TestLogger:
    """How :class:`autopush.logging.PushLogger` feeds it."""

    @pytest.fixture
    def logger(self, monkeypatch):
        monkeypatch.setattr(logging, "begin_or_register", lambda observer: None)
        logger = logging.PushLogger(
            "Autopush", "info", log_output="none", firehose_delivery_stream=STREAM
        )
        assert logger.firehose is not None
        logger.firehose._client = Client()
        return logger

    def test_lines_are_those_of_the_log_after_the_level(self, logger):
        logger.start()
        for level in (LogLevel.debug, LogLevel.info):
            logger({"log_format": "hello", "log_level": level, "log_time": 1.0})
        logger.stop()
        ((record,),) = logger.firehose._client.requests
        assert record[0] == RECORD_SEPARATOR
        assert json.loads(record[1:])["Fields"]["message"] == "hello"

    def test_name_is_documented_in_autopush_logging(self):
        assert logging.FirehoseProcessor is FirehoseProcessor
        with pytest.raises(AttributeError):
            logging.KinesisProcessor  # noqa: B018
