"""The three servers' console entries; ``python -m autopush`` is the standalone service."""

from __future__ import annotations

import sys

from autopush.libraries.bundled import provide

MISSING_CYCLONE = (
    "autopush: cyclone is not installed; install it with: pip install --no-deps cyclone==1.3"
)
"""Our wheel brings it along, an editable install does not (see setup.py)."""


def main() -> int | str | None:
    """Run the standalone service; the result is for :func:`sys.exit`."""
    return _run("StandaloneApplication")


def bare() -> int | str | None:
    """As :func:`main`, but without the default configuration files: options are all there is."""
    return _run("StandaloneApplication", use_files=False)


def connection() -> int | str | None:
    """Run a connection node; as :func:`main`."""
    return _run("ConnectionApplication")


def endpoint() -> int | str | None:
    """Run an endpoint node; as :func:`main`."""
    return _run("EndpointApplication")


def doctor() -> int | str | None:
    """Check the configuration of one of them; as :func:`main`."""
    if not provide("cyclone"):
        return MISSING_CYCLONE
    from autopush.doctor import main as check

    return check()


def _run(application: str, use_files: bool = True) -> int | str | None:
    if not provide("cyclone"):
        return MISSING_CYCLONE
    import autopush.main

    status: int | None = getattr(autopush.main, application).main(use_files=use_files)
    return status


if __name__ == "__main__":
    sys.exit(main())
