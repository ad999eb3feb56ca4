"""``endpoint_diagnostic``: what is behind a subscription URL (spec/configuration 1.4).

It only reads: no table is created, nothing is written. URLs of every version are decoded without an
``Authorization`` header, and files of endpoint nodes are accepted as they are (quirk C13).
"""

from __future__ import annotations

import pprint
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import InvalidToken
from twisted.logger import Logger

from autopush.app.standalone import dsn_of, existing_crypto_keys
from autopush.app.starterrors import EXPECTED, start_error_text
from autopush.config import AutopushConfig
from autopush.db.offline import offline_from_config
from autopush.exceptions import InvalidTokenException, StoreError
from autopush.message.encoding import decrypt, repad
from autopush.message.endpoint_token import V1_SIZE, V2_SIZE
from autopush.options.commands import ENDPOINT
from autopush.options.optionparser import Examples, OptionParser
from autopush.options.parser import add_endpoint_args, add_shared_args

URL = re.compile(r"push/(?:(?P<api_ver>v\d+)/)?(?P<token>[^/]+)")
"""What is looked for, anywhere in the argument."""

SIZES = {"v1": V1_SIZE, "v2": V2_SIZE}
"""Bytes in a token, by version; URLs without a version are not checked."""

DB_ERROR = "Can't read the database: {}"


EXAMPLES: Examples = (
    (
        "endpoint_diagnostic https://push.example.org/wpush/v1/TOKEN",
        "with the options of the endpoint node in its files",
    ),
    (
        "endpoint_diagnostic --data_dir /var/lib/autopush https://push.example.org/wpush/v1/TOKEN",
        "of a standalone service",
    ),
    (
        "endpoint_diagnostic --config-shared shared.ini https://push.example.org/wpush/v1/TOKEN",
        "with the options of a cluster",
    ),
)


def parse_diagnostic(config_files: Sequence[str], args: Sequence[str] | None) -> Namespace:
    """Read the options: those of an endpoint node, most without a meaning here, and the URL.

    :param args: command line; None: ``sys.argv[1:]``
    :raises SystemExit: 0 for help, 2 for a bad option
    """
    parser = OptionParser(
        description="Runs endpoint diagnostics.",
        default_config_files=list(config_files),
        examples=EXAMPLES,
    )
    parser.add_argument("endpoint", help="subscription URL")
    parser.add_argument(
        "--data_dir",
        metavar="TEXT",
        help="data directory of a standalone service: its database, without a db_dsn, and its"
        " keys, without a crypto_key",
    )
    add_endpoint_args(parser)
    add_shared_args(parser)
    return parser.parse_args(args)


class EndpointDiagnosticCLI:
    """One run of the command.

    :param sysargs: command line; None: ``sys.argv[1:]``
    :param resource: boto3 DynamoDB resource to use instead of an own client (tests)
    :param use_files: whether to read the default configuration files
    :raises SystemExit: bad options
    :raises InvalidConfig: options that contradict each other
    :raises StoreUnusable: there is no such database
    """

    log = Logger()
    config_files = ENDPOINT.config_files

    def __init__(
        self, sysargs: Sequence[str] | None, resource: Any = None, use_files: bool = True
    ) -> None:
        ns = self._load_args(sysargs, use_files)
        # Nothing here is about this machine: don't ask what it is called or where it runs.
        ns.no_aws, ns.resolve_hostname = True, False
        ns.client_certs = None
        self._conf = AutopushConfig.from_argparse(ns, statsd_host=None, db_dsn=dsn_of(ns))
        if ns.data_dir and not any(ns.crypto_key or ()):
            self._conf.use_crypto_keys(existing_crypto_keys(ns.data_dir))
        self._endpoint: str = ns.endpoint
        self._pp = pprint.PrettyPrinter(indent=4)
        self.db = offline_from_config(self._conf, resource)

    def _load_args(self, sysargs: Sequence[str] | None, use_files: bool) -> Namespace:
        return parse_diagnostic(self.config_files if use_files else (), sysargs)

    def run(self) -> str | None:
        """Print what is known; returns the error for standard error, None if all was found."""
        match = URL.search(self._endpoint)
        if match is None:
            return "Not a valid endpoint"
        try:
            uaid, chid = self._decode(match["token"], match["api_ver"])
        except (InvalidToken, InvalidTokenException, ValueError) as exc:
            print(
                f"Token could not be deciphered: {exc}."
                " Are you using the correct configuration or platform?"
            )
            return "Invalid Token"
        print(f"UAID: {uaid}\nCHID: {chid}\n")
        try:
            return self._show(uaid)
        except StoreError as exc:
            return DB_ERROR.format(exc)

    def _decode(self, token: str, version: str | None) -> tuple[str, str]:
        """Return UAID and channel id, hex digits."""
        content = decrypt(self._conf.fernet, repad(token))
        size = SIZES.get(version or "", len(content))
        if len(content) != size or len(content) < V1_SIZE:
            raise InvalidTokenException("Corrupted push token")
        return content[:16].hex(), content[16:32].hex()

    def _show(self, uaid: str) -> str | None:
        record = self.db.get_user(uaid)
        if record is None:
            print("Item Missing from database: uaid not found")
            return "Not Found"
        print("Router record:")
        self._pp.pprint(record)
        if "current_month" in record:
            channels = self.db.list_channels(str(record["current_month"]), uaid)
            print("Channels in message table:")
            self._pp.pprint(tuple(channels))
        print("\n")
        return None


def run_endpoint_diagnostic_cli(
    sysargs: Sequence[str] | None = None, use_files: bool = True, resource: Any = None
) -> str | None:
    """Console entry; the result is for :func:`sys.exit`."""
    try:
        return EndpointDiagnosticCLI(sysargs, resource, use_files).run()
    except EXPECTED as exc:
        return start_error_text(exc)


if __name__ == "__main__":
    sys.exit(run_endpoint_diagnostic_cli())
