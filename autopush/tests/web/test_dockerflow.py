"""Version and load-balancer heartbeat (spec/http-endpoint 10, spec/configuration 10)."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from unittest import mock

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from autopush import __version__
from autopush.config import AutopushConfig
from autopush.http import EndpointHTTPFactory
from autopush.tests.httpserver.support import Answer, Wire, observe
from autopush.web import dockerflow


class DockerflowTest(SynchronousTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory.name)
        self.patch(dockerflow, "deferToThread", maybeDeferred)
        self.errors: list[str] = []
        observe(self, self.log)

    def log(self, event):
        if event["log_level"].name == "error":
            self.errors.append(event["log_format"].format(**event))

    def get(self, path: str) -> Answer:
        conf = AutopushConfig(hostname="localhost", statsd_host=None)
        return Wire(EndpointHTTPFactory(conf, None, {}, clock=Clock())).request("GET", path)

    def test_version_file_is_sent_as_it_is(self):
        Path("version.json").write_text('{ "version":"x\xe9" }\n', encoding="utf-8")
        answer = self.get("/__version__")
        self.assertEqual((answer.status, answer.body), (200, b'{ "version":"x\xc3\xa9" }\n'))
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_without_file_the_own_version(self):
        answer = self.get("/__version__")
        self.assertEqual(json.loads(answer.body)["version"], __version__)
        self.assertEqual(self.errors, [])

    def test_unreadable_file(self):
        Path("version.json").mkdir()
        answer = self.get("/__version__")
        self.assertEqual((answer.status, answer.body), (500, b""))
        self.assertEqual(answer.headers["content-type"], "text/html; charset=UTF-8")
        self.assertNotIn("strict-transport-security", answer.headers)
        (error,) = self.errors
        self.assertTrue(error.startswith("Could not display version.json file content "))

    def test_file_which_is_not_text(self):
        Path("version.json").write_bytes(b"\xff")
        self.assertEqual(self.get("/__version__").status, 500)

    def test_open_may_be_replaced(self):
        with mock.patch("autopush.web.dockerflow.open", create=True, side_effect=OSError("no")):
            self.assertEqual(self.get("/__version__").status, 500)

    def test_load_balancer_heartbeat(self):
        answer = self.get("/__lbheartbeat__")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["content-type"], "text/html; charset=UTF-8")
