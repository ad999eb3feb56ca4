"""Type aliases shared by the package."""

from typing import Any

JSONDict = dict[str, Any]
