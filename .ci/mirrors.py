"""Which tests mirror which module.

``autopush/a/b.py`` has ``autopush/tests/a/test_b.py``, a package ``autopush/a`` may have
``autopush/tests/a/test_a.py`` or ``autopush/tests/test_a.py``. What else there is of a module is in
``test_b_more.py``, unless that mirrors a module ``b_more``. The others are in :data:`ELSEWHERE`.
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = "autopush"

ELSEWHERE: dict[str, str] = {
    "__main__": "test_main",
    "app/process": "app/test_lifecycle",
    "app/service": "app/test_lifecycle",
    "db/__init__": "db/sqlite/test_store",
    "db/dynamodb/client": "db/dynamodb/test_faults",
    "db/dynamodb/direct": "db/dynamodb/test_http",
    "db/dynamodb/end": "db/dynamodb/test_move",
    "db/dynamodb/inorder": "db/dynamodb/test_blocking",
    "db/dynamodb/preflight": "db/dynamodb/test_faults",
    "db/interface": "db/test_memory_store",
    "db/offline": "scripts/test_drop_user",
    "db/sqlite/errors": "db/sqlite/test_store",
    "db/sqlite/messages": "db/sqlite/test_store",
    "db/sqlite/records": "db/sqlite/test_store",
    "db/sqlite/schema": "db/sqlite/test_file",
    "db/sqlite/writer": "db/sqlite/test_store",
    "doctor/bridges": "doctor/test_doctor",
    "doctor/certificates": "doctor/test_doctor",
    "doctor/network": "doctor/test_doctor",
    "doctor/options": "doctor/test_doctor",
    "doctor/report": "doctor/test_doctor",
    "exceptions": "test_python_api",
    "httpserver/application": "http/test_applications",
    "httpserver/request": "httpserver/test_parser",
    "logging/__init__": "logging/test_events",
    "metrics/__init__": "metrics/test_interface",
    "net/http2pool": "net/test_http2",
    "options/bridges/adm": "options/test_bridges",
    "options/bridges/apns": "options/test_bridges",
    "options/bridges/declaration": "options/test_bridges",
    "options/bridges/fcm": "options/test_bridges",
    "options/bridges/gcm": "options/test_bridges",
    "options/commands": "options/test_parser",
    "options/standalone": "options/test_parser",
    "options/tables": "options/test_parser",
    "router/__init__": "options/test_bridges",
    "router/fcmv1client": "router/test_fcm_v1",
    "router/gcmclient": "router/test_gcm",
    "router/interface": "options/test_bridges",
    "session/timers": "session/test_moves",
    "session/ends": "session/test_drain",
    "session/errors": "docs/test_docs",
    "session/events": "logging/test_namespaces",
    "session/peers": "session/test_cleanup",
    "session/settle": "session/test_acks",
    "session/stats": "session/test_cleanup",
    "session/wire": "session/test_cleanup",
    "types": "test_python_api",
    "web/prometheus": "metrics/test_prometheus",
    "web/schemas_registration": "web/test_registration",
    "websocket/factory": "websocket/test_wire_time",
    "websocket/members": "websocket/test_overrides",
    "websocket/site": "http/test_applications",
}
"""Modules that are tested through a neighbour, and its tests. Grows only by what is taken out of
another module; what is new has tests of its own."""


def is_face(module: Path) -> bool:
    """Whether it holds nothing to test: imports, texts, types."""
    return not any(
        isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
    )


def modules(tree: Path) -> list[Path]:
    """Return the modules of the package that have something to test."""
    found = sorted((tree / PACKAGE).rglob("*.py"))
    return [path for path in found if "tests" not in path.parts and not is_face(path)]


def key(tree: Path, module: Path) -> str:
    """Return a module's key in :data:`ELSEWHERE`."""
    return module.relative_to(tree / PACKAGE).with_suffix("").as_posix()


def own(tree: Path, module: Path) -> list[Path]:
    """Return the test files of a module's own name."""
    folder = tree / PACKAGE / "tests" / module.relative_to(tree / PACKAGE).parent
    if module.stem == "__init__":
        name = f"test_{module.parent.name}.py"
        return [path for path in (folder / name, folder.parent / name) if path.exists()]
    others = {f"test_{path.stem}.py" for path in module.parent.glob("*.py")}
    more = sorted(folder.glob(f"test_{module.stem}_*.py"))
    found = [folder / f"test_{module.stem}.py"]
    found += [path for path in more if path.name not in others]
    return [path for path in found if path.exists()]


def mirrors(tree: Path, module: Path) -> list[Path]:
    """Return the test files that mirror a module; none if nothing does."""
    found = own(tree, module)
    other = ELSEWHERE.get(key(tree, module))
    if not found and other is not None:
        found = [tree / PACKAGE / "tests" / f"{other}.py"]
    return [path for path in found if path.exists()]
