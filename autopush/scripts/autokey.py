"""``autokey``: print a new key (spec/configuration 1.3)."""

from __future__ import annotations

import argparse
import secrets

from cryptography.fernet import Fernet

from autopush.options.optionparser import VERSION, Examples, with_examples

ENTROPY = 32
"""Random bytes of an access key: 256 bits, 43 characters."""

ADVICE = """\
# An access key of autopush_standalone: only user agents that show one may come in.
# Append this to the file access_keys in the data directory, with mode 600, and restart:
#   autokey --access >> autopush-data/access_keys; chmod 600 autopush-data/access_keys
# Then give user agents the address with the key at its end, wss://push.example.org/<key>,
# as dom.push.serverURL in Firefox or the server's URL of a UnifiedPush distributor."""


EXAMPLES: Examples = (
    ("autokey", "a key for CRYPTO_KEY or crypto_key"),
    ("autokey >> .env", "where Docker Compose looks for it"),
    ("autokey --access >> autopush-data/access_keys", "one more person may come in"),
)


class Parser(argparse.ArgumentParser):
    """With examples at the end of the help text."""

    def format_help(self) -> str:
        return with_examples(super().format_help(), EXAMPLES)


def main() -> None:
    """Write one line to standard output, ready for the environment or an ini file."""
    parser = Parser(
        prog="autokey",
        description="Prints a new crypto key, as a line for the environment or a file of options.",
    )
    parser.add_argument(
        "--access",
        action="store_true",
        help="print a key to a private service instead, as lines for the file access_keys",
    )
    parser.add_argument(
        "--version", action="version", version=VERSION, help="print the version and exit"
    )
    args, _ = parser.parse_known_args()  # others have never been an error
    if args.access:
        print(ADVICE)
        print(access_key())
    else:
        print(f'CRYPTO_KEY="{Fernet.generate_key().decode()}"')


def access_key() -> str:
    """Return a new key that no option parser takes for an option."""
    while True:
        key = secrets.token_urlsafe(ENTROPY)
        if not key.startswith("-"):
            return key


if __name__ == "__main__":
    main()
