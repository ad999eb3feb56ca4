"""What of libraries' insides is relied on, and in which versions it is known.

Nothing else of a library that begins with an underscore is used. Where there is a plain way to do
without, another version gets that (:func:`known`); setup.py pins the others.
"""

from __future__ import annotations

from typing import NamedTuple


class Inside(NamedTuple):
    """What is used of one library."""

    versions: tuple[str, ...]
    """In which it is what we take it for."""
    names: dict[str, str]
    """Private names, separated by blanks, by the module they are in."""
    plain: str
    """What other versions get; empty: nothing, they are not installed."""


INSIDES: dict[str, Inside] = {
    "autobahn": Inside(
        ("26.10.2",),
        {
            "autobahn.websocket.protocol": (
                "_wskey _isMessageCompressed _perMessageCompress _connectionLost _dataReceived"
                " _max_message_size_exceeded _invalid_payload _onOpen _onMessage _onPing _onPong"
                " _sendAutoPing"
            ),
            "autobahn.twisted.websocket": "_closeConnection",
        },
        "Autobahn's own protocol: more memory and CPU for each connection",
    ),
    "cyclone": Inside(
        ("1.3",),
        {"cyclone.web": "_execute_success _execute_failure _convert_header_value"},
        "",
    ),
    "datadog": Inside(
        ("0.56.0",),
        {"datadog.threadstats.base": "_disabled"},
        "it may try to send once more when the interpreter exits",
    ),
    "h2": Inside(
        ("4.4.1",),
        {"h2.connection": "_receive_goaway_frame", "h2.frame_buffer": "_data"},
        "",
    ),
    "raven": Inside(
        ("6.10.0",),
        {"raven.base": "_failed_send _log_failed_submission"},
        "",
    ),
    "Twisted": Inside(
        ("26.10.0",),
        {
            "twisted.internet.abstract": "_writeDisconnected _writeDisconnecting _tempDataBuffer",
            "twisted.internet.tcp": "_type _aborting _shouldShutdown",
            "twisted.protocols.haproxy._wrapper": (
                "_wrapper _proxyInfo HAProxyProtocolWrapper HAProxyWrappingFactory"
            ),
            "twisted.python.threadpool": "_team",
            "twisted.web._newclient": "_producer",
        },
        "writes wait for the next turn of the event loop, a malformed PROXY header may be logged"
        " as an error, no figure of calls that wait for a thread",
    ),
}
"""By the name of the distribution."""


def known(library: str, version: str) -> bool:
    """Whether a library's insides are what we take them for in its installed version."""
    return version in INSIDES[library].versions
