"""Stand-in for a statsd server: takes datagrams and shows them, raw and taken apart.

What it saw are objects of ``line`` and, where the line can be read, ``name``, ``value``, ``type``
and ``tags``. It never answers, so there is nothing to script.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, ClassVar

from automock.certs import Authority
from automock.standin import StandIn

LINE = re.compile(
    r"(?P<name>[^:|@#]+):(?P<value>-?[0-9.e+-]+)\|(?P<type>c|g|ms)(?:\|#(?P<tags>.+))?"
)
"""``<name>:<value>|<type>`` with DogStatsD's tags, and nothing else."""


class Statsd(StandIn):
    """A UDP socket."""

    name: ClassVar[str] = "statsd"

    def __init__(
        self, directory: Path, authority: Authority, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__(directory, authority, host, port)
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        """Bind the socket; sets :attr:`port`."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self), local_addr=(self.host, self.port)
        )
        self.port = self._transport.get_extra_info("sockname")[1]

    async def stop(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()

    def options(self) -> dict[str, Any]:
        """Return the daemons' options."""
        return {"statsd_host": self.host, "statsd_port": self.port}

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"udp://{self.host}:{self.port}"

    @property
    def lines(self) -> list[str]:
        """The datagrams so far, oldest first."""
        return [seen["line"] for seen in self.script.requests]


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, stand_in: Statsd) -> None:
        self.stand_in = stand_in

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.stand_in.script.saw(parse(data.decode("utf-8", "replace")))


def parse(line: str) -> dict[str, Any]:
    """Take a datagram apart."""
    match = LINE.fullmatch(line)
    if match is None:
        return {"line": line}
    tags = match["tags"].split(",") if match["tags"] else []
    return {
        "line": line,
        "name": match["name"],
        "value": float(match["value"]),
        "type": match["type"],
        "tags": tags,
    }
