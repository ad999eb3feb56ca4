"""Stand-in for GCM's HTTP server, as Google documented it until 2019.

``POST /gcm/send`` with JSON. A script may name errors: ``{"error": "NotRegistered"}``, a new id:
``{"registration_id": "new"}``, or a status.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

from automock.httpstandin import HTTPStandIn, size_of, texts
from automock.web import Reply, Request

MAX_TTL = 2_419_200
PAYLOAD_LIMIT = 4096


class GCM(HTTPStandIn):
    """The server, with one sender."""

    name = "gcm"
    path: ClassVar[str] = "/gcm/send"
    sender_id = "12345"
    server_key = "automock-gcm-key"
    DEFAULTS: ClassVar[dict[str, Any]] = {"unregistered": [], "moved": {}}
    """Settings: tokens that are gone, and those with a new name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ids = itertools.count(1)

    def options(self) -> dict[str, Any]:
        sender = {"auth": self.server_key, "ca_file": str(self.authority.ca_file)}
        return {
            "senderid_list": {self.sender_id: sender},
            "gcm_endpoint": f"{self.host}:{self.port}{self.path}",
        }

    def message(self, request: Request) -> Reply:
        refused = self.check(request)
        if refused is not None:
            return refused
        content = request.json()
        ids = content.get("registration_ids") or [content.get("to")]
        return self.results([self._result(token, content) for token in ids])

    def named(self, more: Mapping[str, Any]) -> Reply | None:
        if "error" in more:
            return self.results([{"error": more["error"]}])
        if "registration_id" in more:
            new = more["registration_id"]
            return self.results([{"message_id": self.new_id(), "registration_id": new}])
        return None

    def check(self, request: Request) -> Reply | None:
        """Return the refusal of a bad request, None for a good one."""
        if request.path != self.path or request.method != "POST":
            return Reply(404, body=b"Not Found")
        if request.headers.get("authorization") != f"key={self.server_key}":
            return Reply(401, body=b"Unauthorized")
        if not request.headers.get("content-type", "").startswith("application/json"):
            return Reply(400, body=b"Missing registration")
        try:
            content = request.json()
        except ValueError:
            return Reply(400, body=b"JSON_PARSING_ERROR")
        return self.check_content(content)

    def check_content(self, content: Any) -> Reply | None:
        """As :meth:`check`, for the body."""
        ids = content.get("registration_ids") if isinstance(content, dict) else None
        if not isinstance(ids, list) or not 1 <= len(ids) <= 1000:
            return Reply(400, body=b'Missing "registration_ids" field')
        unknown = set(content) - {
            "registration_ids", "collapse_key", "time_to_live", "delay_while_idle", "dry_run",
            "data", "restricted_package_name",
        }  # fmt: skip
        return Reply(400, body=f"Unknown fields {unknown}".encode()) if unknown else None

    def _result(self, token: Any, content: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(token, str) or not token:
            return {"error": "MissingRegistration"}
        ttl = content.get("time_to_live", MAX_TTL)
        if type(ttl) is not int or not 0 <= ttl <= MAX_TTL:
            return {"error": "InvalidTtl"}
        data = content.get("data", {})
        if not texts(data) or any(key in ("from", "gcm", "google") for key in data):
            return {"error": "InvalidDataKey"}
        if size_of(data) > PAYLOAD_LIMIT + 1024:
            return {"error": "MessageTooBig"}
        if token in self.settings["unregistered"]:
            return {"error": "NotRegistered"}
        result = {"message_id": self.new_id()}
        if token in self.settings["moved"]:
            result["registration_id"] = self.settings["moved"][token]
        return result

    def new_id(self) -> str:
        """Return the id of a message."""
        return f"0:{next(self._ids):016d}%automock"

    def results(self, results: list[dict[str, Any]]) -> Reply:
        """Return the answer to a good request."""
        return Reply(
            json={
                "multicast_id": next(self._ids),
                "success": sum("message_id" in one for one in results),
                "failure": sum("error" in one for one in results),
                "canonical_ids": sum("registration_id" in one for one in results),
                "results": results,
            }
        )
