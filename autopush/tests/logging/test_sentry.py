"""Failures for Sentry (spec/observability 5): what arrives, decoded by a stand-in."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any
from unittest import mock

import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from automock.running import Background
from autopush import __version__
from autopush.exceptions import InvalidConfig
from autopush.logging import events as logging, sentry
from autopush.logging.sentry import SentryClient, scrubbed

reactor: Any = _reactor

SECRETS = {
    "token": "gAAAAABkHLw_secret_token",
    "jwt": "eyJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwIn0.secretsignature",
    "header": "vapid t=secretheader, k=abc",
    "variable": "secret-variable-of-a-frame",
    "argument": "--crypto_key=secret-argument",
    "message": "gAAAA_secret_message_id",
}


PATIENCE = 600
"""Seconds for events to arrive, so that none is given up because the machine is busy."""


def fail(text="boom"):
    variable = SECRETS["variable"]
    raise RuntimeError(text if variable else "")


def failure(text="boom"):
    try:
        fail(text)
    except RuntimeError:
        return Failure()


class SentryCase(TestCase):
    """A logger at level critical, whose only outlet is Sentry."""

    @classmethod
    def setUpClass(cls):
        cls.background = Background("sentry")
        cls.background.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.background.__exit__(None, None, None)

    def setUp(self):
        self.sentry = self.background["sentry"]
        self.sentry.reset()
        self.patch(sentry, "TIMEOUT", PATIENCE)
        self.patch(sentry, "LAST_WORDS", PATIENCE)
        self.patch(sys, "argv", ["autoendpoint", SECRETS["argument"]])
        publisher = LogPublisher()
        self.patch(logging, "begin_or_register", publisher.addObserver)
        self.patch(logging, "globalLogPublisher", publisher)
        self.logger = logging.PushLogger(
            "Autopush", "critical", log_output="none", sentry_dsn=self.sentry.dsn
        )
        self.logger.start()
        self.addCleanup(self.logger.stop)
        self.client: Any = self.logger.raven_client
        self.patch(self.client.transport, "_agent", self.client.transport._agent)
        self.addCleanup(self.client.transport._agent._pool.closeCachedConnections)
        self.log = Logger(namespace="some.Class", observer=publisher)

    def arrived(self):
        """Fires with all events, when none is on its way."""
        # Events start their way in the reactor's next turn.
        done = deferLater(reactor, 0, self.client.idle)
        return done.addCallback(lambda _: self.sentry.events)


class TestEvents(SentryCase):
    @inlineCallbacks
    def test_exception_with_type_value_and_stack(self):
        self.log.failure("Unexpected {what}", failure(), what="error")
        (event,) = yield self.arrived()
        (value,) = event["exception"]["values"]
        self.assertEqual((value["type"], value["value"]), ("RuntimeError", "boom"))
        frames = [frame["function"] for frame in value["stacktrace"]["frames"]]
        self.assertEqual(frames, ["failure", "fail"])
        self.assertIn("raise RuntimeError", value["stacktrace"]["frames"][1]["context_line"])

    @inlineCallbacks
    def test_extra_release_and_level(self):
        client_info = {"request_id": "r", "status": 5, "user_agent": "UA"}
        self.log.failure("Unexpected {what}", failure(), client_info=client_info)
        (event,) = yield self.arrived()
        extra = event["extra"]
        self.assertEqual(set(extra), {"log_format", "log_namespace", "client_info"})
        self.assertIn("Unexpected {what}", extra["log_format"])
        self.assertIn("some.Class", extra["log_namespace"])
        self.assertIn("request_id", json.dumps(extra["client_info"]))
        self.assertEqual(event["release"], __version__)
        self.assertEqual(event["level"], 40)
        self.assertTrue(event["server_name"])
        self.assertNotIn("breadcrumbs", event)

    @inlineCallbacks
    def test_client_info_is_null_without_a_request(self):
        self.log.failure("x", failure())
        (event,) = yield self.arrived()
        self.assertIsNone(event["extra"]["client_info"])

    @inlineCallbacks
    def test_tags(self):
        self.log.failure("x", failure(), status_code=500, errno=999)
        (event,) = yield self.arrived()
        self.assertEqual(
            event["tags"], {"log_namespace": "some.Class", "status_code": "500", "errno": "999"}
        )

    @inlineCallbacks
    def test_failure_without_traceback_has_the_current_stack(self):
        self.log.failure("x", Failure(ValueError("bare")))
        (event,) = yield self.arrived()
        self.assertEqual(event["extra"]["no_failure_tb"], "True")
        functions = [frame["function"] for frame in event["stacktrace"]["frames"]]
        self.assertEqual(functions[-1], self.id().rpartition(".")[2])
        self.assertEqual(event["exception"]["values"][-1]["value"], "bare")

    @inlineCallbacks
    def test_failure_cleaned_of_its_frames(self):
        broken = failure()
        broken.cleanFailure()
        self.log.failure("x", broken)
        (event,) = yield self.arrived()
        self.assertEqual(event["exception"]["values"][-1]["value"], "boom")

    @inlineCallbacks
    def test_failures_of_every_level_and_nothing_else(self):
        for level in LogLevel.iterconstants():
            self.log.emit(level, "failed", log_failure=failure(level.name))
            self.log.emit(level, "said")
        events = yield self.arrived()
        values = [event["exception"]["values"][-1]["value"] for event in events]
        self.assertEqual(sorted(values), ["critical", "debug", "error", "info", "warn"])

    @inlineCallbacks
    def test_same_failure_again_is_another_event(self):
        """raven's own check would drop it, and remember it for ever."""
        broken = failure()
        for _ in range(3):
            self.log.failure("x", broken)
        events = yield self.arrived()
        self.assertEqual(len({event["event_id"] for event in events}), 3)
        self.assertEqual(len(self.client.context.exceptions_to_skip), 0)

    @inlineCallbacks
    def test_failure_in_a_thread(self):
        thread = threading.Thread(target=lambda: self.log.failure("x", failure("threaded")))
        thread.start()
        thread.join()
        (event,) = yield self.arrived()
        self.assertEqual(event["exception"]["values"][-1]["value"], "threaded")

    @inlineCallbacks
    def test_authentication(self):
        self.log.failure("x", failure())
        yield self.arrived()
        auth = self.sentry.script.requests[0]["auth"]
        self.assertEqual(auth["sentry_client"], "raven-python/6.10.0")


class TestNothingSecret(SentryCase):
    @inlineCallbacks
    def test_in_a_whole_event(self):
        text = "at https://h/wpush/v2/{token} with {jwt}".format(**SECRETS)
        info = {
            "authorization": SECRETS["header"],
            "uri": "/wpush/v2/" + SECRETS["token"],
            "message_id": SECRETS["message"],
            "version": SECRETS["message"],
            "jwt_secret": SECRETS["jwt"],
            "jwt_aud": "https://h",
        }
        try:
            try:
                fail(text)
            except RuntimeError as exc:
                raise ValueError(text) from exc
        except ValueError:
            self.log.failure(text.replace("{", "{{"), client_info=info)
        (event,) = yield self.arrived()
        whole = json.dumps(event)
        for name, secret in SECRETS.items():
            for part in secret.split():
                if "secret" in part:
                    self.assertNotIn(part, whole, name)
        self.assertEqual(len(event["exception"]["values"]), 2)
        self.assertIn("/wpush/v2/...", event["exception"]["values"][0]["value"])
        self.assertNotIn("sys.argv", whole)
        self.assertNotIn("vars", event["exception"]["values"][0]["stacktrace"]["frames"][0])

    def test_scrubbing_changes_nothing_for_the_log(self):
        info = {"authorization": "vapid x", "message_id": "m", "uaid_hash": "u", "ami_id": None}
        before = dict(info)
        self.assertEqual(
            scrubbed(info),
            {"authorization": "...", "message_id": "...", "uaid_hash": "u", "ami_id": None},
        )
        self.assertEqual(info, before)
        self.assertIsNone(scrubbed("text"))


class TestTrouble(SentryCase):
    def setUp(self):
        super().setUp()
        self.complaints: list[dict] = []
        self.patch(sentry.log, "observer", self.complaints.append)

    @inlineCallbacks
    def test_refused_event_is_logged_without_a_failure(self):
        self.sentry.script.add({"status": 403})
        self.log.failure("x", failure())
        yield self.arrived()
        (event,) = self.complaints
        self.assertEqual(event["error"], "Sentry answered 403")
        self.assertIs(event["log_level"], LogLevel.warn)
        self.assertNotIn("log_failure", event)

    @inlineCallbacks
    def test_complaints_are_rare(self):
        self.sentry.script.add({"status": 500, "times": 5})
        for _ in range(5):
            self.log.failure("x", failure())
        yield self.arrived()
        self.assertEqual(len(self.complaints), 1)

    @inlineCallbacks
    def test_nobody_listens(self):
        self.client.remote.store_endpoint = "http://127.0.0.1:9/api/1/store/"
        self.log.failure("x", failure())
        yield self.arrived()
        self.assertEqual(len(self.complaints), 1)
        self.assertEqual(self.client.transport.sending, 0)

    @inlineCallbacks
    def test_no_answer_is_waited_for_only_so_long(self):
        self.patch(sentry, "TIMEOUT", 0.05)
        self.sentry.script.add({"action": "hang"})
        self.log.failure("x", failure())
        yield self.arrived()
        self.assertEqual(len(self.complaints), 1)

    @inlineCallbacks
    def test_events_on_their_way_are_bounded(self):
        self.patch(sentry, "MAX_SENDING", 2)
        for _ in range(5):
            self.log.failure("x", failure())
        events = yield self.arrived()
        self.assertEqual(len(events), 2)
        self.assertEqual(len(self.complaints), 1)

    @inlineCallbacks
    def test_shutdown_waits_for_the_last_words_but_not_long(self):
        self.patch(sentry, "LAST_WORDS", 0.05)
        stuck: Deferred[None] = Deferred()
        self.patch(self.client.transport, "idle", lambda: stuck)
        yield self.client.idle()

    def test_mistake_of_raven_does_not_stop_the_line(self):
        events: list[dict] = []
        self.patch(logging.log, "observer", events.append)
        self.patch(self.client, "report", mock.Mock(side_effect=TypeError("raven")))
        self.log.failure("x", failure())
        self.assertIn("raven", events[0]["error"])
        self.assertNotIn("log_failure", events[0])


@pytest.mark.parametrize("dsn", ["nonsense", "http://secret@host", "ftp://key@host/1", "://"])
def test_bad_dsn_is_a_configuration_error_that_does_not_show_it(dsn):
    with pytest.raises(InvalidConfig) as caught:
        SentryClient(dsn)
    assert str(caught.value) == "Invalid SENTRY_DSN"


def test_no_dsn_no_client():
    for dsn in None, "":
        assert logging.PushLogger("A", sentry_dsn=dsn).raven_client is None
