"""``python -m automock [NAME ...]``: run stand-ins until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import signal
import tempfile
from pathlib import Path

from automock import STAND_INS
from automock.running import Automock

READY = "automock is ready"


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="automock", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of: {', '.join(STAND_INS)}; default: all"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--control_port", type=int, default=0, help="of the control API")
    parser.add_argument("--ini", metavar="FILE", help="also write the options to this file")
    ns = parser.parse_args(args)
    unknown = set(ns.names) - set(STAND_INS)
    if unknown:
        parser.error(f"no such stand-in: {', '.join(sorted(unknown))}")
    return ns


async def run(ns: argparse.Namespace, directory: Path) -> None:
    """Run until SIGINT or SIGTERM."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    automock = Automock(ns.names, directory, ns.host, ns.control_port)
    await automock.start()
    options = automock.options()
    for name, stand_in in automock.stand_ins.items():
        print(f"{name}: {stand_in.url}")
    print(f"control: {automock.control.url}")
    print("Options for the daemons:")
    for name, value in options.items():
        print(f"  --{name}={shlex.quote(value)}")
    for stand_in in automock.stand_ins.values():
        for name, value in stand_in.environment().items():
            print(f"  {name}={shlex.quote(value)}")
    if ns.ini:
        text = "".join(f"{name} = {value}\n" for name, value in options.items())
        await asyncio.to_thread(Path(ns.ini).write_text, text, "utf-8")
    print(READY, flush=True)
    await ended.wait()
    await automock.stop()


def main(args: list[str] | None = None) -> None:
    """Console entry."""
    ns = parse_args(args)
    with tempfile.TemporaryDirectory(prefix="automock-") as directory, contextlib.suppress(OSError):
        asyncio.run(run(ns, Path(directory)))


if __name__ == "__main__":
    main()
