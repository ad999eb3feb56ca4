"""Libraries that come inside our wheel: their metadata keeps anybody from depending on them.

A working tree has none; there they are installed as any other, by ``requirements.txt``.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).with_name("bundle")
"""Not in a working tree: setup.py puts it into the wheel."""


def provide(name: str) -> bool:
    """Make a library importable.

    One that is installed comes first: it may be there for somebody else, too.

    :returns: whether it is there
    """
    if find_spec(name) is None and (FOLDER / name).is_dir():
        sys.path.append(str(FOLDER))
    return find_spec(name) is not None
