"""``python -m autopush``: the standalone service."""

from __future__ import annotations

import sys
from importlib.util import find_spec

MISSING_CYCLONE = (
    "autopush: cyclone is not installed; install it with: pip install --no-deps cyclone==1.3"
)
"""pip can't resolve cyclone: its metadata pins Twisted and pyOpenSSL releases of 2019."""


def main() -> int | str | None:
    """Run the service; the result is for :func:`sys.exit`."""
    if find_spec("cyclone") is None:
        return MISSING_CYCLONE
    from autopush.main import StandaloneApplication

    return StandaloneApplication.main()


if __name__ == "__main__":
    sys.exit(main())
