"""``/v1/err``: makes the service log an error, to see where it ends up (spec/http-endpoint 10)."""

from __future__ import annotations

from autopush.exceptions import LogCheckError
from autopush.web.base import BaseWebHandler


class LogCheckHandler(BaseWebHandler):
    """Answers 418 after logging, or 404 for kinds of error it doesn't know."""

    _refusal_told = True

    def authenticate_peer_cert(self) -> bool:
        """Open to everybody."""
        return True

    def get(self, err_type: str | None = None) -> None:
        """``err_type`` containing ``error`` (the default) or ``crit`` chooses the event."""
        kind = (err_type or "error").lower()
        if "error" in kind:
            self.log.error(
                "Test Error Message", status_code=418, errno=0, client_info=self._client_info
            )
            self._write_response(418, 999, message="ERROR:Success", error="Test Error")
        elif "crit" in kind:
            try:
                raise LogCheckError("Critical")
            except LogCheckError:
                self.log.failure(
                    "Test Critical Message",
                    status_code=418,
                    errno=0,
                    client_info=self._client_info,
                )
            self._write_response(418, 999, message="FAILURE:Success", error="Test Failure")
        else:
            self._write_response(404, 0, message="Unknown kind of error")
