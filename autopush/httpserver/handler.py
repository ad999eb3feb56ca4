"""The request handler all others derive from: cyclone's, with its traps removed.

Importing cyclone replaces ``FileLogObserver.emit`` for the whole process, so every module takes
its cyclone names from here, where that is undone.

What differs from ``cyclone.web.RequestHandler`` (1.3):

* ``async def`` handlers (and ``prepare``) are awaited;
* a client that goes away while the handler runs ends nothing: the handler runs on, and what it
  writes is dropped; only then is ``on_connection_close`` called;
* ``HTTPError(reason=)`` is honoured; 204 and 304 carry no Content-Length; ``flush`` works;
* 429 and 503 say when to come back: ``Retry-After``;
* errors have an empty body and are logged (spec/http-endpoint 2, 13);
* path arguments arrive decoded: the application does that;
* the fixed cost of a request is a quarter.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
import uuid
import warnings
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.log import FileLogObserver

from autopush import clock
from autopush.libraries.bundled import provide

_emit = FileLogObserver.emit
provide("cyclone")
with warnings.catch_warnings():  # of escape sequences, where it was not compiled before
    warnings.simplefilter("ignore", SyntaxWarning)
    import cyclone.web
from cyclone.util import ObjectDict  # noqa: E402
from cyclone.web import Application, HTTPError  # noqa: E402

FileLogObserver.emit = _emit  # type: ignore[method-assign]

from autopush.httpserver.connection import (  # noqa: E402
    REASONS,
    RETRY_AFTER,
    RETRY_LATER,
    SERVER,
    http_date,
)
from autopush.logging import redact_authorization, redact_uri  # noqa: E402
from autopush.waiters import Waiters  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from autopush.config import AutopushConfig
    from autopush.db.interface import Store
    from autopush.httpserver.request import Request
    from autopush.metrics import IMetrics
    from autopush.types import JSONDict

__all__ = ["Application", "BaseHandler", "HTTPError", "PageNotFoundHandler"]

_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_HEADER_VALUE_LIMIT = 4000
"""Characters of one response header; longer ones are programming errors."""

_STATUS_LINES = {code: f" {code} {reason}" for code, reason in REASONS.items()}
_ENTITY_HEADERS = (
    "Allow",
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Range",
    "Content-Type",
    "Last-Modified",
)
_TLS_CHALLENGE = 'Transport mode="tls-client-certificate"'


class BaseHandler(cyclone.web.RequestHandler):
    """One request and its answer.

    Handler methods are ``get``, ``post``, ... as usual, plain or ``async def``; they get the
    groups of the route's pattern. If they leave the answer unfinished, it is finished for them.

    :ivar conf: the application's configuration
    :ivar db: its store
    :ivar metrics: its metrics
    """

    log = Logger()
    ui: ClassVar[ObjectDict] = ObjectDict()
    no_keep_alive = False
    application: Any
    request: Request
    conf: AutopushConfig
    db: Store
    metrics: IMetrics
    path_args: tuple[Any, ...] = ()
    path_kwargs: dict[str, Any] = {}
    _transforms = ()
    _chunked = False
    _finish_waiters: Waiters[str | None] | None = None
    _client_info_cache: JSONDict | None = None

    def __init__(self, application: Any, request: Request, **kwargs: Any) -> None:
        self.application = application
        self.request = request
        self.conf = application.conf
        self.db = application.db
        self.metrics = application.metrics
        self._headers_written = self._finished = False
        self._auto_finish = True
        self.clear()
        self.initialize(**kwargs)

    def initialize(self, **kwargs: Any) -> None:
        """Called once before the request is handled."""
        self._start_time = clock.now()
        self._timings: dict[str, float] = {}

    # ---- what handlers use

    @property
    def _client_info(self) -> JSONDict:
        """Fields of spec/http-endpoint 13.1 for log events; made when first asked for."""
        info = self._client_info_cache
        if info is None:
            info = self._client_info_cache = self._init_info()
        return info

    def _init_info(self) -> JSONDict:
        request = self.request
        headers = request.headers
        return {
            "ami_id": self.conf.ami_id,
            "request_id": str(uuid.uuid4()),
            "user_agent": headers.get("user-agent", ""),
            "remote_ip": headers.get("x-forwarded-for", request.remote_ip),
            "authorization": redact_authorization(headers.get("authorization", "")),
            "message_ttl": headers.get("ttl"),
            "uri": redact_uri(request.uri),
            "python_version": sys.version,
        }

    def authenticate_peer_cert(self) -> bool:
        """Where ``client_certs`` is configured, let only their owners through.

        Others are answered 401 here (spec/http-endpoint 9, spec/configuration 7).

        :returns: whether to go on
        """
        known = self.conf.client_certs
        if known is None:
            return True
        shown = peer_certificate(self.request.connection.transport)  # type: ignore[union-attr]
        if shown is not None:
            digest, common_name = shown
            name = known.get(digest)
            if name is not None:
                self._client_info.update(
                    tls_auth=name, tls_auth_sha256=digest, tls_auth_cn=common_name
                )
                return True
            self._client_info.update(tls_failed_sha256=digest, tls_failed_cn=common_name)
        self.log.warn("Failed TLS auth", client_info=self._client_info)
        self.set_status(401)
        self.set_header("WWW-Authenticate", _TLS_CHALLENGE)
        self._finish_error(401)
        return False

    # ---- the answer

    def clear(self) -> None:
        """Reset headers, status and body."""
        self._headers: dict[str, str] = {
            "Server": SERVER,
            "Content-Type": "text/html; charset=UTF-8",
            "Date": http_date(),
        }
        self._list_headers: list[tuple[str, str]] = []
        self.set_default_headers()
        self._write_buffer: list[bytes] = []
        self._status_code = 200
        self._reason = "OK"

    def set_status(self, status_code: int, reason: str | None = None) -> None:
        """Set the status; ``reason`` is needed for codes HTTP doesn't know.

        :raises ValueError: unknown status, or control characters in the reason
        """
        if reason is None:
            reason = REASONS.get(status_code)
            if reason is None:
                raise ValueError(f"unknown status code {status_code}")
        elif _UNSAFE.search(reason):
            raise ValueError("unsafe reason phrase")
        self._status_code = status_code
        self._reason = reason

    def set_header(self, name: str, value: Any) -> None:
        """Set a response header.

        :raises ValueError: control characters, or more than 4000 characters
        """
        if type(value) is not str or len(value) > _HEADER_VALUE_LIMIT or _UNSAFE.search(value):
            value = self._convert_header_value(value)
        self._headers[name] = value

    def _convert_header_value(self, value: Any) -> str:
        if type(value) is not str:
            return str(super()._convert_header_value(value))
        if len(value) > _HEADER_VALUE_LIMIT or _UNSAFE.search(value):
            raise ValueError("unsafe header value")
        return value

    def write(self, chunk: Any) -> None:
        """Append to the body; a dict becomes JSON.

        :raises RuntimeError: after :meth:`finish`
        """
        if self._finished:
            raise RuntimeError("write() after finish()")
        if isinstance(chunk, dict):
            self._headers["Content-Type"] = "application/json"
            chunk = json.dumps(chunk).replace("</", "<\\/")
        self._write_buffer.append(chunk.encode("utf-8") if isinstance(chunk, str) else chunk)

    def flush(self, include_footers: bool = False) -> None:
        """Send what was written so far; the rest follows in chunks (or until the end, HTTP/1.0)."""
        body = b"".join(self._write_buffer)
        self._write_buffer = []
        data = b""
        if not self._headers_written:
            self._headers_written = True
            if "Content-Length" not in self._headers:
                if self.request.supports_http_1_1():
                    self._chunked = True
                    self._headers["Transfer-Encoding"] = "chunked"
                else:
                    self.request.keep_alive = False
            data = self._generate_headers()
        if self.request.method != "HEAD":
            if self._chunked:
                body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
                if include_footers:
                    body += b"0\r\n\r\n"
            data += body
        if data:
            self.request.write(data)

    def finish(self, chunk: Any = None) -> None:
        """Complete the answer.

        :raises RuntimeError: when it is complete already
        """
        if self._finished:
            raise RuntimeError("finish() called twice")
        if chunk is not None:
            self.write(chunk)
        if self._headers_written:
            self.flush(include_footers=True)
        else:
            self._send()
        self._finished = True
        self.request.finish()
        log_function = self.application.log_function
        if log_function is not None:
            log_function(self)
        self.on_finish()
        if self._finish_waiters is not None:
            self._finish_waiters.fire(None)

    def _send(self) -> None:
        body = b"".join(self._write_buffer)
        self._write_buffer = []
        headers = self._headers
        method = self.request.method
        if self._status_code == 200 and method in ("GET", "HEAD") and "Etag" not in headers:
            etag = f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"'
            headers["Etag"] = etag
            if etag in self.request.headers.get("if-none-match", ""):
                self.set_status(304)
        if self._status_code == 304:
            body = b""
            for name in _ENTITY_HEADERS:
                headers.pop(name, None)
        elif self._status_code == 204:
            body = b""
            headers.pop("Content-Length", None)
        else:
            headers["Content-Length"] = str(len(body))
        head = self._generate_headers()
        self._headers_written = True
        self.request.write(head if method == "HEAD" else head + body)

    def _generate_headers(self) -> bytes:
        request = self.request
        headers = self._headers
        if not request.keep_alive or request.connection.no_keep_alive:  # type: ignore[union-attr]
            headers["Connection"] = "close"
        elif request.version != "HTTP/1.1":
            headers["Connection"] = "Keep-Alive"
        code = self._status_code
        if code in RETRY_LATER:
            headers.setdefault("Retry-After", str(RETRY_AFTER))
        reason = self._reason
        line = _STATUS_LINES[code] if reason is REASONS.get(code) else f" {code} {reason}"
        lines = [request.version + line]
        for name, value in headers.items():
            lines.append(f"{name}: {value}")
        for name, value in self._list_headers:
            lines.append(f"{name}: {value}")
        for cookie in getattr(self, "_new_cookie", {}).values():
            lines.append("Set-Cookie: " + cookie.OutputString(None))
        lines.append("\r\n")
        return "\r\n".join(lines).encode("utf-8")

    # ---- running the handler

    def _execute(
        self, transforms: Any, *args: Any, **kwargs: Any
    ) -> Coroutine[Deferred[Any], Any, Any] | None:
        """Called by the application with the decoded groups of the route.

        :returns: what is left to be done, for :meth:`_go_on`
        """
        self.path_args = args
        self.path_kwargs = kwargs
        if self.no_keep_alive:
            self.request.connection.no_keep_alive = True  # type: ignore[union-attr]
        try:
            if self.request.method not in self.SUPPORTED_METHODS:
                raise HTTPError(405)
            prepared = self.prepare()
            method: Any = getattr(self, self.request.method.lower(), self.default)
            if prepared is not None:
                return self._prepare_and_call(prepared, method)
            work = None if self._finished else method(*args, **kwargs)
        except Exception:
            self._execute_failure(Failure())
            return None
        if work.__class__ is CoroutineType:
            return work
        if inspect.isawaitable(work):
            return _await(work)
        if not self._finished:
            self._execute_success()
        return None

    async def _prepare_and_call(self, prepared: Any, method: Any) -> None:
        await prepared
        if not self._finished:
            work = method(*self.path_args, **self.path_kwargs)
            if inspect.isawaitable(work):
                await work

    def _go_on(self, result: Any, rest: Coroutine[Deferred[Any], Any, Any]) -> None:
        """Run until the end or the next Deferred that has not fired.

        Twisted's ``Deferred.fromCoroutine`` does more (a result, cancelling, context variables),
        which no handler needs and every request would pay for.

        :param result: of the last Deferred
        """
        try:
            if isinstance(result, Failure):
                awaited = result.throwExceptionIntoGenerator(rest)
            else:
                awaited = rest.send(result)
        except StopIteration:
            if not self._finished:
                self._execute_success()
        except Exception:
            self._execute_failure(Failure())
        else:
            awaited.addBoth(self._go_on, rest)

    def _execute_success(self) -> None:
        if self._auto_finish and not self._finished:
            try:
                self.finish()
            except Exception:
                self._execute_failure(Failure())

    def _execute_failure(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, HTTPError) and not self._finished:
            self.send_error(error.status_code, exception=error)
        else:
            self.send_error(500, failure=failure)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer with an error instead of what was written so far.

        :param kwargs: ``exception`` (an HTTPError) or ``failure`` (anything unexpected); both
            are passed on to :meth:`write_error`
        """
        if self._headers_written:
            self._log_error(status_code, kwargs.get("failure"))
            if not self._finished:
                # Half an answer is out: only a broken connection tells the client.
                self._finished = True
                self.request.connection.transport.abortConnection()  # type: ignore[union-attr]
            return
        self.clear()
        error = kwargs.get("exception")
        try:
            self.set_status(status_code, getattr(error, "reason", None))
        except ValueError:
            status_code = 500
            self.set_status(500)
        try:
            self.write_error(status_code, **kwargs)
        except Exception:
            self.log.failure("Unhandled error writing an error answer")
        if not self._finished:
            self.finish()

    def write_error(self, code: int, **kwargs: Any) -> None:
        """Log the error and answer with an empty body (spec/http-endpoint 2)."""
        self._log_error(code, kwargs.get("failure"))
        if code == 405:
            self.set_header("Allow", ", ".join(self.allowed_methods()))
        self._finish_error(code)

    def _finish_error(self, code: int) -> None:
        """Complete the answer to a request that no method of the handler has answered."""
        self.finish()

    def _log_error(self, code: int, failure: Failure | None) -> None:
        if failure is not None:
            self.log.failure(
                "Error in handler: {code}", failure, code=code, client_info=self._client_info
            )
        elif code < 500:
            # The client's mistake: nothing that the operator has to look after.
            self.log.info("Request refused: {code}", code=code, client_info=self._client_info)
        else:
            self.log.error("Error in handler: {code}", code=code, client_info=self._client_info)

    @classmethod
    def allowed_methods(cls) -> list[str]:
        """The methods this handler implements."""
        return [name for name in cls.SUPPORTED_METHODS if hasattr(cls, name.lower())]

    def connection_lost(self, reason: Failure) -> None:
        """The client went away before the answer was finished."""
        if not self._finished:
            try:
                self.on_connection_close()
            except Exception:
                self.log.failure("Unhandled error after the client went away")
            self._fire_finished(reason.getErrorMessage())

    def notifyFinish(self) -> Deferred[str | None]:
        """Fires with None when the answer is finished, with a text when the client went away."""
        if self._finished:
            return succeed(None)
        if self._finish_waiters is None:
            self._finish_waiters = Waiters()
        return self._finish_waiters.wait()

    def _fire_finished(self, result: str | None) -> None:
        if self._finish_waiters is not None:
            self._finish_waiters.fire(result)


class PageNotFoundHandler(BaseHandler):
    """404 for every method: the answer of applications without a route of their own for that."""

    def prepare(self) -> None:
        raise HTTPError(404)

    def write_error(self, code: int, **kwargs: Any) -> None:
        if code != 404:
            super().write_error(code, **kwargs)
            return
        self.finish("<html><title>404: Not Found</title><body>404: Not Found</body></html>")


def peer_certificate(transport: Any) -> tuple[str, str | None] | None:
    """The TLS client's certificate: SHA-256 fingerprint (upper case, colons) and common name.

    :returns: None if there is no TLS, or the client showed none
    """
    if not ISSLTransport.providedBy(transport):
        return None
    try:
        certificate = transport.getHandle().get_peer_certificate(as_cryptography=True)
    except ValueError:  # OpenSSL is less strict about what it takes
        return "unreadable", None
    if certificate is None:
        return None
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        names = []
    common_name = str(names[0].value) if names else None
    return certificate.fingerprint(SHA256()).hex(":").upper(), common_name


async def _await(result: Any) -> None:
    await result
