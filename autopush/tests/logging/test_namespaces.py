"""Names by which operators filter log events (spec/observability 4): modules may move, these stay.

``Fields.log_namespace`` of a JSON line is the name of the class or module that logged.
"""

from __future__ import annotations

import pytest
from twisted.logger import Logger

from autopush import main
from autopush.app import service
from autopush.message.jwt import VerifyJWT
from autopush.metrics import datadog, prometheus, statsd
from autopush.router.webpush import WebPushRouter
from autopush.session import events
from autopush.web.base import ThreadedValidate
from autopush.web.dockerflow import VersionHandler
from autopush.web.health import HealthHandler
from autopush.web.log_check import LogCheckHandler
from autopush.web.message import MessageHandler
from autopush.web.nodes import NotificationHandler, RouterHandler
from autopush.web.registration import (
    ChannelRegistrationHandler,
    NewRegistrationHandler,
    SubRegistrationHandler,
    UaidRegistrationHandler,
)
from autopush.web.webpush import WebPushHandler

CLASSES = {
    ChannelRegistrationHandler: "autopush.web.registration.ChannelRegistrationHandler",
    HealthHandler: "autopush.web.health.HealthHandler",
    LogCheckHandler: "autopush.web.log_check.LogCheckHandler",
    MessageHandler: "autopush.web.message.MessageHandler",
    NewRegistrationHandler: "autopush.web.registration.NewRegistrationHandler",
    NotificationHandler: "autopush.websocket.NotificationHandler",
    RouterHandler: "autopush.websocket.RouterHandler",
    SubRegistrationHandler: "autopush.web.registration.SubRegistrationHandler",
    ThreadedValidate: "autopush.web.base.ThreadedValidate",
    UaidRegistrationHandler: "autopush.web.registration.UaidRegistrationHandler",
    VerifyJWT: "autopush.jwt.VerifyJWT",
    VersionHandler: "autopush.web.dockerflow.VersionHandler",
    WebPushHandler: "autopush.web.webpush.WebPushHandler",
    WebPushRouter: "autopush.router.webpush.WebPushRouter",
}

LOGGERS: dict[Logger, str] = {
    datadog.log: "autopush.metrics.DatadogMetrics",
    events.log: "autopush.websocket.PushServerProtocol",
    main.log: "autopush.main",
    prometheus.log: "autopush.metrics.PrometheusMetrics",
    service.log: "autopush.main",
    statsd.log: "autopush.metrics.TwistedMetrics",
}


@pytest.mark.parametrize(("cls", "name"), CLASSES.items())
def test_classes(cls, name):
    assert cls.log.namespace == name


@pytest.mark.parametrize(("log", "name"), LOGGERS.items())
def test_modules(log, name):
    assert log.namespace == name
