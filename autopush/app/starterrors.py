"""Why a start failed, in one line for the operator (spec/configuration C8)."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator

from OpenSSL import SSL
from twisted.internet.error import CannotListenError

from autopush.app.standalone import StartError
from autopush.exceptions import InvalidConfig, StoreError
from autopush.options import places
from autopush.ssl import TLSFileError, openssl_reasons

EXPECTED = (InvalidConfig, StartError, StoreError, CannotListenError, SSL.Error, OSError)
"""What an operator can do something about; anything else is a mistake of ours."""


def start_error_text(error: BaseException | None, ns: Namespace | None = None) -> str:
    """Describe the error in one line.

    :param ns: the options: where the one that it is about was given is told, too
    """
    text = _text(error)
    return places.with_place(text, ns, *_blamed(error, text, ns))


def _blamed(error: BaseException | None, text: str, ns: Namespace | None) -> Iterator[str]:
    """Yield the options that an error may be about, the likeliest first."""
    if isinstance(error, CannotListenError):
        port = error.port
        yield from places.listening(os.fsdecode(port) if isinstance(port, bytes) else port, ns)
    elif isinstance(error, EXPECTED):
        if isinstance(error, (InvalidConfig, StartError)) and not isinstance(error, TLSFileError):
            yield from places.named(text, ns)
        yield from places.containing(text, ns)


def _text(error: BaseException | None) -> str:
    if isinstance(error, CannotListenError):
        text = _listen_error(error)
    elif isinstance(error, SSL.Error):
        text = f"Can't use the TLS key or certificate: {openssl_reasons(error)}"
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"Can't use {error.filename}: {error.strerror}"
    elif isinstance(error, EXPECTED):
        text = str(error)
    else:
        text = f"Unexpected error: {type(error).__name__}: {error}"
    return " ".join(text.split())


def _listen_error(error: CannotListenError) -> str:
    reason = error.socketError
    if isinstance(reason, OSError):
        code = reason.errno
        # getaddrinfo has numbers of its own, all negative
        reason = os.strerror(code) if code is not None and code > 0 else reason.strerror
    elif error.interface is None:
        reason = "in use by another process"
    if error.interface is None:
        path = os.fsdecode(error.port) if isinstance(error.port, bytes) else error.port
        return f"Can't listen on unix:{path}: {reason}"
    host = f"[{error.interface}]" if ":" in error.interface else error.interface or "*"
    return f"Can't listen on {host}:{error.port}: {reason}"


def is_expected(error: BaseException | None) -> bool:
    """Whether the text says it all, so that no traceback is needed."""
    return isinstance(error, EXPECTED)


def say_error(prog: str, error: BaseException | None, ns: Namespace | None = None) -> None:
    """Write the line to standard error.

    :param ns: as for :func:`start_error_text`
    """
    print(f"{prog}: error: {start_error_text(error, ns)}", file=sys.stderr, flush=True)
