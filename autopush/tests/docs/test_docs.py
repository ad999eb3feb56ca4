"""The manual says what the program does."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from sphinx.util.inventory import InventoryFile
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from autopush.scripts import autokey, data, drop_user
from autopush.tests import TREE
from autopush.tests.docs.errors import http_errors, same, websocket_errors
from autopush.tests.docs.support import ANY, DOCS, Block, Emission, blocks, pages, table
from autopush.tests.e2e.clients import PATIENCE, PATIENT
from autopush.tests.e2e.harness import Server, environment
from autopush.tests.test_python_api import DOCUMENTED

sys.path.insert(0, str(DOCS / "_ext"))
from autopush_limits import limit
from autopush_options import PARSERS, documented, source

sys.path.pop(0)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("docs")) as running:
        yield running


# ---------------------------------------------------------------------------------- the whole


def test_sphinx_has_nothing_to_say(manual):
    """Links between pages, references to options, terms and code, and the markup are right."""
    html, done = manual
    assert (done.returncode, done.stderr) == (0, "")
    check_anchors(html)


ELSEWHERE = {"autopush.router.apns2": "autopush.router.apnsrouter"}
"""Modules described on the page of another one."""


def test_every_documented_name_has_its_entry_at_its_place(manual):
    html, _ = manual
    inventory = InventoryFile.load((html / "objects.inv").open("rb"), "", lambda _, uri: uri)
    places = {
        name: item.uri.partition("#")[0]
        for kind, items in inventory.items()
        if kind.startswith("py:")
        for name, item in items.items()
    }
    for line in DOCUMENTED.strip().splitlines():
        module, _, member = line.partition("(")[0].partition(":")
        page = ELSEWHERE.get(module, module).removeprefix("autopush.").replace(".", "/")
        assert places.get(f"{module}.{member}") == f"api/{page}.html", line


def test_modules_and_routes_have_indexes(manual):
    html, _ = manual
    links = (html / "api.html").read_text("utf-8")
    for index in ("py-modindex.html", "genindex.html", "http-routingtable.html"):
        assert f'href="{index}"' in links
        assert (html / index).exists()
    routes = (html / "http-routingtable.html").read_text("utf-8")
    assert "/push/(uaid)" in routes and "/status" in routes


def check_anchors(html: Path) -> None:
    """Where the program's answers point to is there, and so is every link within the manual."""
    from autopush.session.errors import MORE_INFO
    from autopush.web.base import DEFAULT_ERR_URL

    texts = {path: path.read_text("utf-8") for path in html.rglob("*.html")}
    for url in (MORE_INFO, DEFAULT_ERR_URL):
        page, _, anchor = url.partition("/en/latest/")[2].partition("#")
        assert f'id="{anchor}"' in texts[html / page], url
    for path, text in texts.items():
        for target, anchor in re.findall(r'href="([^":#?]*)(?:\?[^"#]*)?(?:#([^"]*))?"', text):
            found = (path.parent / target).resolve() if target else path
            assert found.exists(), (path.name, target)
            if anchor and found in texts:
                assert f'id="{anchor}"' in texts[found], (path.name, target, anchor)


def test_every_page_is_in_the_table_of_contents():
    listed = {"index"}
    for page, text in pages().items():
        for block in re.findall(r"^\.\. toctree::\n((?:[ ]+.*\n|\n)+)", text, re.MULTILINE):
            entries = [line.strip() for line in block.splitlines()]
            folder = Path(page).parent
            listed |= {str(folder / entry) for entry in entries if entry and entry[0] != ":"}
    assert listed == set(pages())


FILE = re.compile(r"``((?:autopush|automock|bench|configs|docs|fuzz|\.ci)/[^`<*\s]*)``")


def test_files_mentioned_exist():
    for page, text in pages().items():
        if page.startswith("spec/"):
            continue  # they also tell of files of 1.58.3
        for name in FILE.findall(text):
            made = name.startswith("docs/_build")
            optional = made or (name.startswith("configs/") and name.endswith(".ini"))
            assert optional or (TREE / name).exists(), (page, name)


# ------------------------------------------------------------------------------------ options


@pytest.mark.parametrize("command", PARSERS)
def test_every_option_is_in_the_reference(command):
    """The directive shows each option of ``--help``, with its variable and its default."""
    parser = PARSERS[command]()
    groups = [action for group in parser._action_groups for action in group._group_actions]
    assert {id(action) for action in parser._actions if documented(action)} == {
        id(action) for action in groups if documented(action)
    }
    usage = parser.format_help()
    for action in filter(documented, groups):
        text = "\n".join(source(action))
        assert all(name in usage and name in text for name in action.option_strings)
        variable = getattr(action, "env_var", None)
        assert variable is None or f"``{variable}``" in text
        if action.default and not isinstance(action.default, bool) and action.default != "{}":
            assert str(action.default) in text or action.default == "==SUPPRESS=="


def test_each_command_has_its_reference():
    shown = re.findall(r"^\.\. autopush-options:: (\w+)$", "\n".join(pages().values()), re.M)
    assert sorted(shown) == sorted(PARSERS)


COMMANDS = {
    **PARSERS,
    "endpoint_diagnostic": PARSERS["autoendpoint"],
    "autopush_doctor": PARSERS["autopush_standalone"],
}


def test_options_in_examples_exist():
    """Commands shown anywhere, be it in a text or in an example, are called as they can be."""
    known = {
        option
        for make in COMMANDS.values()
        for action in make()._actions
        for option in action.option_strings
    } | {"--help"}
    for script in (autokey, data, drop_user):
        known |= set(re.findall(r'"(--[a-z_-]+)"', Path(script.__file__).read_text()))
    known |= set(re.findall(r'"(--[a-z_-]+)"', (TREE / "automock/__main__.py").read_text()))
    for path in sorted((TREE / "autopush/doctor").glob("*.py")):
        known |= set(re.findall(r'"(--[a-z_-]+)"', path.read_text()))
    modules = ["python -m autopush", "python -m automock"]
    names = "|".join([*COMMANDS, "autopush_data", "drop_users", "autokey", *modules])
    call = re.compile(rf"(?:^|[\s`/$])(?:{names})((?: +[^\s`|>&;]+)+)", re.MULTILINE)
    for page, text in pages().items():
        for words in call.findall(text):
            for option in re.findall(r"(?<!\S)(--[a-z][\w-]*)", words):
                assert option in known, (page, option)


# ------------------------------------------------------------------------------------- errors


def rows(css_class: str) -> list[list[str]]:
    """A table's rows with every placeholder written the same way."""
    return [[re.sub(r"<[a-z_]+>", "<>", cell) for cell in row] for row in table(css_class)]


def is_about(row: list[str], one: Emission) -> bool:
    """Whether a row of the table of HTTP errors is about an answer."""
    errno = "null" if one.errno is None else one.errno
    return same(row[0], one.status) and same(row[1], errno) and row[2] == str(one.text)


def test_every_http_error_is_in_the_table():
    documented_errors = rows("error-table")
    for one in http_errors():
        assert any(is_about(row, one) for row in documented_errors), one


def test_every_error_in_the_table_can_happen():
    found = http_errors()
    for row in rows("error-table"):
        assert any(is_about(row, one) for one in found), row


def test_the_collector_sees_what_it_must():
    """If it found nothing the tests above could not fail."""
    found = {(one.status, one.errno, str(one.text)) for one in http_errors()}
    assert len(found) > 70
    assert {
        (410, 103, "UAID not found"),  # a plain raise
        (503, 201, "Retry Request"),  # made by a function
        (413, 104, "Message is too long for the recipient"),  # through a method with arguments
        (503, 202, "Unexpected Error"),  # one of two, depending on a condition
        (413, 104, "Data payload must be smaller than <>"),  # also as a body
        (500, 1, "'to' or 'registration_id' is blank or invalid"),  # in a table
        (401, 109, "missing authorization header: Key mismatch"),  # wrapped
    } <= found


def test_errnos_are_explained():
    text = pages()["http"]
    section = text[text.index("By number") : text.index(".. _error-table:")]
    explained = set(re.findall(r"\b\d{1,3}\b", "".join(re.findall(r"^[\d, ]+ ", section, re.M))))
    used = {row[1] for row in table("error-table")} - {"null", "none", "0"}
    used |= {row[3] for row in table("field-table")}
    assert explained == used


def test_errnos_that_are_never_sent():
    text = pages()["http"]
    sentence = text[text.index("Never sent:") : text.index("1.58.3 published 101")]
    never = set(re.findall(r"\b\d{1,3}\b", sentence))
    assert len(never) == 4
    assert not never & {str(one.errno) for one in http_errors()}
    assert not never & {row[3] for row in table("field-table")}
    assert not {200, 202, 301} & {one.status for one in http_errors()}


def test_every_websocket_error_is_in_the_table():
    documented_errors = rows("websocket-errors")
    found = websocket_errors()
    assert len(found) >= 10
    for one in found:
        assert any(
            (kind, status) == (one.errno, str(one.status)) and same(reason, one.text)
            for kind, status, reason, *_ in documented_errors
        ), one


def test_every_websocket_error_in_the_table_can_happen():
    found = websocket_errors()
    for kind, status, reason, *_ in rows("websocket-errors"):
        assert any(
            (kind, status) == (one.errno, str(one.status)) and same(reason, one.text)
            for one in found
        ), (kind, status, reason)


REGISTRATION = "/v1/webpush/docs/registration"
SEALED = {"Content-Encoding": "aesgcm128", "TTL": "1"}
FIELDS: dict[tuple[str, str, str], dict[str, Any]] = {
    ("headers", "ttl", "Not a valid integer."): {"headers": {"TTL": "soon"}},
    ("headers", "urgency", "Must be one of: very-low, low, normal, high."): {
        "headers": {"TTL": "1", "Urgency": "soon"}
    },
    ("headers", "encryption", "Missing data for required field."): {"headers": SEALED, "data": "x"},
    ("headers", "encryption-key", "Missing data for required field."): {
        "headers": SEALED,
        "data": "x",
    },
    ("body", "_schema", "Invalid input type."): {"url": REGISTRATION, "json": []},
    ("body", "token", "Not a valid string."): {"url": REGISTRATION, "json": {"token": 1}},
    ("body", "key", "Not a valid string."): {"url": REGISTRATION, "json": {"key": 1}},
    ("body", "channelID", "Not a valid UUID."): {"url": REGISTRATION, "json": {"channelID": "x"}},
}
BRIDGES_ONLY = {
    ("body", "token", "String does not match expected pattern."),
    ("body", "token", "Field may not be null."),
    ("body", "aps", "Not a valid mapping type."),
}
"""Need a bridge; the tests of the registration API have them."""


def test_field_errors(server):
    registration = server.endpoint_url + REGISTRATION
    endpoint = requests.post(registration, json={}, timeout=60).json()["endpoint"]
    errnos = {tuple(row[:3]): int(row[3]) for row in table("field-table")}
    assert set(errnos) == set(FIELDS) | BRIDGES_ONLY
    for (place, field, text), request in FIELDS.items():
        url = server.endpoint_url + request["url"] if "url" in request else endpoint
        given = {name: part for name, part in request.items() if name != "url"}
        answer = requests.post(url, **given, timeout=60)
        assert (answer.status_code, answer.json()["errors"][place][field]) == (400, [text])
        wrong = [(place, name, text) for name in answer.json()["errors"][place]]
        assert answer.json()["errno"] == next(errnos[row] for row in errnos if row in wrong)
    tests = (TREE / "autopush/tests/web/test_registration.py").read_text()
    for _, _, text in BRIDGES_ONLY:
        assert text in tests


def test_start_errors_are_those_of_the_program():
    names = ("app/standalone", "app/starterrors", "db/sqlite/schema")
    strings = []
    for name in names:
        tree = ast.parse((TREE / "autopush" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                text = "".join(part if isinstance(part, str) else "<>" for part in parts)
                strings.append(text.replace("<>:<>:", "<>:"))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.append(node.value)
    for line, _ in rows("start-errors"):
        assert line in strings, line


# ------------------------------------------------------------------------------------- limits

LIMIT = re.compile(
    r"(^|_)(MAX|LIMIT|TIMEOUT|WAITING|WITHIN|LIFE|DEADLINE|QUEUED?|BUFFER|BYTES|CONNECTIONS"
    r"|CACHED|REMEMBERED|WAIT|BACKLOG)(_|$)"
)
NO_LIMITS = {
    "autopush.httpserver.handler._HEADER_VALUE_LIMIT": "catches mistakes of ours",
    "autopush.router.adm.MAX_DETAIL": "of a log line",
    "autopush.router.fcmv1client.MAX_DETAIL": "of a log line",
    "autopush.router.gcmclient.MAX_DETAIL": "of a log line",
    "autopush.websocket.wire.BACKLOG_HOLD": "a flag",
}


def test_every_limit_is_in_the_table():
    """And has, in the code, a docstring that the table shows as its reason."""
    lines = [line for block in blocks("autopush-limits::") for line in block.text.splitlines()]
    shown = [limit(line) for line in lines if line.strip()]
    assert all(row.what and row.reason for row in shown)
    listed = {row.where.strip("`") for row in shown}
    left_out = set()
    for path in sorted((TREE / "autopush").rglob("*.py")):
        if "tests" in path.parts:
            continue
        module = ".".join(path.relative_to(TREE).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            name = f"{module}.{node.targets[0].id}"
            number = isinstance(node.value, ast.BinOp) or (
                isinstance(node.value, ast.Constant) and isinstance(node.value.value, int | float)
            )
            if not number or not LIMIT.search(node.targets[0].id):
                continue
            if name in NO_LIMITS:
                left_out.add(name)
            else:
                assert name.removeprefix("autopush.") in listed, name
    assert left_out == set(NO_LIMITS)


# ----------------------------------------------------------------------------------- examples

EXAMPLES = blocks("code-block:: console", "runnable")
BASE = "http://127.0.0.1:8080"


def example_pages() -> list[str]:
    return sorted({block.page for block in EXAMPLES})


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console session, each with what it prints."""
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (found[-1][0] + "\n" + line[2:], "")
        else:
            command, output = found[-1]
            found[-1] = (command, output + line + "\n")
    return found


def matches(expected: str, output: str) -> bool:
    """Compare, with ``...`` for anything."""
    pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, output.replace("\r", "").strip(), re.DOTALL) is not None


MARK = "--- end of a command ---"


@pytest.mark.parametrize("page", example_pages())
def test_examples(page, server, tmp_path):
    """A page's examples, pasted one after the other, print what they are said to print."""
    commands_dir = tmp_path / "bin"
    commands_dir.mkdir()
    for name, entry in {
        "autopush_standalone": "autopush.__main__ main",
        "autopush": "autopush.__main__ connection",
        "autoendpoint": "autopush.__main__ endpoint",
        "autopush_doctor": "autopush.__main__ doctor",
        "autokey": "autopush.scripts.autokey main",
        "drop_users": "autopush.scripts.drop_user drop_users",
        "autopush_data": "autopush.scripts.data main",
        "endpoint_diagnostic": "autopush.diagnostic_cli run_endpoint_diagnostic_cli",
    }.items():
        module, function = entry.split()
        script = commands_dir / name
        code = f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        script.write_text(f"#!{sys.executable}\n{code}")
        script.chmod(0o755)
    steps = [step for block in EXAMPLES if block.page == page for step in commands(block)]
    if shutil.which("curl") is None and any("curl " in command for command, _ in steps):
        pytest.skip("no curl on this machine")
    script = "".join(f"{command}\nprintf '\\n%s\\n' '{MARK}'\n" for command, _ in steps)
    env = environment(tmp_path, {"DATA_DIR": str(server.data_dir)})
    python = Path(sys.executable).parent
    env["PATH"] = os.pathsep.join([str(commands_dir), str(python), env["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script.replace(BASE, server.endpoint_url)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,  # a dozen programs start
    )
    outputs = done.stdout.split(f"\n{MARK}\n")
    assert len(outputs) == len(steps) + 1, done.stderr
    for (command, expected), output in zip(steps, outputs, strict=False):
        wanted = expected.replace(BASE, server.endpoint_url)
        seen = f"{command}\nexpected:\n{wanted}\ngot:\n{output}{done.stderr}"
        assert matches(wanted, output), seen


def test_there_are_examples():
    assert {"http", "install", "standalone"} <= set(example_pages())
    assert len(TRANSCRIPTS) >= 6


# -------------------------------------------------------------------------------- transcripts

TRANSCRIPTS = blocks("code-block:: none", "transcript")
POST = re.compile(r"POST (\S+) (.*)")


class Play:
    """One transcript on one connection."""

    def __init__(self, browser: ClientConnection) -> None:
        self.browser = browser
        self.known: dict[str, Any] = {}

    def filled(self, text: str) -> str:
        """Put what has been received in the place of its name."""
        return re.sub(r"<(\w+)>", lambda name: self.known.get(name[1], name[0]), text)

    async def step(self, line: str) -> None:
        kind, rest = line[0], self.filled(line[2:])
        if kind == ">":
            await self.browser.send(rest)
        elif kind == "*":
            await self.post(rest)
        elif rest.startswith("close"):
            await self.closed(rest.removeprefix("close").strip())
        else:
            message = json.loads(await asyncio.wait_for(self.browser.recv(), PATIENCE))
            self.compare(json.loads(rest), message)

    async def post(self, text: str) -> None:
        match = POST.fullmatch(text)
        assert match, text
        parts = dict(part.split(": ", 1) for part in match[2].split(", "))
        body = parts.pop("body", None)
        answer = await asyncio.to_thread(requests.post, match[1], data=body, headers=parts)
        assert answer.status_code == 201, answer.text

    async def closed(self, code: str) -> None:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(self.browser.recv(), PATIENCE)
        assert closed.value.rcvd is not None
        assert str(closed.value.rcvd.code) == (code or "1005")

    def compare(self, expected: Any, got: Any) -> None:
        if isinstance(expected, dict):
            assert isinstance(got, dict) and set(expected) == set(got), (expected, got)
            for name, part in expected.items():
                self.compare(part, got[name])
        elif isinstance(expected, str) and re.fullmatch(r"<\w+>", expected):
            self.known[expected[1:-1]] = got
        else:
            assert expected == got


@pytest.mark.parametrize("block", TRANSCRIPTS, ids=lambda block: f"{block.page}-{block.line}")
def test_transcripts(block, server):
    """Played against the service, each step does what is said."""

    async def play() -> None:
        async with connect(server.ws_url, compression=None, **PATIENT) as browser:
            part = Play(browser)
            for line in block.text.splitlines():
                await part.step(line)

    asyncio.run(play())


# --------------------------------------------------------------------------------- other texts


def test_preferences_are_those_of_the_firefox_test():
    from autopush.tests.e2e.firefox import PREFERENCES

    text = pages()["testing"]
    section = text[text.index("The Firefox test") :]
    for name, shown in re.findall(r"``([a-z.A-Z]+)`` =\s+(?:[^`\n]*\n)?``(\w+)``", section):
        assert json.dumps(PREFERENCES[name]) == shown
    assert "dom.push.testing.allowInsecureServerURL" in PREFERENCES


def test_protocol_has_every_message_type():
    from autopush.session.conversation import COMMANDS

    text = pages()["websocket"]
    for name in COMMANDS:
        assert re.search(rf"^{name}\n-+$|^notification and {name}\n-+$", text, re.MULTILINE), name


def test_every_route_is_documented():
    from autopush.http import EndpointHTTPFactory, InternalRouterHTTPFactory

    text = pages()["http"] + pages()["api/websocket"]
    shown = re.findall(r"^\.\. http:\w+:: (\S+)", text, re.MULTILINE)
    paths = [re.sub(r"\([a-z_]+\)", "x", path).replace("/x/x", "/v1/x", 1) for path in shown]
    paths += re.findall(r"``(/__\w+__)``", text)
    paths += [path.replace("/x", "/1") for path in paths]
    routes = [
        *EndpointHTTPFactory.ap_handlers[:-1],
        *EndpointHTTPFactory.health_ap_handlers,
        *InternalRouterHTTPFactory.ap_handlers,
    ]
    for pattern, _ in routes:
        assert any(re.fullmatch(pattern, path) for path in paths), pattern


def test_an_unknown_value_is_not_a_wildcard_by_accident():
    assert same(ANY, "x") and same("400", 400) and not same("400", 410)
