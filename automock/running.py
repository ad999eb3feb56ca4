"""Starts stand-ins together: in this process's loop, or in a thread of their own for tests."""

from __future__ import annotations

import asyncio
import importlib
import json
import tempfile
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from automock import STAND_INS
from automock.certs import Authority
from automock.control import Control, all_options
from automock.standin import StandIn


class Automock:
    """Some stand-ins and their control API.

    :param names: keys of :data:`automock.STAND_INS`; none: all
    :param directory: for certificates and keys
    """

    def __init__(
        self,
        names: Sequence[str],
        directory: Path,
        host: str = "127.0.0.1",
        control_port: int = 0,
    ) -> None:
        self.authority = Authority(directory)
        self.stand_ins: dict[str, StandIn] = {}
        for name in names or list(STAND_INS):
            module, _, cls = STAND_INS[name].partition(":")
            make = getattr(importlib.import_module(module), cls)
            self.stand_ins[name] = make(directory, self.authority, host)
        self.control = Control(self.stand_ins, host, control_port)

    async def start(self) -> None:
        """Start all."""
        for stand_in in self.stand_ins.values():
            await stand_in.start()
        await self.control.start()

    async def stop(self) -> None:
        """Stop all."""
        await self.control.stop()
        for stand_in in self.stand_ins.values():
            await stand_in.stop()

    def options(self) -> dict[str, str]:
        """Return the daemons' options as they are written on the command line."""
        return {
            name: json.dumps(value) if isinstance(value, dict | list) else str(value)
            for name, value in all_options(self.stand_ins).items()
        }


class Background:
    """Stand-ins in a thread with its own loop: ``with Background("apns") as mock: ...``.

    ``mock["apns"]`` is the stand-in; its script may be used from here.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._directory = tempfile.TemporaryDirectory(prefix="automock-")
        self.directory = Path(self._directory.name)
        self.automock: Automock

    def __enter__(self) -> Background:
        self._thread.start()
        self.automock = Automock(self._names, self.directory)
        self.run(self.automock.start())
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(self.automock.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._directory.cleanup()

    def __getitem__(self, name: str) -> Any:
        return self.automock.stand_ins[name]

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the stand-ins' loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)
