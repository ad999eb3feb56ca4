"""The options of the standalone service: the daemons' tables, adapted."""

from __future__ import annotations

from typing import Any

from autopush.options.tables import (
    ADDRESSES,
    CONNECTION,
    COUNT,
    ENDPOINT,
    HOST,
    KEYS,
    LIMITS,
    LIST,
    LOGGING,
    METRICS,
    PORT,
    POSITIVE,
    SERVICE,
    SWITCH,
    TEXT,
    TLS,
    WORKERS,
    Option,
    OptionGroup,
    choice,
)

STANDALONE_OWN: OptionGroup = (
    "where",
    (
        HOST._replace(default="127.0.0.1"),
        Option(
            "port", "PORT", PORT, 8080, "port for WebSocket and HTTP API; 0: any free one", "-p"
        ),
        Option(
            "endpoint_port",
            "ENDPOINT_PORT",
            PORT,
            None,
            "put the HTTP API on a port of its own",
            "-e",
        ),
        Option(
            "public_url",
            "PUBLIC_URL",
            TEXT,
            None,
            "what endpoint URLs begin with, as seen from outside, e.g. https://push.example.org, or"
            " https://example.org/push where a proxy serves other things beside it; its origin is"
            " the VAPID audience; none: from host and port",
        ),
        Option(
            "allowed_origins",
            "ALLOWED_ORIGINS",
            LIST,
            [],
            "origins of web pages that may open WebSockets besides the service's own, e.g."
            " https://www.example.org; repeatable, or separated by commas; *: all",
        ),
        Option(
            "data_dir",
            "DATA_DIR",
            TEXT,
            "./autopush-data",
            "directory of the database and the keys; made if missing",
        ),
        Option(
            "db_dsn",
            "DB_DSN",
            TEXT,
            None,
            "keep the database elsewhere than in data_dir: sqlite:///path/file.db,"
            " postgresql://user@host/database or dynamodb:",
        ),
        Option(
            "workers",
            "WORKERS",
            WORKERS,
            1,
            "processes that serve, so that one service uses several cores; auto: one a core",
        ),
    ),
)

ACCESS: OptionGroup = (
    "private service",
    (
        Option(
            "access_key",
            "ACCESS_KEY",
            LIST,
            None,
            "let only user agents in that show this key in the URL they are given, as printed by"
            " autokey --access; repeatable; instead of the access_keys file in data_dir; neither:"
            " everybody may come in",
        ),
    ),
)

PAGE_SHOWS = choice("off", "info", "full")

PAGE: OptionGroup = (
    "page for people",
    (
        Option(
            "page",
            "PAGE",
            PAGE_SHOWS,
            "full",
            "what is at / for browsers: off, nothing; info, the settings of user agents and a try;"
            " full, figures, too, for the operator only",
        ),
        Option(
            "page_token",
            "PAGE_TOKEN",
            TEXT,
            None,
            "let who shows this token see the figures, too: autokey --access makes one, the page is"
            " opened with #token=TOKEN behind its address; none: only who is on this machine",
        ),
    ),
)

STANDALONE_LIMITS: OptionGroup = (
    "limits",
    (
        *(row for row in LIMITS[1] if row.name != "connection_timeout"),
        Option(
            "max_message_size",
            "MAX_MESSAGE_SIZE",
            POSITIVE,
            1024 * 1024,
            "longest WebSocket message taken from a user agent, bytes",
        ),
        Option(
            "max_direct_unacked",
            "MAX_DIRECT_UNACKED",
            POSITIVE,
            1000,
            "messages one connected user agent may leave unacknowledged",
        ),
        Option(
            "forget_after",
            "FORGET_AFTER",
            COUNT,
            180,
            "days after which a user agent that has no subscription and did not come back is"
            " forgotten (SQLite); 0: never",
        ),
    ),
)

TESTS: OptionGroup = (
    "tests",
    (
        Option(
            "ephemeral",
            "AUTOPUSH_EPHEMERAL",
            SWITCH,
            False,
            "keep the data in a temporary directory, which is removed at the end",
        ),
        Option(
            "self_signed",
            "AUTOPUSH_SELF_SIGNED",
            SWITCH,
            False,
            "serve https, with a certificate in data_dir that is made for this run and only good on"
            " this machine",
        ),
        Option(
            "ready_file",
            "AUTOPUSH_READY_FILE",
            TEXT,
            None,
            "write the addresses there as JSON when the service is ready; may be a pipe",
        ),
        Option(
            "parent",
            "AUTOPUSH_PARENT",
            POSITIVE,
            None,
            "end when the process with this id ends",
        ),
        Option(
            "control",
            "AUTOPUSH_CONTROL",
            SWITCH,
            False,
            "let tests look at the service and disturb it, through the control API on loopback;"
            " never where real user agents are",
        ),
        Option(
            "control_port",
            "AUTOPUSH_CONTROL_PORT",
            PORT,
            0,
            "port of the control API; 0: any free one",
        ),
    ),
)

STANDALONE_EXCLUDED = {
    "firehose_stream_name",
    "_no_sslcontext_cache",
    "use_cryptography",
    "endpoint_port",
    "host",
    "port",
}
"""Rows of the daemons' tables that mean nothing, or something else, in one process."""

STANDALONE_DEFAULTS: dict[str, Any] = {
    "store_direct": True,
    "require_ttl": True,
    "rate_subscription": 600,
    "rate_sender": 60_000,
    "msg_limit": 0,
    "hello_timeout": 10,
    "statsd_host": "",
    "endpoint_scheme": None,
    "router_port": None,
    "human_logs": None,
}
STANDALONE_TITLES = {
    "connection node": "user agents (WebSocket)",
    "endpoint node": "application servers (HTTP API)",
}
STANDALONE_KINDS = {"human_logs": SWITCH}
STANDALONE_HELP = {
    "human_logs": "text lines instead of JSON; default: text when standard output is a terminal",
    "crypto_key": "Fernet key to use instead of the crypto_key file in data_dir; repeatable,"
    " newest first",
    "auth_key": "key of registration secrets to use instead of the auth_key file in data_dir;"
    " repeatable, newest first",
    "hostname": "host name to announce; none: from host",
    "endpoint_scheme": "scheme of endpoint URLs; none: https with ssl_key, else http",
    "router_port": "port for the internal API of other nodes; none or 0: off",
    "router_hostname": "host other nodes reach this one at",
}


def _for_standalone(group: OptionGroup) -> OptionGroup:
    """Return a daemon's table as the standalone command offers it."""
    title, rows = group
    return STANDALONE_TITLES.get(title, title), tuple(
        row._replace(
            default=STANDALONE_DEFAULTS.get(row.name, row.default),
            kind=STANDALONE_KINDS.get(row.name, row.kind),
            help=STANDALONE_HELP.get(row.name, row.help),
        )
        for row in rows
        if row.name not in STANDALONE_EXCLUDED
    )


def _part(group: OptionGroup, router: bool) -> OptionGroup:
    """Return the options about the internal API, or the others."""
    title, rows = group
    return title, tuple(row for row in rows if row.name.startswith("router_") is router)


STANDALONE: tuple[OptionGroup, ...] = (
    STANDALONE_OWN,
    ACCESS,
    PAGE,
    *map(_for_standalone, (LOGGING, METRICS, KEYS, ADDRESSES, TLS, SERVICE)),
    _for_standalone(STANDALONE_LIMITS),
    *map(_for_standalone, (_part(CONNECTION, router=False), ENDPOINT)),
    _for_standalone(("other nodes", _part(CONNECTION, router=True)[1])),
    TESTS,
)
