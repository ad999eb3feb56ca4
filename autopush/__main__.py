"""The three servers' console entries; ``python -m autopush`` is the standalone service."""

from __future__ import annotations

import sys
from importlib.util import find_spec

MISSING_CYCLONE = (
    "autopush: cyclone is not installed; install it with: pip install --no-deps cyclone==1.3"
)
"""pip can't resolve cyclone: its metadata pins Twisted and pyOpenSSL releases of 2019."""


def main() -> int | str | None:
    """Run the standalone service; the result is for :func:`sys.exit`."""
    return _run("StandaloneApplication")


def connection() -> int | str | None:
    """Run a connection node; as :func:`main`."""
    return _run("ConnectionApplication")


def endpoint() -> int | str | None:
    """Run an endpoint node; as :func:`main`."""
    return _run("EndpointApplication")


def doctor() -> int | str | None:
    """Check the configuration of one of them; as :func:`main`."""
    if find_spec("cyclone") is None:
        return MISSING_CYCLONE
    from autopush.doctor import main as check

    return check()


def _run(application: str) -> int | str | None:
    if find_spec("cyclone") is None:
        return MISSING_CYCLONE
    import autopush.main

    status: int | None = getattr(autopush.main, application).main()
    return status


if __name__ == "__main__":
    sys.exit(main())
