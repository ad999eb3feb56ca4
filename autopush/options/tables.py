"""The options of the commands, as tables.

Source: spec/configuration 3. :mod:`autopush.main_argparse` makes parsers from them, the
documentation is generated from those.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from autopush.options.suggestions import did_you_mean

# --------------------------------------------------------------------------------- option kinds


def _number(kind: Callable[[str], Any], low: float, high: float = math.inf) -> Any:
    """Return a converter that also checks the range (bounds included)."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            bound = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}"
            raise argparse.ArgumentTypeError(f"must be {bound}, not {text}")
        return value

    convert.__name__ = kind.__name__  # argparse: "invalid int value: ..."
    return convert


class UnknownChoice(argparse.ArgumentTypeError):
    """A value is none of those there are.

    :ivar hint: which may have been meant; empty: none
    """

    def __init__(self, text: str, names: Sequence[str]) -> None:
        super().__init__(f"{text!r} is none of {', '.join(names)}")
        self.hint = did_you_mean(text, names)


def choice(*names: str) -> Any:
    """Return a converter that takes one of these, or the empty text."""

    def convert(text: str) -> str:
        if text and text not in names:
            raise UnknownChoice(text, names)
        return text

    return convert


MAX_WORKERS = 64
"""Processes of one service: each takes some 60 MB."""


def WORKERS(text: str) -> int:
    """Return a number of processes; ``auto``: one for each core we may use."""
    if text == "auto":
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    number: int = _number(int, 1, MAX_WORKERS)(text)
    return number


WORKERS.__name__ = "count"  # argparse: "invalid count value: ..."


LOG_LEVEL = choice("debug", "info", "warn", "error", "critical")
PORT = _number(int, 0, 65535)
COUNT = _number(int, 0)
POSITIVE = _number(int, 1)
PERCENT = _number(int, 1, 100)
SECONDS = _number(float, 0)
TEXT = str
FLAG = "flag"
"""Off unless given."""
SWITCH = "switch"
"""``--name`` and ``--no_name``, so that a default of on can be turned off."""
LIST = "list"
"""Repeatable; the values add up in order."""


def JSON(text: str) -> str:
    """Return the text of a JSON object; whoever needs it parses it."""
    return text


METAVARS = {
    "access_key": "KEY",
    "crypto_key": "KEY",
    "allowed_origins": "ORIGIN",
    "auth_key": "KEY",
    "key_hash": "KEY",
    "data_dir": "DIR",
    "db_dsn": "DSN",
    "endpoint_hostname": "NAME",
    "host": "ADDRESS",
    "hostname": "NAME",
    "log_level": "LEVEL",
    "log_output": "WHERE",
    "page": "WHAT",
    "page_token": "TOKEN",
    "megaphone_api_url": "URL",
    "prometheus_host": "ADDRESS",
    "public_url": "URL",
    "router_host": "ADDRESS",
    "router_hostname": "NAME",
    "router_ssl_cert": "FILE",
    "router_ssl_key": "FILE",
    "ssl_cert": "FILE",
    "ssl_dh_param": "FILE",
    "ssl_key": "FILE",
}


class Option(NamedTuple):
    """One row of an option table. The key in files is ``name``."""

    name: str
    env: str | None
    kind: Any
    default: Any
    help: str
    short: str | None = None

    @property
    def metavar(self) -> str:
        """What stands for the value in the help text."""
        if self.kind is PORT:
            return "PORT"
        if self.kind in (COUNT, POSITIVE, PERCENT, WORKERS, int):
            return "N"
        if self.kind is SECONDS:
            return "SECONDS"
        if self.kind is JSON:
            return "JSON"
        return METAVARS.get(self.name, "TEXT")


OptionGroup = tuple[str, tuple[Option, ...]]

HOST = Option(
    "host",
    "LISTEN_HOST",
    TEXT,
    "0.0.0.0",
    "address to listen on; :: or 0.0.0.0 for all, unix:/path for a Unix socket",
)
"""Of the ports that have no address of their own."""


# ------------------------------------------------------------------- 3.1 shared by both daemons

LOGGING: OptionGroup = (
    "logging",
    (
        Option("debug", "DEBUG", FLAG, False, "log level debug, HTTP servers in debug mode"),
        Option(
            "log_level",
            "LOG_LEVEL",
            LOG_LEVEL,
            "",
            "debug, info, warn, error or critical; empty: info, or debug with --debug",
        ),
        Option("log_output", "LOG_OUTPUT", TEXT, "stdout", "stdout, none, or a file to append to"),
        Option(
            "firehose_stream_name",
            "STREAM_NAME",
            TEXT,
            "",
            "also deliver log lines to this Kinesis Firehose stream",
        ),
        Option("human_logs", "HUMAN_LOGS", FLAG, False, "text lines instead of JSON"),
    ),
)

KEYS: OptionGroup = (
    "keys",
    (
        Option(
            "crypto_key",
            "CRYPTO_KEY",
            LIST,
            None,
            "Fernet key of endpoint URLs and message ids, as printed by autokey; repeatable,"
            " newest first; none: a random key for the life of the process",
        ),
        Option(
            "key_hash",
            "KEY_HASH",
            TEXT,
            "",
            "key for hashing user agent ids in storage and logs; must not change once there is"
            " data; empty: not hashed",
        ),
    ),
)

METRICS: OptionGroup = (
    "metrics",
    (
        Option(
            "datadog_api_key",
            "DATADOG_API_KEY",
            TEXT,
            "",
            "send metrics to Datadog instead of statsd",
        ),
        Option("datadog_app_key", "DATADOG_APP_KEY", TEXT, "", "Datadog application key"),
        Option(
            "datadog_flush_interval",
            "DATADOG_FLUSH_INTERVAL",
            POSITIVE,
            10,
            "seconds between reports to Datadog",
        ),
        Option("statsd_host", "STATSD_HOST", TEXT, "localhost", "statsd host; empty: no statsd"),
        Option("statsd_port", "STATSD_PORT", PORT, 8125, "statsd port"),
        Option(
            "prometheus_port",
            "PROMETHEUS_PORT",
            PORT,
            None,
            "port where Prometheus finds the metrics, at /metrics; none or 0: off",
        ),
        Option(
            "prometheus_host",
            "PROMETHEUS_HOST",
            TEXT,
            "127.0.0.1",
            "address of that port; :: or 0.0.0.0 for all, unix:/path for a Unix socket",
        ),
    ),
)

ADDRESSES: OptionGroup = (
    "addresses",
    (
        Option(
            "hostname",
            "LOCAL_HOSTNAME",
            TEXT,
            None,
            "host name to announce; none: the system's host name",
        ),
        Option(
            "resolve_hostname",
            "RESOLVE_HOSTNAME",
            FLAG,
            False,
            "announce the host name's first IPv4 address instead",
        ),
        Option(
            "endpoint_scheme",
            "ENDPOINT_SCHEME",
            TEXT,
            "http",
            "scheme of endpoint URLs (whatever ssl_key says)",
        ),
        Option(
            "endpoint_hostname",
            "ENDPOINT_HOSTNAME",
            TEXT,
            None,
            "host in endpoint URLs; none: hostname",
        ),
        Option("endpoint_port", "ENDPOINT_PORT", PORT, 8082, "port in endpoint URLs", "-e"),
    ),
)

TLS: OptionGroup = (
    "TLS",
    (
        Option("ssl_key", "SSL_KEY", TEXT, "", "private key file; switches TLS on"),
        Option("ssl_cert", "SSL_CERT", TEXT, "", "certificate chain file"),
        Option("ssl_dh_param", "SSL_DH_PARAM", TEXT, None, "file with DH parameters (optional)"),
        Option(
            "_no_sslcontext_cache",
            "_NO_SSLCONTEXT_CACHE",
            FLAG,
            False,
            "don't cache TLS contexts of ssl.wrap_socket (no effect from Python 3.12 on)",
        ),
    ),
)

STORAGE: OptionGroup = (
    "storage",
    (
        Option(
            "db_dsn",
            "DB_DSN",
            TEXT,
            "dynamodb:",
            "dynamodb:, sqlite:///path/file.db or postgresql://user@host/database",
        ),
        Option("router_tablename", "ROUTER_TABLENAME", TEXT, "router", "router table"),
        Option(
            "router_read_throughput",
            "ROUTER_READ_THROUGHPUT",
            POSITIVE,
            5,
            "read units of a router table this process creates",
        ),
        Option(
            "router_write_throughput",
            "ROUTER_WRITE_THROUGHPUT",
            POSITIVE,
            5,
            "write units of a router table this process creates",
        ),
        Option(
            "message_tablename", "MESSAGE_TABLENAME", TEXT, "message", "prefix of message tables"
        ),
        Option(
            "message_read_throughput",
            "MESSAGE_READ_THROUGHPUT",
            POSITIVE,
            5,
            "read units of message tables this process creates",
        ),
        Option(
            "message_write_throughput",
            "MESSAGE_WRITE_THROUGHPUT",
            POSITIVE,
            5,
            "write units of message tables this process creates",
        ),
        Option(
            "no_table_rotation",
            "NO_TABLE_ROTATION",
            FLAG,
            False,
            "use the latest existing message table for ever",
        ),
        Option(
            "aws_ddb_endpoint",
            "AWS_LOCAL_DYNAMODB",
            TEXT,
            None,
            "DynamoDB endpoint, e.g. of a local DynamoDB",
        ),
        Option("no_aws", "NO_AWS", FLAG, False, "skip the look-ups of EC2 metadata"),
    ),
)

SERVICE: OptionGroup = (
    "service",
    (
        Option(
            "store_direct",
            "STORE_DIRECT",
            SWITCH,
            False,
            "also store messages handed to a connected user agent, until acknowledged: none is"
            " lost in a crash",
        ),
        Option("env", "AUTOPUSH_ENV", TEXT, "development", "text reported in the hello reply"),
        Option(
            "sts_max_age",
            "STS_MAX_AGE",
            COUNT,
            31536000,
            "max-age of Strict-Transport-Security, seconds; 0: no header",
        ),
        Option(
            "memusage_port",
            "MEMUSAGE_PORT",
            PORT,
            None,
            "port of the memory API; none or 0: off; don't expose",
        ),
        Option(
            "use_cryptography",
            "USE_CRYPTOGRAPHY",
            FLAG,
            False,
            "take VAPID tokens as 1.58.3 did with this option: signature in DER too, header without"
            " alg, nbf and iat not checked",
        ),
    ),
)

LIMITS: OptionGroup = (
    "limits",
    (
        Option("max_data", "MAX_DATA", POSITIVE, 4096, "longest message body, bytes"),
        Option(
            "msg_limit",
            "MSG_LIMIT",
            COUNT,
            100,
            "stored messages sent in one pass before a user agent is reset, 0: never",
        ),
        Option(
            "max_stored",
            "MAX_STORED",
            COUNT,
            10_000,
            "messages that may wait for one user agent (SQLite), more are answered 429; 0: any"
            " number",
        ),
        Option(
            "max_stored_bytes",
            "MAX_STORED_BYTES",
            COUNT,
            64 * 1024 * 1024,
            "bytes of the messages that may wait for one user agent (SQLite); 0: any number",
        ),
        Option(
            "max_stored_share",
            "MAX_STORED_SHARE",
            PERCENT,
            25,
            "percent of both that one subscription may have",
        ),
        Option(
            "connection_timeout",
            "CONNECTION_TIMEOUT",
            COUNT,
            1,
            "seconds to connect to another node",
        ),
    ),
)

SHARED = (LOGGING, KEYS, METRICS, ADDRESSES, TLS, STORAGE, SERVICE, LIMITS)
"""Those of bridges, which all commands have, too, are with the bridges:
:func:`autopush.options.bridges.option_groups`."""

# ------------------------------------------------------------------------- 3.2 connection node

CONNECTION: OptionGroup = (
    "connection node",
    (
        HOST,
        Option("port", "PORT", PORT, 8080, "port for user agents (WebSocket)", "-p"),
        Option(
            "router_host",
            "ROUTER_HOST",
            TEXT,
            None,
            "address the port for other nodes listens on, which only they should reach; none: host",
        ),
        Option(
            "router_hostname",
            "ROUTER_HOSTNAME",
            TEXT,
            None,
            "host other nodes reach this one at; none: hostname",
        ),
        Option("router_port", "ROUTER_PORT", PORT, 8081, "port for other nodes", "-r"),
        Option(
            "router_ssl_key",
            "ROUTER_SSL_KEY",
            TEXT,
            "",
            "private key file for the port for other nodes; switches TLS on",
        ),
        Option("router_ssl_cert", "ROUTER_SSL_CERT", TEXT, "", "its certificate chain file"),
        Option(
            "auto_ping_interval",
            "AUTO_PING_INTERVAL",
            SECONDS,
            0,
            "seconds between pings to user agents, 0: off",
        ),
        Option(
            "auto_ping_timeout",
            "AUTO_PING_TIMEOUT",
            SECONDS,
            4,
            "seconds to wait for a pong before closing",
        ),
        Option(
            "max_connections",
            "MAX_CONNECTIONS",
            COUNT,
            0,
            "connections above this are answered 503, 0: unlimited",
        ),
        Option(
            "close_handshake_timeout",
            "CLOSE_HANDSHAKE_TIMEOUT",
            COUNT,
            0,
            "seconds a closed connection gets before it is cut, 0: 10",
        ),
        Option(
            "hello_timeout",
            "HELLO_TIMEOUT",
            COUNT,
            0,
            "seconds to say hello in, 0: off",
        ),
        Option(
            "megaphone_api_url",
            "MEGAPHONE_API_URL",
            TEXT,
            None,
            "where broadcasts are fetched for user agents that subscribe to them; none: there are"
            " no broadcasts",
        ),
        Option(
            "megaphone_api_token",
            "MEGAPHONE_API_TOKEN",
            TEXT,
            None,
            "the Authorization header sent there, all of it, e.g. Bearer 1234; none: no header",
        ),
        Option(
            "megaphone_poll_interval",
            "MEGAPHONE_POLL_INTERVAL",
            POSITIVE,
            30,
            "seconds between two looks there",
        ),
    ),
)

# --------------------------------------------------------------------------- 3.3 endpoint node

ENDPOINT: OptionGroup = (
    "endpoint node",
    (
        HOST,
        Option("port", "PORT", PORT, 8082, "port for application servers (HTTP)", "-p"),
        Option(
            "no_cors",
            "ALLOW_CORS",
            FLAG,
            False,
            "leave out CORS headers; note the variable's name: ALLOW_CORS=true disables CORS",
        ),
        Option(
            "require_ttl",
            "REQUIRE_TTL",
            SWITCH,
            False,
            "refuse messages without TTL (RFC 8030); off: only those that have to be stored",
        ),
        Option(
            "rate_subscription",
            "RATE_SUBSCRIPTION",
            COUNT,
            0,
            "messages a minute that one subscription may get, more are answered 429; 0: any number",
        ),
        Option(
            "burst_subscription",
            "BURST_SUBSCRIPTION",
            POSITIVE,
            1000,
            "messages it may get at once after a pause, with rate_subscription",
        ),
        Option(
            "rate_sender",
            "RATE_SENDER",
            COUNT,
            0,
            "messages a minute that may be sent with one VAPID key, more are answered 429; 0: any"
            " number",
        ),
        Option(
            "burst_sender",
            "BURST_SENDER",
            POSITIVE,
            100_000,
            "messages that may be sent with it at once after a pause, with rate_sender",
        ),
        Option(
            "auth_key",
            "AUTH_KEY",
            LIST,
            [],
            "key of registration secrets; repeatable, newest first; none: secrets are not checked",
        ),
        Option(
            "client_certs",
            "CLIENT_CERTS",
            JSON,
            "{}",
            'JSON: {"<name>": ["<SHA-256 fingerprint>", ...]}; only these TLS clients may use the'
            " API",
        ),
        Option(
            "proxy_protocol_port",
            "PROXY_PROTOCOL_PORT",
            PORT,
            None,
            "second port, with the PROXY protocol; none or 0: off",
        ),
    ),
)

# -------------------------------------------------------------------------------- 3.4 obsolete

OBSOLETE = (  # noqa: SIM905
    "external_router max_message_size s3_bucket senderid_expry proxy_protocol apns_enabled"
    " apns_sandbox apns_cert_file apns_key_file wake_timeout wake_pem wake_server"
    " disable_simplepush storage_tablename storage_read_throughput storage_write_throughput"
    " gcm_enabled fcm_enabled fcm_auth fcm_senderid fcm_project_id fcm_service_cred_path"
).split()
"""Accepted with exactly one value and ignored; sample files of old releases still set some."""
