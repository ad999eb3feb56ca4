"""A push service for other people's tests.

::

    def test_welcome(push):
        browser = push.browser()
        welcome(browser.subscribe())          # the code under test sends something
        assert browser.wait().text == "Hello"

``push`` is a fixture of pytest (:mod:`autopush.testing.plugin`); elsewhere :class:`PushService` is
a context manager. ``python -m autopush.testing -- npm test`` runs the tests of any other language.

The service is a process of its own, ``autopush_standalone --ephemeral --control``; all of this
talks to its control API. Nothing here imports the service itself, or Twisted.
"""

from autopush.testing.browser import Browser, Message, NoMessage
from autopush.testing.client import ControlError, Push, Request
from autopush.testing.service import PushService, StartFailed

__all__ = [
    "Browser",
    "ControlError",
    "Message",
    "NoMessage",
    "Push",
    "PushService",
    "Request",
    "StartFailed",
]
