"""Where log events go: one line each, as JSON or for people.

Source: spec/observability 1 to 3, spec/python-api 4.1. Secrets are taken out here, whatever the
callers do (quirk O9).
"""

from __future__ import annotations

import atexit
import json
import socket
import sys
from collections.abc import Callable
from functools import lru_cache
from threading import RLock
from typing import TYPE_CHECKING, Any, TextIO

import orjson
from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
    globalLogBeginner,
    globalLogPublisher,
)
from zope.interface import implementer

from autopush import __version__
from autopush.addresses import get_ec2_instance_id
from autopush.logging import human
from autopush.logging.lengths import MAX_LINE, MAX_TRACEBACK, cut_fields, cut_line, cut_middle
from autopush.logging.redaction import hides_words, redact, redact_text
from autopush.types import JSONDict

if TYPE_CHECKING:
    from autopush.logging.firehose import FirehoseProcessor
    from autopush.logging.sentry import SentryClient

LogEvent = dict[str, Any]

log = Logger()


def __getattr__(name: str) -> Any:
    # Documented here (spec/python-api 4.1), but imported only by those who use it.
    if name == "FirehoseProcessor":
        from autopush.logging.firehose import FirehoseProcessor

        return FirehoseProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


LEVELS = {"debug": 0, "info": 1, "warn": 2, "error": 3, "critical": 4}

IGNORED_KEYS = frozenset(
    """
    factory failure format isError log_failure log_format log_flattened log_level log_legacy
    log_logger log_source log_system log_text log_time log_trace message message_type severity
    task_level time timestamp type why
    """.split()  # noqa: SIM905
)
"""Members of an event that are no fields of a JSON line."""

OPEN_FIELDS = frozenset(
    """
    connection_time connection_type direct_acked direct_storage existing_uaid nacks registers
    stored_acked stored_retrieved uaid_reset unregisters
    """.split()  # noqa: SIM905
)
"""Members that are numbers and words of ours, and most of the line about a session: nothing in them
has to be taken out."""

FIELD_TYPES = frozenset((str, list, int, float, bool))
"""Types of the values that are fields; not their subclasses."""

UNFORMATTABLE = "Unable to format event"
"""How Twisted begins the text of an event whose format doesn't fit; the whole event follows."""


# ----------------------------------------------------------------------------------- what's wanted

_started: list[PushLogger] = []
_threshold = 0
_for_people = False


def enabled(level: str) -> bool:
    """Tell whether anybody wants events of a level (``debug`` … ``critical``).

    Before logging is set up everything is wanted.
    """
    return LEVELS[level] >= _threshold


def for_people() -> bool:
    """Tell whether anybody reads lines of text: events of level info that only people need are made
    for them alone."""
    return _for_people


def _update_threshold() -> None:
    global _threshold, _for_people
    _threshold = min((logger.threshold for logger in _started), default=0)
    _for_people = any(logger.for_people for logger in _started)


# --------------------------------------------------------------------------------------- observer

began_logging = False


def begin_or_register(observer: Any, redirectStandardIO: bool = False, **kwargs: Any) -> None:
    """Send events to an observer; the first one also gets those of before.

    :param kwargs: to :meth:`twisted.logger.LogBeginner.beginLoggingTo`
    """
    global began_logging
    if began_logging:
        globalLogPublisher.addObserver(observer)
    else:
        began_logging = True
        globalLogBeginner.beginLoggingTo(
            [observer], redirectStandardIO=redirectStandardIO, **kwargs
        )


@implementer(ILogObserver)
class PushLogger:
    """Log observer writing one line per event.

    :param logger_name: first part of the name in JSON lines, the version is appended
    :param log_level: least level written: ``debug``, ``info``, ``warn``, ``error``, ``critical``
    :param log_format: ``json`` or ``text``
    :param log_output: ``stdout``, ``none``, or the name of a file to append to
    :param sentry_dsn: if not empty, failures of any level are sent there
    :param firehose_delivery_stream: if not empty, all lines are also sent there
    :param worker: number of this process, if it is one of several of a service: each line has it
    :raises ValueError: unknown level or format
    :raises InvalidConfig: Sentry or Firehose can't be used
    """

    def __init__(
        self,
        logger_name: str,
        log_level: str = "debug",
        log_format: str = "json",
        log_output: str = "stdout",
        sentry_dsn: str | None = None,
        firehose_delivery_stream: str | None = None,
        worker: int | None = None,
    ) -> None:
        if log_level not in LEVELS or log_format not in ("json", "text"):
            raise ValueError(f"Unknown log level or format: {log_level}, {log_format}")
        self.logger_name = f"{logger_name}-{__version__}"
        self.log_level = LogLevel.lookupByName(log_level)
        self.threshold = LEVELS[log_level]
        self.format_event: Callable[[LogEvent], str | None] = (
            self.json_format if log_format == "json" else self.text_format
        )
        self.for_people = log_format == "text" and self.threshold <= LEVELS["info"]
        self._worker = worker
        self._output: TextIO | None = None
        self._filename: str | None = None
        if log_output == "stdout":
            self._output = _utf8(sys.stdout)
        elif log_output != "none":
            self._filename = log_output
        # Events come from all threads, and also from finalisers while a line is being written.
        self._lock = RLock()
        # Both libraries take a tenth of a second and 10 MB: only for those who use them.
        self.raven_client: SentryClient | None = None
        if sentry_dsn:
            from autopush.logging.sentry import SentryClient

            self.raven_client = SentryClient(sentry_dsn)
        self.firehose: FirehoseProcessor | None = None
        if firehose_delivery_stream:
            from autopush.logging.firehose import FirehoseProcessor

            self.firehose = FirehoseProcessor(firehose_delivery_stream)

    def __call__(self, event: LogEvent) -> None:
        """Write an event, if its level is wanted and there is anywhere to write to."""
        if self.raven_client is not None and event.get("log_failure") is not None:
            self.raven_log(event)
        level = event.get("log_level", LogLevel.info)
        if LEVELS[level.name] < self.threshold or (self._output is None and self.firehose is None):
            return
        line = self.format_event(event)
        if not line:
            return
        if self.firehose is not None:
            self.firehose.process(line)
        with self._lock:
            if self._output is None:
                return
            try:
                self._output.write(line)
                self._output.flush()
            except OSError:
                # The disk is full or the reader gone: no reason to stop serving, and no place
                # left to tell.
                pass

    def raven_log(self, event: LogEvent) -> None:
        """Send the failure of an event to Sentry."""
        assert self.raven_client is not None
        try:
            self.raven_client.report(event)
        except Exception as exc:
            # Not as a failure: that would come here again.
            log.warn("Failure not sent to Sentry: {error}", error=repr(exc))

    # ---------------------------------------------------------------------------- formats

    def json_format(self, event: LogEvent) -> str:
        """Return an event as a line of JSON (spec/observability 2), of :data:`MAX_LINE` bytes and a
        traceback."""
        fields = _fields(event)
        for group in ("client_info", "timings"):
            entries = event.get(group)
            if isinstance(entries, dict):
                fields.update(_fields(entries))
        failure = event.get("log_failure")
        if failure is not None:
            fields["traceback"] = cut_middle(redact_text(failure.getTraceback()), MAX_TRACEBACK)
        fields["log_level"] = event.get("log_level", LogLevel.info).name
        form = event.get("log_format")
        # A word is shorter than any secret, but for keys that an operator may have made up.
        plain = type(form) is str and len(form) < 16 and form.isalpha() and not hides_words()
        fields["message"] = form if plain else redact_text(event_text(event))
        if self._worker is not None:
            fields["worker"] = self._worker
        failed = failure is not None or event.get("isError")
        line: JSONDict = {
            "EnvVersion": "2.0",
            "Type": "twisted:log",
            "Logger": self.logger_name,
            "Hostname": instance_id_or_hostname,
            # Microseconds are all a float holds.
            "Timestamp": round(event["log_time"] * 1e6) * 1000,
            "Severity": event.get("severity") or (3 if failed else 5),
            "Fields": fields,
        }
        text = _dump(line)
        if len(text) > MAX_LINE:
            line["Fields"] = {}
            line["Fields"] = cut_fields(fields, MAX_LINE - len(_dump(line)))
            text = _dump(line)
        return text

    def text_format(self, event: LogEvent) -> str | None:
        """Return an event as text, with the traceback of a failure (spec/observability 3)."""
        line = _human_line(event) if human.concerns(event) else _classic_line(event)
        if not line:
            return None
        if self._worker is not None:
            line = line.replace(" [", f" [worker {self._worker}: ", 1)
        limit = MAX_LINE + (MAX_TRACEBACK if event.get("log_failure") is not None else 0)
        return cut_line(redact_text(line), limit)

    # ------------------------------------------------------------------------- life cycle

    def start(self) -> None:
        """Open the file and start to observe; once is enough, again does no harm.

        :raises OSError: the file can't be opened
        """
        if self._filename and self._output is None:
            self._output = _append_to(self._filename)
        if self not in _started:
            if self.firehose is not None:
                self.firehose.start()
            _started.append(self)
            _update_threshold()
            begin_or_register(self)

    def stop(self) -> None:
        """Stop to observe and close the file."""
        if self in _started:
            observer: Any = self  # mypy can't tell that the interface is provided
            globalLogPublisher.removeObserver(observer)
            _started.remove(self)
            _update_threshold()
            if self.firehose is not None:
                self.firehose.stop()
        with self._lock:
            if self._filename and self._output is not None:
                self._output.close()
                self._output = None

    def reopen(self) -> None:
        """Go on in a new file of the same name, after the old one was renamed.

        :raises OSError: it can't be opened; the old one is used further
        """
        if self._filename and self._output is not None:
            new = _append_to(self._filename)
            with self._lock:
                old, self._output = self._output, new
                old.close()

    @classmethod
    def setup_logging(
        cls,
        logger_name: str,
        log_level: str = "info",
        log_format: str = "json",
        log_output: str = "stdout",
        sentry_dsn: str | None = None,
        firehose_delivery_stream: str | None = None,
        no_aws: bool = False,
        worker: int | None = None,
    ) -> PushLogger:
        """Start logging for this process, until its shutdown. Blocks for the host name.

        :param no_aws: don't ask EC2 for the instance id
        :raises ValueError, InvalidConfig: see :class:`PushLogger`
        :raises OSError: see :meth:`start`
        """
        from twisted.internet import reactor

        system: Any = reactor
        find_host_name(no_aws)
        logger = cls(
            logger_name,
            log_level,
            log_format,
            log_output,
            sentry_dsn,
            firehose_delivery_stream,
            worker,
        )
        logger.start()
        if logger.firehose is not None:
            # A start that fails before the reactor runs has something to say as well.
            atexit.register(logger.stop)
        if logger.raven_client is not None:
            system.addSystemEventTrigger("before", "shutdown", logger.raven_client.idle)
        # After, not before: what goes wrong while connections are saved must be seen.
        system.addSystemEventTrigger("after", "shutdown", logger.stop)
        return logger


def reopen() -> None:
    """Let all loggers go on in new files (SIGHUP, after the old ones were renamed).

    :raises OSError: one can't be opened; the old one is used further
    """
    for logger in _started:
        logger.reopen()


def _append_to(name: str) -> TextIO:
    return open(name, "a", encoding="utf-8", errors="backslashreplace")


def _utf8(stream: TextIO) -> TextIO:
    """Make a stream take any text, whatever the locale says (quirk O20)."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure:
        reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


def _fields(entries: JSONDict) -> JSONDict:
    return {
        name: value if name in OPEN_FIELDS else redact(name, value)
        for name, value in entries.items()
        if type(value) in FIELD_TYPES and name not in IGNORED_KEYS
    }


def _dump(line: JSONDict) -> str:
    """Return a line of ASCII JSON, also of what orjson refuses (huge integers, odd texts)."""
    try:
        content = orjson.dumps(line, default=repr, option=orjson.OPT_APPEND_NEWLINE)
        if content.isascii():
            return content.decode("ascii")
    except TypeError:
        pass
    return json.dumps(line, default=repr, skipkeys=True, separators=(",", ":")) + "\n"


# ------------------------------------------------------------------------------------------- text


def event_text(event: LogEvent) -> str:
    """Return an event's text; a format that doesn't fit the event is taken literally (O6)."""
    text = formatEvent(event)
    if text.startswith(UNFORMATTABLE):
        return formatEvent(_unformatted(event))
    return text


def _classic_line(event: LogEvent) -> str | None:
    """Return time, system and text, with the traceback of a failure; None: there is no text."""
    line = formatEventAsClassicLogText(event)
    if line and UNFORMATTABLE in line:
        line = formatEventAsClassicLogText(_unformatted(event))
    return line


def _human_line(event: LogEvent) -> str | None:
    """Return the same with what happened to whom; most are written in a third of Twisted's time."""
    form = event.get("log_format") or ""
    plain = type(form) is str and "{" not in form and "}" not in form
    text = human.tell(event, form if plain else event_text(event)) if form else ""
    if not text or "log_failure" in event or "log_system" in event:
        return _classic_line(_with_text(event, text))
    text = text.replace("\n", "\n\t")
    level = event.get("log_level", LogLevel.info).name
    system = f"{event.get('log_namespace', '-')}#{level}"
    return f"{_stamp(int(event['log_time']))} [{system}] {text}\n"


@lru_cache(1)
def _stamp(second: int) -> str:
    return formatTime(second)


def _unformatted(event: LogEvent) -> LogEvent:
    raw = event.get("log_format", "")
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    return _with_text(event, text)


def _with_text(event: LogEvent, text: str) -> LogEvent:
    return {**event, "log_format": "{log_text}", "log_text": text}


# ------------------------------------------------------------------------------------------- host

instance_id_or_hostname: str | None = None
"""Name of this machine in JSON lines and for Datadog."""


def find_host_name(no_aws: bool = False) -> str:
    """Return the EC2 instance id or the fully qualified host name; looked up once. Blocks."""
    global instance_id_or_hostname
    if instance_id_or_hostname is None:
        instance_id = None if no_aws else get_ec2_instance_id()
        instance_id_or_hostname = instance_id or socket.getfqdn()
    return instance_id_or_hostname
