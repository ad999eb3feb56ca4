"""Log lines for Kinesis Firehose (spec/observability 6).

Lines are collected by a thread and sent in batches. Nobody waits for it: the queue is bounded, what
doesn't fit is dropped and counted, and the thread ends with the process.
"""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from twisted.logger import Logger

from autopush.exceptions import InvalidConfig

RECORD_SEPARATOR = "\u001e"
"""Precedes each line, so that consumers find the next one."""

MAX_REQUEST_SIZE = 4 * 1024 * 1024
"""Bytes of all records of one request: Firehose takes 4 MiB."""

MAX_RECORD_SIZE = 1000 * 1024
"""Bytes of one record: Firehose takes 1,000 KiB."""

MAX_RECORD_BATCH = 500
"""Records of one request: Firehose takes 500."""

MAX_INTERVAL = 30
"""Seconds a line waits for others."""

MAX_QUEUE = 10_000
"""Lines that wait for the thread: about 10 MB."""

ATTEMPTS = 3
"""Requests a record may be part of."""

PAUSE = 0.5
"""Seconds before the second attempt, twice as long before the third."""

STOP_WITHIN = 3.0
"""Seconds the end of the process waits for the last batch."""

COMPLAIN_EVERY = 60.0
"""Seconds between two log lines about lost ones."""

log = Logger()


class FirehoseProcessor:
    """Delivers lines to a delivery stream.

    :param stream_name: of the delivery stream
    :param maxsize: lines that may wait; 0: :data:`MAX_QUEUE`
    :raises InvalidConfig: there is no region to send to
    """

    RECORD_SEPARATOR = RECORD_SEPARATOR
    MAX_REQUEST_SIZE = MAX_REQUEST_SIZE
    MAX_RECORD_SIZE = MAX_RECORD_SIZE
    MAX_RECORD_BATCH = MAX_RECORD_BATCH
    MAX_INTERVAL: float = MAX_INTERVAL
    PAUSE = PAUSE

    def __init__(self, stream_name: str, maxsize: int = 0) -> None:
        self._stream_name = stream_name
        self._maxsize = maxsize or MAX_QUEUE
        # A SimpleQueue may be put into while it is being put into: by a finaliser that logs.
        self._records: SimpleQueue[str | None] = SimpleQueue()
        self._prepped: list[bytes] = []
        self._size = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._complain_next = 0.0
        self.lost = 0
        """Lines that were dropped or refused."""
        try:
            # Retries are ours: botocore's could outlast the process' shutdown.
            config = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})
            self._client = boto3.client("firehose", config=config)
        except BotoCoreError as exc:
            raise InvalidConfig(f"Can't use Firehose: {exc}") from exc

    def start(self) -> None:
        """Start the thread."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._worker, name="firehose", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what is left and end the thread; waits at most :data:`STOP_WITHIN` seconds."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            self._records.put(None)
            thread.join(STOP_WITHIN)

    def process(self, record: str) -> None:
        """Queue a line; never waits."""
        if self._records.qsize() < self._maxsize:
            self._records.put(self.RECORD_SEPARATOR + record)
        else:
            self.lost += 1

    # ---------------------------------------------------------------------- the thread

    def _worker(self) -> None:
        due = time.monotonic() + self.MAX_INTERVAL
        while True:
            try:
                left = due - time.monotonic()
                record = self._records.get(timeout=left) if left > 0 else ""
                if record is None:
                    self._send_record_batch()
                    return
                if not record:
                    self._send_record_batch()
                if not record or self._add(record):
                    due = time.monotonic() + self.MAX_INTERVAL
            except Empty:
                pass  # it is due now
            except Exception as exc:
                # A line or two less, but not the end of all that follow (O11).
                self._complain(repr(exc))

    def _add(self, record: str) -> bool:
        """Take a line into the batch; whether one was sent."""
        data = record.encode("utf-8", "backslashreplace")
        if len(data) > self.MAX_RECORD_SIZE:
            self.lost += 1
            self._complain("a line is too long")
            return False
        sent = False
        if self._size + len(data) > self.MAX_REQUEST_SIZE:
            self._send_record_batch()
            sent = True
        self._prepped.append(data)
        self._size += len(data)
        if len(self._prepped) >= self.MAX_RECORD_BATCH:
            self._send_record_batch()
            sent = True
        return sent

    def _send_record_batch(self) -> None:
        """Send the batch; the part of it that is refused, again."""
        records = [{"Data": data} for data in self._prepped]
        self._prepped = []
        self._size = 0
        error = ""
        for attempt in range(ATTEMPTS):
            if not records:
                return
            if attempt:
                self._stopping.wait(self.PAUSE * attempt)
            try:
                response = self._client.put_record_batch(
                    DeliveryStreamName=self._stream_name, Records=records
                )
            except Exception as exc:
                error = repr(exc)
            else:
                records, error = _refused(records, response)
        if records:
            self.lost += len(records)
            self._complain(error)

    def _complain(self, error: str) -> None:
        now = time.monotonic()
        if now >= self._complain_next:
            self._complain_next = now + COMPLAIN_EVERY
            log.warn(
                "Log lines are lost on their way to Firehose, {lost} so far: {error}",
                lost=self.lost,
                error=error[:500],
            )


def _refused(
    records: list[dict[str, bytes]], response: dict[str, Any]
) -> tuple[list[dict[str, bytes]], str]:
    """Return the records that were not taken, and one reason (O12)."""
    if not response.get("FailedPutCount"):
        return [], ""
    results = response.get("RequestResponses") or []
    if len(results) != len(records):
        return records, "the answer doesn't fit the request"
    left = [
        record for record, result in zip(records, results, strict=True) if result.get("ErrorCode")
    ]
    codes = {str(result["ErrorCode"]) for result in results if result.get("ErrorCode")}
    return left, ", ".join(sorted(codes))
