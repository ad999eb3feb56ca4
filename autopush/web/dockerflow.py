"""The Dockerflow routes: version and load-balancer heartbeat (spec/http-endpoint 10)."""

from __future__ import annotations

import json

from twisted.internet.threads import deferToThread

from autopush import __version__
from autopush.web.base import BaseWebHandler

_BUILT_IN = {"source": "", "version": __version__, "commit": "", "build": ""}


class VersionHandler(BaseWebHandler):
    """``/__version__``: the file ``version.json`` of the working directory."""

    def authenticate_peer_cert(self) -> bool:
        """Open to everybody."""
        return True

    def _get_version(self) -> str:
        """The file's content.

        :raises OSError: it can't be read
        """
        with open("version.json", encoding="utf-8") as file:
            return file.read()

    async def get(self) -> None:
        """The file as it is; without one, what this package knows (spec/configuration C19)."""
        try:
            version = await deferToThread(self._get_version)
        except FileNotFoundError:
            version = json.dumps(_BUILT_IN)
        except (OSError, UnicodeDecodeError) as error:
            self.log.error(
                "Could not display version.json file content {error}",
                error=str(error),
                client_info=self._client_info,
            )
            self.clear()
            self.set_status(500)
            self.finish()
            return
        self.set_header("Content-Type", "application/json")
        self.finish(version)


class LBHeartbeatHandler(BaseWebHandler):
    """``/__lbheartbeat__``: the process answers."""

    def authenticate_peer_cert(self) -> bool:
        """Open to everybody."""
        return True

    def get(self) -> None:
        """An empty 200."""
